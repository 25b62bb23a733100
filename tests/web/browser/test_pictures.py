"""Pictures of all kinds reach the server as they are, and stay visible under what is found in them."""

import base64
import io

import PIL.Image
import pytest
from florence2.testing import task_response

from tests.conftest import EXAMPLE_SCENE
from tests.web.browser.playground import TaskRow

pytestmark = pytest.mark.web

DETECT = TaskRow("Find", "detect")
DROP = """([name, text]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
  const options = { dataTransfer, bubbles: true, cancelable: true };
  for (const type of ["dragenter", "dragover", "drop"])
    document.querySelector("#code").dispatchEvent(new DragEvent(type, options));
}"""
COPY = """async (text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
}"""


def encoded(width, height, form="PNG"):
    file = io.BytesIO()
    PIL.Image.linear_gradient("L").resize((width, height)).save(file, form)
    return file.getvalue()


@pytest.fixture
def received(serve_transport, visit):
    """A visit in front of a mock, and the images that the mock gets."""
    images = []

    def respond(image, request):  # noqa: ARG001
        images.append(image)
        return task_response("dog<loc_100><loc_200><loc_300><loc_400>")

    playground = visit(serve_transport(respond), permissions=["clipboard-read", "clipboard-write"])
    playground.choose(DETECT)
    return playground, images


def test_a_chosen_file_is_sent_byte_for_byte(received):
    playground, images = received
    files = {form: encoded(64, 48, form) for form in ("PNG", "JPEG", "WEBP", "TIFF")}
    for form, data in files.items():
        playground.upload(f"file.{form.lower()}", f"image/{form.lower()}", data)
        playground.run()
    assert images == list(files.values())


def test_a_dropped_file_is_sent_byte_for_byte(received):
    playground, images = received
    data = encoded(64, 48)
    playground.page.evaluate(DROP, ["dropped.png", base64.b64encode(data).decode()])
    playground.page.locator("#about", has_text="dropped.png, 64 \u00d7 48").wait_for()
    assert not playground.page.locator(".drop").is_visible()
    playground.run()
    assert images == [data]


def test_a_picture_of_the_clipboard_is_pasted(received):
    playground, images = received
    playground.page.evaluate(COPY, base64.b64encode(EXAMPLE_SCENE.read_bytes()).decode())
    playground.page.click("[data-name='park.png']")
    playground.page.locator("#about", has_text="park.png").wait_for()
    playground.page.keyboard.press("Control+V")
    playground.page.locator("#about", has_text="image.png, 640 \u00d7 480").wait_for()
    playground.run()
    [image] = images  # a browser encodes what is copied again
    assert PIL.Image.open(io.BytesIO(image)).convert("RGB") == PIL.Image.open(EXAMPLE_SCENE).convert("RGB")


def test_text_is_pasted_into_fields_as_usual(received):
    playground, _ = received
    playground.choose(TaskRow("Find", "ground"))
    playground.page.evaluate("navigator.clipboard.writeText('a dog\\na cat')")
    playground.page.locator("#inputs input").first.focus()
    playground.page.keyboard.press("Control+V")
    assert [each.input_value() for each in playground.page.locator("#inputs input").all()] == ["a dog", "a cat"]


@pytest.mark.parametrize("width", [360, 1280])
def test_tags_leave_a_crowded_picture_visible(visit, serve_transport, width):
    places = [(x, y) for x in range(0, 1000, 100) for y in range(0, 1000, 100)]
    text = "".join(f"traffic light<loc_{x}><loc_{y}><loc_{x + 60}><loc_{y + 60}>" for x, y in places)

    def respond(image, request):  # noqa: ARG001
        return task_response(text)

    playground = visit(serve_transport(respond), viewport={"width": width, "height": 740})
    playground.choose(DETECT)
    playground.run()
    assert len(playground.boxes()) == len(places)
    picture = playground.page.locator("#picture").bounding_box()
    tags = [tag.bounding_box() for tag in playground.page.locator("#marks .tag > rect").all()]
    assert tags
    assert sum(map(area, tags)) <= 0.35 * area(picture)  # the lines around the tags are not in their limit of 0.3
    index = playground.page.locator("#marks .mark:has(.crowded)").first.get_attribute("data-index")
    playground.page.mouse.move(0, 0)
    playground.page.locator(f"#items [data-index='{index}'] .pick").focus()
    playground.page.locator(f"#marks .on[data-index='{index}'] .crowded").wait_for()


def area(box):
    return box["width"] * box["height"]


def test_a_tiny_picture_is_large_enough_to_drag_a_region(received):
    playground, _ = received
    playground.upload("tiny.png", "image/png", encoded(20, 12))
    assert playground.page.locator("#picture").bounding_box()["width"] == pytest.approx(240, abs=1)
