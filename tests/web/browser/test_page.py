"""The page itself: errors, slow servers, keyboards, sizes, themes, pictures of phones, files."""

import asyncio
import io
import json
import threading

import PIL.Image
import pytest
from florence2.testing import MockTransport, task_response

from tests.conftest import EXAMPLE_SCENE
from tests.web.browser.playground import TaskRow

pytestmark = pytest.mark.web

DETECT = TaskRow("Find", "detect")
DOG = "dog<loc_100><loc_200><loc_300><loc_400>"
WIDTHS = {"phone": 360, "tablet": 768, "desktop": 1280}


class Halting(MockTransport):
    """A transport whose streams stop after their first item, until they are cancelled."""

    def __init__(self):
        super().__init__(lambda image, request: task_response(f"{DOG}cat<loc_5><loc_6><loc_70><loc_80>"))  # noqa: ARG005
        self.is_cancelled = threading.Event()

    async def stream_async(self, image, request, context):
        try:
            for reply in self.stream(image, request, context):
                yield reply
                if reply.event.HasField("detection"):
                    await asyncio.Event().wait()
        finally:
            self.is_cancelled.set()


def test_items_are_drawn_while_the_rest_is_awaited_and_stopping_cancels_the_request(visit, serve_transport):
    transport = Halting()
    playground = visit(serve_transport(transport))
    playground.choose(DETECT)
    playground.page.click("#run")
    playground.list_items().filter(has_text="dog").wait_for()
    assert len(playground.boxes()) == 1
    assert playground.page.locator("#running").is_visible()
    playground.page.locator("#clock", has_text="s").wait_for()
    assert not transport.is_cancelled.is_set()
    playground.page.click("#stop")
    playground.page.locator("#note", has_text="Stopped").wait_for()
    assert transport.is_cancelled.wait(30)
    assert playground.page.locator("#run").is_visible()
    assert len(playground.boxes()) == 1


def test_an_error_is_shown_beside_the_control_that_it_names(visit):
    playground = visit()
    playground.choose(TaskRow("Describe", "describe-region", region=(10, 10, 5000, 20)))
    playground.page.click("#run")
    problem = playground.page.locator("fieldset[data-field=region] .problem")
    problem.wait_for()
    assert "5000" in problem.inner_text()
    field = playground.page.locator("[data-side='0']")
    assert field.get_attribute("aria-invalid") == "true"
    assert field.get_attribute("aria-describedby") == problem.get_attribute("id")


def test_an_error_about_a_folded_option_opens_it(visit):
    playground = visit()
    playground.choose(DETECT)
    playground.page.locator("#options summary").click()
    playground.page.fill("#field-num_beams", "99")
    playground.page.locator("#options summary").click()
    playground.page.click("#run")
    assert "99" in playground.page.locator(".field:has(#field-num_beams) .problem").inner_text()
    assert playground.page.locator("#field-num_beams").is_visible()


def test_a_file_that_is_no_picture_is_refused_in_words(visit):
    playground = visit()
    playground.upload("notes.png", "image/png", b"no picture")
    playground.page.click("#run")
    playground.page.locator("#image-problem:visible").wait_for()


def test_a_server_with_keys_asks_for_one(visit, serve_transport, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("someone:correct-key-0123456789\n")
    url = serve_transport(lambda image, request: task_response(DOG), api_keys=keys)  # noqa: ARG005
    playground = visit(url, is_loaded=False)
    playground.page.locator("#key-form:visible").wait_for()
    playground.page.fill("#key", "wrong-key-0123456789")
    playground.page.press("#key", "Enter")
    playground.page.locator("#problem:visible").wait_for()
    playground.page.fill("#key", "correct-key-0123456789")
    playground.page.click("#save-key")
    playground.wait_until_loaded()
    playground.run()
    assert "FLORENCE2_API_KEY" in code(playground, "curl")
    assert "correct-key-0123456789" not in code(playground, "curl")


def code(playground, language):
    playground.page.get_by_role("tab", name=language).click()
    return playground.page.locator("#code").inner_text()


def test_text_of_a_model_is_never_markup(visit, serve_transport):
    text = '<img src="x" onerror="document.title = 1"> \u05e9\u05dc\u05d5\u05dd \U0001f980 <b>bold</b>'
    url = serve_transport(lambda image, request: task_response(f"{text}<loc_1><loc_2><loc_300><loc_400>"))  # noqa: ARG005
    playground = visit(url)
    playground.choose(DETECT)
    [item] = playground.run()["result"]["items"]
    assert "\u05e9\u05dc\u05d5\u05dd" in item["label"]
    assert playground.page.locator("#items .label").text_content() == item["label"]
    assert playground.page.locator("#items b, #items .label img, #marks b, #raw img").count() == 0


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_nothing_scrolls_sideways(visit, width):
    playground = visit(viewport={"width": width, "height": 740})
    rows = [DETECT, TaskRow("Segment", "segment-region", region=(0, 0, 90, 90)), TaskRow("Cascades", "analyze-regions")]
    for row in rows:
        playground.choose(row)
        assert overflow(playground) <= 0
    playground.run()
    assert overflow(playground) <= 0


def overflow(playground):
    return playground.page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_the_toggle_changes_it(visit, scheme):
    playground = visit(color_scheme=scheme)
    other = {"light": "dark", "dark": "light"}[scheme]
    before = background(playground)
    playground.page.click("#theme")
    assert playground.page.locator("#theme").get_attribute("aria-pressed") == str(other == "dark").lower()
    assert background(playground) != before
    playground.page.reload()
    assert playground.page.locator("html").get_attribute("data-theme") == other


def background(playground):
    return playground.page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_a_keyboard_is_enough(visit):
    playground = visit()
    keyboard = playground.page.keyboard
    keyboard.press("Tab")
    assert playground.page.locator(".skip").evaluate("(each) => each === document.activeElement")
    keyboard.press("Enter")
    keyboard.press("Tab")
    keyboard.press("ArrowRight")
    keyboard.press("Tab")
    keyboard.press("ArrowRight")
    assert playground.page.locator("#tasks input:checked").get_attribute("value") == "classify-region"
    for side in (50, 60, 230, 240):
        keyboard.press("Tab")
        keyboard.type(str(side))
    keyboard.press("Enter")
    playground.page.locator("#prose", has_text="red circle").wait_for()
    playground.page.locator("#announce", has_text="red circle").wait_for(state="attached")
    assert playground.page.locator("#run").evaluate("(each) => each === document.activeElement")


def test_a_dragged_box_is_the_region(visit):
    playground = visit()
    playground.choose(TaskRow("Describe", "describe-region"))
    place = playground.page.locator("#picture").bounding_box()
    scale, _ = playground.scale()
    at = lambda x, y: (place["x"] + x * scale, place["y"] + y * scale)  # noqa: E731
    playground.page.mouse.move(*at(230, 240))
    playground.page.mouse.down()
    playground.page.mouse.move(*at(100, 100))
    playground.page.mouse.move(*at(50, 60))
    playground.page.mouse.up()
    sides = [float(playground.page.input_value(f"[data-side='{side}']")) for side in range(4)]
    assert sides == pytest.approx([50, 60, 230, 240], abs=2)
    assert "red circle" in playground.run()["result"]["text"]


def test_a_phone_picture_is_shown_upright_and_sent_as_it_is(visit):
    upright = PIL.Image.open(EXAMPLE_SCENE).convert("RGB")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: viewers turn the picture by 90 degrees
    file = io.BytesIO()
    upright.transpose(PIL.Image.Transpose.ROTATE_90).save(file, "JPEG", exif=exif, quality=95)
    playground = visit()
    playground.upload("phone.jpg", "image/jpeg", file.getvalue())
    assert playground.page.locator("#about").inner_text().startswith("phone.jpg, 640 \u00d7 480")
    playground.choose(DETECT)
    with playground.page.expect_request("**/v1/detect") as sent:
        answer = playground.run()
    assert sent.value.method == "POST"
    assert answer["image_size"] == [640, 480]
    circle = next(box for box in playground.boxes() if box[0] < 100)
    assert circle == pytest.approx([50, 60, 230, 240], abs=15)


def test_results_can_be_saved(visit):
    playground = visit()
    playground.choose(DETECT)
    answer = playground.run()
    with playground.page.expect_download() as download:
        playground.page.click("#save-json")
    assert json.loads(download.value.path().read_text()) == answer
    with playground.page.expect_download() as download:
        playground.page.click("#save-png")
    saved = PIL.Image.open(download.value.path()).convert("RGB")
    scene = PIL.Image.open(EXAMPLE_SCENE).convert("RGB")
    assert saved.size == scene.size
    left, top, right, bottom = (round(side) for side in answer["result"]["items"][0]["box"])
    assert saved.getpixel((left, (top + bottom) // 2)) != scene.getpixel((left, (top + bottom) // 2))
    assert saved.getpixel((right + 40, bottom + 40)) == scene.getpixel((right + 40, bottom + 40))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barriers(visit, scheme):
    from axe_playwright_python.sync_playwright import Axe

    playground = visit(color_scheme=scheme)
    playground.choose(TaskRow("Cascades", "analyze-regions"))
    playground.page.locator("#task details").evaluate_all("(all) => all.forEach((each) => { each.open = true; })")
    playground.run()
    found = Axe().run(playground.page).response["violations"]
    assert [(each["id"], [node["target"] for node in each["nodes"]]) for each in found] == []
