"""The docs page in Chromium, under its content security policy."""

import pytest

pytestmark = pytest.mark.web

MILLISECONDS = 60_000
DETECT = "#operations-tasks-detect"


@pytest.fixture
def page(browser, door_url):
    page = browser.new_page()
    page.set_default_timeout(MILLISECONDS)
    page.seen, page.requested = [], []
    page.on("console", lambda message: page.seen.append(message.text))
    page.on("pageerror", lambda error: page.seen.append(str(error)))
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(f"{door_url}/docs")
    yield page
    page.close()


def test_a_task_is_tried_out_with_nothing_but_a_file(page, door_url, tmp_path, scene):
    picture = tmp_path / "scene.png"
    picture.write_bytes(scene)
    page.click(f"{DETECT} .opblock-summary-control")
    page.set_input_files(f"{DETECT} input[type=file]", picture)
    page.click(f"{DETECT} .execute")
    answer = page.inner_text(f"{DETECT} .live-responses-table .highlight-code")
    assert "blue square" in answer
    assert page.seen == []
    assert all(url.startswith((door_url, "data:", "blob:")) for url in page.requested)
