"""The request that each method of both clients sends, and the result that it returns."""

import inspect
from collections.abc import AsyncGenerator, Generator
from typing import get_origin

import numpy as np
import pytest
from florence2 import v1
from florence2.client import Answer, AsyncClient, AsyncEventStream, Client, EventStream, TruncatedAnswerError
from florence2.errors import Florence2Error, InvalidArgumentError
from florence2.parsing import decode
from florence2.results import Detections, Segmentation, Text, TextRegions
from florence2.scores import TokenScores
from google.protobuf import text_format

from tests.client.fake_server import IMAGE_SIZE, LENGTH, task_response

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"\xff\xd8 an encoded image, with zeros at its end \0\0"
BOX = "<loc_100><loc_200><loc_300><loc_400>"
REGION = "{ x_min: 10 y_min: 20 x_max: 30.5 y_max: 40 }"
REGION_ARGUMENTS = ([10, 20, 30.5, 40],)

# Method and arguments after the image; the request, in protobuf's text format; an answer; the result's type.
METHOD_CALLS = [
    ("caption", (), "caption {}", "A dog.", Text),
    ("caption", ("brief",), "caption {}", "A dog.", Text),
    ("caption", ("detailed",), "detailed_caption {}", "A dog. It barks.", Text),
    ("caption", ("paragraph",), "more_detailed_caption {}", "A dog. It barks. Loudly.", Text),
    ("detect", (), "object_detection {}", f"dog{BOX}{BOX}", Detections),
    ("describe_regions", (), "dense_region_caption {}", f"a brown dog{BOX}", Detections),
    ("propose_regions", (), "region_proposal {}", BOX, Detections),
    ("ground", ("a dog",), 'phrase_grounding { caption: "a dog" }', f"a dog{BOX}", Detections),
    (
        "detect_open_vocabulary",
        ("a dog",),
        'open_vocabulary_detection { query: "a dog" }',
        f"a dog<poly>{BOX}<loc_1><loc_2></poly>",
        Detections,
    ),
    (
        "segment",
        ("it",),
        'referring_expression_segmentation { expression: "it" }',
        f"{BOX}{BOX}",
        Segmentation,
    ),
    (
        "segment_region",
        REGION_ARGUMENTS,
        f"region_to_segmentation {{ region {REGION} }}",
        f"{BOX}{BOX}",
        Segmentation,
    ),
    ("classify_region", REGION_ARGUMENTS, f"region_to_category {{ region {REGION} }}", f"dog{BOX}", Text),
    (
        "describe_region",
        REGION_ARGUMENTS,
        f"region_to_description {{ region {REGION} }}",
        f"a dog{BOX}",
        Text,
    ),
    ("read_region", REGION_ARGUMENTS, f"region_to_ocr {{ region {REGION} }}", f"DOG{BOX}", Text),
    ("read_text", (), "ocr {}", "BEWARE OF", Text),
    ("read_text_regions", (), "ocr_with_region {}", f"BEWARE{BOX}{BOX}", TextRegions),
    ("generate", ("<DocVQA>Who?",), 'free_prompt { text: "<DocVQA>Who?" }', "The dog.", Text),
]
METHODS = sorted({call[0] for call in METHOD_CALLS})
# In test_client_plans.py.
PLAN_METHODS = ["analyze_regions", "ground_caption", "run_tasks"]


def the_call(method: str) -> tuple[tuple, str]:
    """Arguments and answer of the first call of a method in the table."""
    return next((arguments, answer) for name, arguments, _, answer, _ in METHOD_CALLS if name == method)


@pytest.mark.parametrize(("method", "arguments", "request_text", "answer", "result_type"), METHOD_CALLS)
def test_a_task_method_sends_its_task_and_returns_the_decoded_answer(
    server, use, method, arguments, request_text, answer, result_type
):
    server.answer(f"</s><s>{answer}</s>")
    result = use(lambda client: getattr(client, method)(IMAGE, *arguments))

    expected = text_format.Parse(request_text, v1.TaskRequest(raw=True))
    assert server.last.content == expected
    assert type(result) is result_type
    task = getattr(expected, expected.WhichOneof("task"))
    assert result == decode(task, f"</s><s>{answer}</s>", IMAGE_SIZE)
    assert str(result) or len(result)


@pytest.mark.parametrize(("method", "arguments", "request_text", "answer", "result_type"), METHOD_CALLS)
def test_results_have_scores_if_the_response_has_token_log_probabilities(
    server, use, method, arguments, request_text, answer, result_type
):
    text = f"</s><s>{answer}</s>"
    token_scores = TokenScores([-0.5, -0.25, -0.125], [7, 10, len(text)])
    server.respond(task_response(text, token_scores=token_scores))
    request = text_format.Parse(request_text, v1.TaskRequest())
    task = getattr(request, request.WhichOneof("task"))
    result = use(lambda client: getattr(client, method)(IMAGE, *arguments))
    assert result == decode(task, text, IMAGE_SIZE, token_scores)
    score = result.likelihood if result_type is Text else result.likelihoods[0]
    assert 0 < score < 1
    assert use(lambda client: client.run(IMAGE, request)).token_scores == token_scores


def test_coordinates_are_scaled_by_the_image_size_in_the_response(server, use):
    server.answer(f"</s><s>dog{BOX}</s>")
    found = use(lambda client: client.detect(IMAGE))
    np.testing.assert_allclose(found.boxes, [[100.5, 100.25, 300.5, 200.25]])


def test_the_tensors_have_one_batch_element_and_the_image_arrives_unchanged(server, use):
    use(lambda client: client.detect(IMAGE))
    assert server.last.message.model_name == "florence2"
    described = {name: tensor[:2] for name, tensor in server.last.tensors.items()}
    assert described == {"IMAGE": ("BYTES", [1, 1]), "REQUEST": ("BYTES", [1, 1])}
    assert server.last.element("IMAGE") == IMAGE


def test_the_model_may_have_another_name(server, use):
    use(lambda client: client.detect(IMAGE), model="florence2-large")
    assert server.last.message.model_name == "florence2-large"


@pytest.mark.parametrize(
    "region",
    [(1, 2, 3, 4), [1.0, 2.0, 3.0, 4.0], np.array([1, 2, 3, 4]), np.float32([1, 2, 3, 4]), range(1, 5)],
    ids=lambda region: type(region).__name__,
)
def test_a_region_is_any_sequence_of_four_numbers(server, use, region):
    use(lambda client: client.read_region(IMAGE, region))
    assert server.last.request.region_to_ocr.region == v1.BoundingBox(x_min=1, y_min=2, x_max=3, y_max=4)


@pytest.mark.parametrize("region", [(1, 2, 3), (1, 2, 3, 4, 5), [[1, 2, 3, 4]], (0, 0, 1, 10**400), ()])
def test_a_region_that_is_not_four_numbers_is_rejected_before_anything_is_sent(server, use, region):
    with pytest.raises(InvalidArgumentError, match=r"^region_to_category\.region: got .*, expected four numbers"):
        use(lambda client: client.classify_region(IMAGE, region))
    assert not server.received


REGION_METHODS = {
    "region_to_segmentation": lambda client, region: client.segment_region(IMAGE, region),
    "region_to_category": lambda client, region: client.classify_region(IMAGE, region),
    "region_to_description": lambda client, region: client.describe_region(IMAGE, region),
    "region_to_ocr": lambda client, region: client.read_region(IMAGE, region),
}


@pytest.mark.parametrize("task", REGION_METHODS)
@pytest.mark.parametrize(
    ("region", "side"),
    [
        ((30, 0, 10, 5), "x_max"),
        ((0, 5, 10, 5), "y_max"),
        ((-1.1, 0, 10, 5), "x_min"),
        ((-0.5, 0, -0.25, 5), "x_max"),
        ((0, 0, float("inf"), 5), "x_max"),
        ((0, 0, 1e300, 5), "x_max"),
    ],
)
def test_a_region_that_fits_no_image_is_rejected_by_its_full_path(server, use, task, region, side):
    with pytest.raises(InvalidArgumentError, match=rf"^{task}\.region\.{side}: got "):
        use(lambda client: REGION_METHODS[task](client, region))
    assert not server.received


def test_boxes_that_are_usable_can_be_sent_back(server, use):
    server.answer("</s><s>a<loc_5><loc_5><loc_5><loc_9>b<loc_9><loc_0><loc_3><loc_9>c<loc_0><loc_0><loc_1><loc_1></s>")
    found = use(lambda client: client.detect(IMAGE))
    assert found.usable.tolist() == [False, False, True]
    for box in found[found.usable].boxes:
        use(lambda client, box=box: client.read_region(IMAGE, box))
    sent = server.last.request.region_to_ocr.region
    assert (sent.x_min, sent.y_min, sent.x_max, sent.y_max) == tuple(found.boxes[2])
    with pytest.raises(InvalidArgumentError, match=r"^region_to_ocr\.region\.x_max"):
        use(lambda client: client.read_region(IMAGE, found.boxes[0]))


def test_phrases_are_a_text_or_a_sequence(server, use):
    use(lambda client: client.ground(IMAGE, "a car<and>a dog"))
    assert server.last.request.phrase_grounding == v1.PhraseGrounding(caption="a car<and>a dog")
    for phrases in (["a car", "größe"], ("a car", "größe")):
        use(lambda client, phrases=phrases: client.ground(IMAGE, phrases))
        assert server.last.request.phrase_grounding == v1.PhraseGrounding(phrases=["a car", "größe"])
    use(lambda client: client.detect_open_vocabulary(IMAGE, ["a car"]))
    assert server.last.request.open_vocabulary_detection == v1.OpenVocabularyDetection(queries=["a car"])


@pytest.mark.parametrize("phrases", ["a car<and>a dog", ["a car", "a dog"]])
def test_each_phrase_is_the_label_of_its_boxes(server, use, phrases):
    boxes = ["<loc_0><loc_0><loc_10><loc_10>", "<loc_1><loc_1><loc_9><loc_9>", "<loc_5><loc_5><loc_8><loc_8>"]
    server.answer(f"</s><s>a car{boxes[0]}{boxes[1]}a dog{boxes[2]}</s>")
    found = use(lambda client: client.ground(IMAGE, phrases))
    assert found.labels == ["a car", "a car", "a dog"]


@pytest.mark.parametrize(
    ("action", "field"),
    [
        (lambda client: client.ground(IMAGE, " "), "phrase_grounding.caption"),
        (lambda client: client.generate(IMAGE, ""), "free_prompt.text"),
        (lambda client: client.caption(IMAGE, "long"), "detail"),
        (lambda client: client.segment_region(IMAGE, (30, 0, 10, 5)), "region_to_segmentation.region"),
        (lambda client: client.run(IMAGE, v1.TaskRequest()), "task"),
        (lambda client: client.generate(IMAGE, "<OD>"), r"free_prompt\.text: got '<OD>'"),
        (lambda client: client.ground(IMAGE, []), r"phrase_grounding\.phrases: got \[\]"),
        (lambda client: client.ground(IMAGE, ["a", " "]), r"phrase_grounding\.phrases\[1\]: got ' '"),
        (
            lambda client: client.detect_open_vocabulary(IMAGE, ["", "a"]),
            r"open_vocabulary_detection\.queries\[0\]: got ''",
        ),
    ],
)
def test_a_request_that_is_invalid_for_any_image_is_rejected_before_anything_is_sent(server, use, action, field):
    with pytest.raises(InvalidArgumentError, match=f"^{field}"):
        use(action)
    assert not server.received


def test_generate_takes_official_prompts_that_are_answered_with_text(server, use):
    server.answer("</s><s>A dog.</s>")
    assert use(lambda client: client.generate(IMAGE, "<CAPTION>")) == Text("A dog.")


def test_run_returns_everything_that_the_server_reports(server, use):
    text = f"</s><s>dog{BOX}</s>"
    server.answer(text)
    request = v1.TaskRequest(object_detection=v1.ObjectDetection())
    answer = use(lambda client: client.run(IMAGE, request, request_id="mine"))
    assert answer == Answer(
        result=decode("<OD>", text, IMAGE_SIZE),
        text=text,
        image_size=IMAGE_SIZE,
        finish_reason="stop",
        usage=v1.Usage(prompt_tokens=9, generated_tokens=7),
        request_id="mine",
        url=server.url,
    )
    assert not answer.is_truncated


def test_run_sends_the_request_unchanged_and_does_not_modify_it(server, use):
    request = v1.TaskRequest(
        phrase_grounding=v1.PhraseGrounding(caption="a dog"), generation=v1.GenerationOptions(num_beams=3)
    )
    before = request.SerializeToString()
    use(lambda client: client.run(IMAGE, request))
    assert request.SerializeToString() == before
    request.raw = True
    assert server.last.content == request


@pytest.mark.parametrize(
    ("request_text", "result_type"),
    [
        ('prompt: "<OD>"', Detections),
        ('prompt: "<Fine>tuned"', Text),
        ('free_prompt { text: "<OD>" }', Detections),
    ],
)
def test_run_decodes_the_answer_to_a_prompt_by_the_task_token_that_it_begins_with(
    server, use, request_text, result_type
):
    server.answer(f"</s><s>dog{BOX}</s>")
    request = text_format.Parse(request_text, v1.TaskRequest())
    assert type(use(lambda client: client.run(IMAGE, request)).result) is result_type


def test_run_returns_a_truncated_answer(server, use):
    server.answer(f"</s><s>dog{BOX}cat<loc_1>", LENGTH)
    answer = use(lambda client: client.run(IMAGE, v1.TaskRequest(object_detection=v1.ObjectDetection())))
    assert answer.finish_reason == "length"
    assert answer.is_truncated
    assert answer.result.labels == ["dog"]


@pytest.mark.parametrize("method", METHODS)
def test_no_task_method_returns_a_truncated_answer(server, use, method):
    arguments, answer = the_call(method)
    server.answer(f"</s><s>{answer}", LENGTH)
    with pytest.raises(TruncatedAnswerError, match="cut after 7 tokens") as caught:
        use(lambda client: getattr(client, method)(IMAGE, *arguments))
    assert isinstance(caught.value, Florence2Error)
    assert caught.value.answer.text == f"</s><s>{answer}"


def test_both_clients_have_the_same_methods_with_the_same_signatures():
    def signatures(client_type: type) -> dict[str, inspect.Signature]:
        public = inspect.getmembers(client_type, inspect.isfunction)
        found = {name: inspect.signature(member) for name, member in public if not name.startswith("_")}
        # The only methods that return an iterator, which is asynchronous, too.
        assert found["stream"].return_annotation in (EventStream, AsyncEventStream)
        assert get_origin(found["map"].return_annotation) in (Generator, AsyncGenerator)
        images = found["map"].parameters["images"].replace(annotation=None)
        others = [each for name, each in found["map"].parameters.items() if name not in ("self", "images")]
        found["map"] = found["map"].replace(parameters=[images, *others], return_annotation=None)
        found["stream"] = found["stream"].replace(return_annotation=None)
        return found

    assert signatures(Client) == signatures(AsyncClient)
    assert inspect.signature(Client) == inspect.signature(AsyncClient)
    assert {*METHODS, *PLAN_METHODS, "run", "stream", "map", "is_ready", "health", "server_info", "close"} == set(
        signatures(Client)
    )


def test_every_method_of_the_async_client_is_a_coroutine_function():
    assert all(
        inspect.iscoroutinefunction(getattr(AsyncClient, method))
        for method in [*METHODS, *PLAN_METHODS, "run", "is_ready", "health", "server_info", "close"]
    )
