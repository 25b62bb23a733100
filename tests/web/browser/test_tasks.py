"""Every task runs, and what it finds is on the picture where it belongs."""

import base64
import json
import urllib.request

import pytest

from tests.conftest import EXAMPLE_SCENE
from tests.web.browser.playground import Playground, TaskRow

pytestmark = pytest.mark.web

SECONDS = 60
CIRCLE = (50, 60, 230, 240)
WORD = (60, 345, 292, 417)
TASKS = [
    TaskRow("Describe", "caption"),
    TaskRow("Find", "detect"),
    TaskRow("Find", "describe-regions"),
    TaskRow("Find", "propose-regions"),
    TaskRow("Find", "ground", "A red circle and a blue square."),
    TaskRow("Find", "detect-open-vocabulary", "blue square"),
    TaskRow("Segment", "segment", "green triangle"),
    TaskRow("Segment", "segment-region", region=CIRCLE),
    TaskRow("Describe", "classify-region", region=CIRCLE),
    TaskRow("Describe", "describe-region", region=CIRCLE),
    TaskRow("Read", "read-text"),
    TaskRow("Read", "read-text-regions"),
    TaskRow("Read", "read-region", region=WORD),
    TaskRow("Prompt", "generate", "<CAPTION>"),
    TaskRow("Cascades", "ground-caption"),
    TaskRow("Cascades", "analyze-regions"),
]


def parts(result):
    """The items and the texts of a result."""
    if result["type"] == "text":
        return [], [result["text"]]
    if result["type"] == "grounded_caption":
        return result["detections"]["items"], [result["caption"]["text"]]
    if result["type"] == "region_analysis":
        return result["detections"]["items"], [region["result"]["text"] for region in result["regions"]]
    return result["items"], []


@pytest.fixture(scope="module")
def shared(browser, door_url):
    """One visit for all tasks."""
    playground = Playground(browser, f"{door_url}/")
    playground.wait_until_loaded()
    playground.upload("scene.png", "image/png", EXAMPLE_SCENE.read_bytes())
    yield playground
    playground.close()
    assert playground.faults == []


def answer_of_api(url, row):
    """The answer of the API, requested without the page."""
    body = {"image": base64.b64encode(EXAMPLE_SCENE.read_bytes()).decode(), **row.inputs}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/{row.name}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        return json.load(response)


@pytest.mark.parametrize("row", TASKS, ids=lambda row: row.name)
def test_a_task_shows_what_the_api_answers_in_its_place(shared, door_url, row):
    shared.choose(row)
    result = shared.run()["result"]
    assert without_scores(result) == without_scores(answer_of_api(door_url, row)["result"])

    items, texts = parts(result)
    assert items or texts
    outlines = [outline for item in items for outline in outlines_of(item)]
    assert shared.boxes() == [pytest.approx(item["box"]) for item in items if not outlines_of(item)]
    assert shared.polygons() == [pytest.approx(outline) for outline in outlines]
    assert shared.list_items().count() == len(items)
    beside = shared.page.locator("#view-list").inner_text()
    assert all(text in beside for text in [*texts, *labels(items)])
    of_picture, of_marks = shared.scale()
    assert of_picture == pytest.approx(of_marks)


def without_scores(data):
    """The same data without scores, which may differ in the last digit from one batch to another."""
    if isinstance(data, dict):
        return {name: without_scores(value) for name, value in data.items() if not name.endswith("score")}
    return [without_scores(each) for each in data] if isinstance(data, list) else data


def outlines_of(item):
    """The polygons and the quad of an item, each as x1, y1, x2, y2, ..."""
    polygons = [[number for point in polygon for number in point] for polygon in item.get("polygons", [])]
    return [*polygons, *([item["quad"]] if "quad" in item else [])]


def labels(items):
    return [label for item in items if (label := item.get("label", item.get("text")))]


def test_the_analysis_of_regions_draws_the_outlines_that_it_finds(visit):
    playground = visit()
    playground.choose(TaskRow("Cascades", "analyze-regions"))
    playground.page.select_option("#field-region_task", "segmentation")
    result = playground.run()["result"]
    outlines = [
        outline for region in result["regions"] for item in region["result"]["items"] for outline in outlines_of(item)
    ]
    assert outlines
    assert playground.polygons() == [pytest.approx(outline) for outline in outlines]


def test_pointing_at_an_item_highlights_its_mark_and_the_other_way_round(visit):
    playground = visit()
    playground.choose(TaskRow("Find", "detect"))
    playground.run()
    playground.list_items().nth(1).hover()
    assert set(
        playground.page.locator("#marks .mark.on").evaluate_all("(all) => all.map((each) => each.dataset.index)")
    ) == {"1"}
    playground.page.locator("#marks rect.line").first.hover()
    index = playground.page.locator("#marks .mark.on").first.get_attribute("data-index")
    assert playground.page.locator("#items > .on").get_attribute("data-index") == index


def test_the_slider_hides_items_with_lower_scores(visit):
    playground = visit()
    playground.choose(TaskRow("Find", "detect"))
    scores = [item["score"] for item in playground.run()["result"]["items"]]
    playground.page.fill("#min-score", "0.97")
    expected = sum(score >= 0.97 for score in scores)
    assert playground.list_items().count() == len(playground.boxes()) == expected
    assert "min_score=0.97" in playground.page.locator("#code").inner_text()


def test_earlier_results_can_be_shown_again(visit):
    playground = visit()
    playground.choose(TaskRow("Find", "detect"))
    playground.run()
    playground.choose(TaskRow("Read", "read-text"))
    playground.run()
    assert playground.boxes() == []
    playground.page.locator("#history button").nth(1).click()
    assert len(playground.boxes()) == 3


@pytest.mark.parametrize(
    ("detail", "task"),
    [("brief", "caption"), ("detailed", "detailed_caption"), ("paragraph", "more_detailed_caption")],
)
def test_a_caption_of_each_detail_is_grounded(shared, detail, task):
    shared.choose(TaskRow("Cascades", "ground-caption"))
    shared.page.select_option("#field-detail", detail)
    answer = shared.run()
    assert [step["task"] for step in answer["steps"]] == [task, "phrase_grounding"]
    found = [item["box"] for item in answer["result"]["detections"]["items"]]
    # The model may write the corners of a box in the wrong order.
    assert shared.boxes() == [
        pytest.approx([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]) for x0, y0, x1, y1 in found
    ]
