"""The tools of the MCP server, called by the SDK's own client in this process."""

import asyncio
import base64
import io

import jsonschema
import numpy as np
import PIL.Image
import pytest
from florence2 import AsyncClient
from florence2.errors import Florence2Error, UnavailableError
from florence2.mcp import calls
from florence2.mcp.annotated import MOST_BYTES, MOST_SIDE
from florence2.mcp.calls import CallLimits
from florence2.mcp.roots import Roots
from florence2.mcp.server import make_server
from florence2.testing import MockTransport, task_response
from mcp import Client, MCPError

SIZE = (64, 48)
SECONDS = 30
BOX = [10, 10, 30, 30]
CALLS = [
    ("caption", {}),
    ("caption", {"detail": "paragraph"}),
    ("detect", {}),
    ("read", {}),
    ("read", {"with_regions": True}),
    ("ground", {"phrases": ["a dog"]}),
    ("ground", {"phrases": ["a dog", "a cat"]}),
    ("segment", {"expression": "a dog"}),
    ("segment", {"region": BOX}),
    ("describe_region", {"region": BOX}),
]
BOX_TOKENS = "<loc_100><loc_200><loc_300><loc_400>"
ANSWERS = {
    "ocr_with_region": "a sign" + "".join(f"<loc_{place}>" for place in (100, 100, 300, 100, 300, 200, 100, 200)),
    "referring_expression_segmentation": "<loc_100><loc_100><loc_300><loc_100><loc_300><loc_300>",
    "region_to_segmentation": "<loc_100><loc_100><loc_300><loc_100><loc_300><loc_300>",
    "object_detection": f"dog{BOX_TOKENS}",
    "phrase_grounding": f"dog{BOX_TOKENS}",
}


def respond(image, request):
    with PIL.Image.open(io.BytesIO(image)) as picture:
        return task_response(ANSWERS.get(request.WhichOneof("task"), "A dog."), picture.size)


def encoded(picture: PIL.Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


PICTURE = encoded(PIL.Image.new("RGB", SIZE, "white"))
PLAIN = {"image": PICTURE, "annotate": False}


def call(*calls, transport=None, handler=respond, mode="auto", **settings):
    """The results of calls `(tool, arguments)`, one after the other."""

    async def results():
        server = make_server(lambda: AsyncClient(transport=transport or MockTransport(handler)), **settings)
        async with asyncio.timeout(SECONDS), Client(server, mode=mode) as caller:
            return [await caller.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(results())


def listed(**settings):
    """The tools by name."""

    async def tools():
        async with Client(make_server(AsyncClient, **settings)) as caller:
            return {tool.name: tool for tool in (await caller.list_tools()).tools}

    return asyncio.run(tools())


def failure(*calls, **settings) -> str:
    (result,) = call(*calls, **settings)
    assert result.is_error
    assert result.structured_content is None
    return result.content[0].text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_each_tool_returns_its_text_and_data_that_fit_its_schema(mode):
    tools = listed()
    results = call(*((name, {"image": PICTURE, **given}) for name, given in CALLS), mode=mode)
    for (name, given), result in zip(CALLS, results, strict=True):
        assert not result.is_error, result
        assert result.content[0].text, name
        jsonschema.Draft202012Validator.check_schema(tools[name].output_schema)
        jsonschema.validate(result.structured_content, tools[name].output_schema)
        jsonschema.validate({"image": PICTURE, **given}, tools[name].input_schema)
    assert {name for name, _ in CALLS} == set(tools), "every tool is called"


def test_tools_are_described_as_reading_only_with_arguments_that_hosts_support():
    for tool in listed().values():
        assert tool.annotations.read_only_hint
        assert not tool.annotations.open_world_hint
        assert "pixels" in tool.description or not {"region", "annotate"} & set(tool.input_schema["properties"])
        assert tool.input_schema["additionalProperties"] is False
        assert not {"anyOf", "oneOf", "allOf"} & set(tool.input_schema)
        for argument in tool.input_schema["properties"].values():
            assert argument["description"]
            assert isinstance(argument["type"], str)


def test_the_description_of_path_names_the_folders(tmp_path):
    assert str(tmp_path) in listed(roots=Roots([tmp_path]))["detect"].input_schema["properties"]["path"]["description"]
    assert "--root" in listed()["detect"].input_schema["properties"]["path"]["description"]


def test_a_summary_has_a_line_for_each_item_with_quoted_labels():
    (result,) = call(("detect", {"image": PICTURE}))
    first, second = result.content[0].text.splitlines()
    assert first == "1 object in an image of 64 x 48 pixels:"
    assert second.startswith('"dog", box [6, 10, 19, 19]')


def test_a_label_in_a_summary_stays_in_its_line_and_quotes():
    label = 'dog" \n\u2028\u202e\x85é'
    (result,) = call(("detect", PLAIN), handler=lambda *_: task_response(label + BOX_TOKENS, SIZE))
    assert '"dog\\" \\n\\u2028\\u202e\\u0085é", box [6, 10, 19, 19]' in result.content[0].text.splitlines()[1]
    assert result.structured_content["items"][0]["label"] == label


def test_a_summary_of_many_items_is_short_and_says_how_many_are_missing():
    (result,) = call(("detect", PLAIN), handler=lambda *_: task_response(f"dog{BOX_TOKENS}" * 60, SIZE))
    lines = result.content[0].text.splitlines()
    assert len(lines) == 1 + 50 + 1
    assert lines[-1] == "... and 10 more in the structured content"
    assert len(result.structured_content["items"]) == 60


def test_the_annotated_image_of_a_large_photograph_is_small_and_drawn_where_the_object_is():
    noise = np.random.default_rng(0).integers(0, 256, (400, 1600, 3), np.uint8)
    (result,) = call(("detect", {"image": encoded(PIL.Image.fromarray(noise))}))
    text, image = result.content
    assert text.type == "text"
    data = base64.b64decode(image.data)
    assert len(data) <= MOST_BYTES
    with PIL.Image.open(io.BytesIO(data)) as drawn:
        assert f"image/{drawn.format.lower()}" == image.mime_type == "image/jpeg"
        assert max(drawn.size) <= MOST_SIDE


@pytest.mark.parametrize("scale", [1, 4])
def test_a_box_is_drawn_around_its_object_however_large_the_image_is(scale):
    size = (1000 * scale, 500 * scale)
    (result,) = call(("detect", {"image": encoded(PIL.Image.new("RGB", size, "white"))}))
    with PIL.Image.open(io.BytesIO(base64.b64decode(result.content[1].data))) as drawn:
        pixels = np.asarray(drawn.convert("L"))
    height, width = pixels.shape
    # The box is 0.1 to 0.3 of the width, and 0.2 to 0.4 of the height; its tag is above it.
    dark = np.argwhere(pixels[: height // 2 + height // 8] < 200) / (height, width)
    assert dark[:, 1].min() == pytest.approx(0.1, abs=0.01)
    assert dark[:, 1].max() == pytest.approx(0.3, abs=0.01)
    assert dark[:, 0].max() == pytest.approx(0.4, abs=0.02)


def test_without_annotate_there_is_no_image():
    (result,) = call(("detect", PLAIN))
    assert [each.type for each in result.content] == ["text"]


def test_an_image_that_cannot_be_drawn_on_still_has_its_answer(monkeypatch):
    def fail(image, result):  # noqa: ARG001
        raise SyntaxError("a decoder's")

    monkeypatch.setattr(calls, "annotated", fail)
    (result,) = call(("detect", {"image": PICTURE}))
    assert not result.is_error
    assert [each.text for each in result.content][1] == "The result could not be drawn on this image."


def test_an_image_is_read_by_path_or_sent_as_base64_or_as_a_data_uri(tmp_path):
    (tmp_path / "picture.png").write_bytes(base64.b64decode(PICTURE))
    images = [{"path": "picture.png"}, {"image": PICTURE}, {"image": f"data:image/png;base64,{PICTURE}"}]
    results = call(*(("caption", image) for image in images), roots=Roots([tmp_path]))
    assert [result.content[0].text for result in results] == ["A dog."] * 3


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("detect", {}, "path: got None, expected an image, in either `path` or `image`"),
        ("detect", {"image": PICTURE, "path": "x"}, "path: got 'x', expected no path, because `image` is given"),
        ("detect", {"path": "x.png"}, "without --root FOLDER"),
        ("detect", {"image": "https://example.com/x.png"}, "URLs are not fetched"),
        ("detect", {"image": "none"}, "an image file"),
        ("detect", {"imgae": PICTURE}, "arguments: got 'imgae', expected `image`, or another one of path, image"),
        ("detect", {"image": PICTURE, "max_items": 0}, "max_items: got 0, expected at least 1"),
        ("detect", {"image": PICTURE, "min_score": "high"}, "min_score: got 'high', expected number"),
        ("read", {"image": PICTURE, "min_score": 0.5}, "the result is a text, which has no items"),
        ("ground", {"image": PICTURE}, "phrases: got None, expected a value: it is required"),
        ("ground", {"image": PICTURE, "phrases": []}, "phrases: got [], expected at least one phrase"),
        ("segment", {"image": PICTURE}, "either `expression` or `region`"),
        ("segment", {"image": PICTURE, "expression": " "}, "expected an expression that is not empty"),
        ("describe_region", {"image": PICTURE, "region": [1, 2, 3]}, "got [1.0, 2.0, 3.0], expected four numbers"),
        (
            "describe_region",
            {"image": PICTURE, "region": [30, 10, 10, 30]},
            "x_max: got 10.0, expected more than x_min",
        ),
    ],
)
def test_wrong_arguments_are_errors_of_the_tool_that_say_what_is_accepted(tool, arguments, message):
    assert message in failure((tool, arguments))


def test_null_is_accepted_for_an_argument_that_may_be_left_out():
    (result,) = call(("detect", {"image": PICTURE, "path": None, "min_score": None}))
    assert not result.is_error


def test_an_unknown_tool_is_an_error_of_the_protocol_that_lists_the_tools():
    unknown = pytest.RaisesExc(MCPError, match="unknown tool 'look', expected one of caption, detect")
    with pytest.RaisesGroup(unknown, flatten_subgroups=True):
        call(("look", {}))


def test_limits_of_images_are_checked_before_anything_is_sent():
    def refuse(image, request):  # noqa: ARG001
        raise AssertionError("nothing is sent")

    limits = CallLimits(image_bytes=1000, image_pixels=100)
    assert "at most 100 pixels" in failure(("caption", {"image": PICTURE}), handler=refuse, limits=limits)
    assert "at most 1,000 bytes" in failure(("caption", {"image": "A" * 2000}), handler=refuse, limits=limits)


def test_a_file_that_is_no_image_is_refused_without_a_word_of_it(tmp_path):
    (tmp_path / "notes.txt").write_text("https://a-secret-address")
    (tmp_path / "keys.txt").write_text("a secret: 0123")
    for name in ("notes.txt", "keys.txt"):
        message = failure(("caption", {"path": name}), roots=Roots([tmp_path]))
        assert message.startswith(f"path: got '{name}', expected that of")
        assert "secret" not in message


def test_an_error_of_the_server_is_shown_and_an_unexpected_one_is_not():
    def unavailable(image, request):  # noqa: ARG001
        raise UnavailableError("the queue is full")

    def broken(image, request):  # noqa: ARG001
        raise KeyError("a secret of the process")

    assert failure(("caption", {"image": PICTURE}), handler=unavailable) == "the queue is full"
    shown = failure(("caption", {"image": PICTURE}), handler=broken)
    assert "the server's log has its cause" in shown
    assert "secret" not in shown
    assert "Traceback" not in shown


def test_a_client_that_cannot_be_made_is_the_error_of_each_call():
    def fail():
        raise Florence2Error("the checkpoint cannot be loaded")

    async def messages() -> list[str]:
        async with Client(make_server(fail)) as caller:
            results = [await caller.call_tool("caption", {"image": PICTURE}) for _ in range(2)]
        return [result.content[0].text for result in results if result.is_error]

    assert asyncio.run(messages()) == ["the checkpoint cannot be loaded"] * 2


def test_a_truncated_answer_says_so_in_its_text_and_in_its_data():
    def truncated(image, request):
        response = respond(image, request)
        response.finish_reason = (
            type(response)
            .DESCRIPTOR.fields_by_name["finish_reason"]
            .enum_type.values_by_name["FINISH_REASON_LENGTH"]
            .number
        )
        return response

    (result,) = call(("caption", {"image": PICTURE}), handler=truncated)
    assert result.structured_content["is_truncated"]
    assert "cut at its length limit" in result.content[0].text


class Waiting(MockTransport):
    """A transport whose requests wait until they are cancelled."""

    def __init__(self) -> None:
        super().__init__(respond)
        self.started, self.cancelled = asyncio.Event(), asyncio.Event()

    async def infer_async(self, image, request, context):  # noqa: ARG002
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_cancelling_a_call_cancels_its_request(mode):
    async def cancel() -> None:
        transport = Waiting()
        server = make_server(lambda: AsyncClient(transport=transport))
        async with asyncio.timeout(SECONDS), Client(server, mode=mode) as caller:
            work = asyncio.create_task(caller.call_tool("caption", {"image": PICTURE}))
            await transport.started.wait()
            work.cancel()
            await transport.cancelled.wait()

    asyncio.run(cancel())


def test_calls_beyond_the_limit_are_refused_at_once():
    async def refuse() -> None:
        transport = Waiting()
        server = make_server(lambda: AsyncClient(transport=transport), limits=CallLimits(concurrency=1))
        async with asyncio.timeout(SECONDS), Client(server) as caller:
            work = asyncio.create_task(caller.call_tool("caption", {"image": PICTURE}))
            await transport.started.wait()
            refused = await caller.call_tool("caption", {"image": PICTURE})
            work.cancel()
        assert refused.is_error
        assert "1 calls are in flight, which is the maximum" in refused.content[0].text

    asyncio.run(refuse())


def test_a_call_reports_its_progress():
    async def reported() -> list[tuple[float, str]]:
        seen = []

        async def report(progress, total, message) -> None:
            assert total == 3
            seen.append((progress, message))

        async with Client(make_server(lambda: AsyncClient(transport=MockTransport(respond)))) as caller:
            await caller.call_tool("detect", {"image": PICTURE}, progress_callback=report)
        return seen

    assert asyncio.run(reported()) == [
        (0, "reading the image"),
        (1, "waiting for the answer"),
        (2, "drawing the result"),
        (3, "done"),
    ]
