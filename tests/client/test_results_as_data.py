"""Results as dictionaries and JSON, in the form that docs/results.md describes."""

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from florence2 import AnalyzedRegion, Answer, GroundedCaption, RegionAnalysis, StepAnswer, TaskResults, v1
from florence2.errors import InvalidArgumentError, ServerError, UnavailableError
from florence2.parsing import decode
from florence2.results import Detections, Segmentation, Text, TextRegions
from florence2.scores import TokenScores
from florence2.tasks import TASKS
from hypothesis import given
from hypothesis import strategies as st

SCHEMA = json.loads((files("florence2") / "results.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

SIZE = (40, 30)
SQUARE = [[1, 2], [3.5, 2], [3.5, 4]]
SCORES = {"scores": [0.9, 0.1], "label_scores": [1, 0.5], "location_scores": [0.8, 0.2]}
FAILURE = UnavailableError("full")
FAILED = {"error": {"type": "UnavailableError", "message": "full"}}
TEXT = {"type": "text", "text": "A dog.", "score": 0.25, "image_size": [40, 30]}


def detections(**more) -> Detections:
    fields = {**SCORES, "polygons": [[SQUARE], []], "image_size": SIZE, **more}
    return Detections([[1, 2, 3, 4], [0.1, 0, 5, 5]], ["dog", "Hündin"], **fields)


def strictly(text: str):
    """Parse JSON without the constants that Python accepts and JSON does not have."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def data_of(result):
    """The result's data, after checking that it has the documented form and survives JSON."""
    data = result.to_dict()
    VALIDATOR.validate(data)
    assert strictly(result.to_json()) == data
    return data


def test_detections():
    assert data_of(detections()) == {
        "type": "detections",
        "image_size": [40, 30],
        "items": [
            {
                "label": "dog",
                "box": [1, 2, 3, 4],
                "score": 0.9,
                "label_score": 1,
                "location_score": 0.8,
                "polygons": [SQUARE],
            },
            {"label": "Hündin", "box": [0.1, 0, 5, 5], "score": 0.1, "label_score": 0.5, "location_score": 0.2},
        ],
    }


def test_what_is_unknown_is_left_out():
    bare = Detections([[1, 2, 3, 4]], [""])
    expected = {"type": "detections", "image_size": None, "items": [{"label": "", "box": [1, 2, 3, 4]}]}
    assert data_of(bare) == expected
    assert data_of(Text("")) == {"type": "text", "text": "", "image_size": None}


def test_a_segmentation():
    result = Segmentation([[SQUARE, SQUARE], []], ["", ""], [0.9, 0], image_size=SIZE)
    items = [{"label": "", "polygons": [SQUARE, SQUARE], "score": 0.9}, {"label": "", "polygons": [], "score": 0}]
    assert data_of(result) == {"type": "segmentation", "image_size": [40, 30], "items": items}


def test_text_regions():
    result = TextRegions([range(8)], ["CAFÉ"], [0.9], [1], [0.8], image_size=SIZE)
    item = {"text": "CAFÉ", "quad": list(range(8)), "score": 0.9, "label_score": 1, "location_score": 0.8}
    assert data_of(result) == {"type": "text_regions", "image_size": [40, 30], "items": [item]}
    assert "CAFÉ" in result.to_json()


def test_a_text():
    assert data_of(Text("A dog.", 0.25, image_size=SIZE)) == TEXT


@pytest.mark.parametrize("empty", [Detections.empty(), Segmentation.empty(), TextRegions.empty()])
def test_an_empty_result_has_no_items(empty):
    assert data_of(empty)["items"] == []


def test_a_grounded_caption_has_the_error_in_the_place_of_its_detections():
    caption = Text("A dog.", 0.25, image_size=SIZE)
    complete = data_of(GroundedCaption(caption, detections()))
    assert (complete["type"], complete["caption"]) == ("grounded_caption", TEXT)
    assert complete["detections"] == detections().to_dict()
    failed = data_of(GroundedCaption(caption, None, FAILURE, is_caption_truncated=True))
    assert (failed["detections"], failed["is_caption_truncated"]) == (FAILED, True)


def test_a_region_analysis_has_a_result_or_an_error_for_each_region():
    found = detections()
    regions = [
        AnalyzedRegion(0, found.boxes[0], "dog", Text("A dog.", 0.25, image_size=SIZE), is_truncated=True),
        AnalyzedRegion(1, found.boxes[1], "Hündin", None, FAILURE),
    ]
    data = data_of(RegionAnalysis(found, regions))
    assert (data["detections"], data["is_detection_truncated"]) == (found.to_dict(), False)
    first = {"item": 0, "box": [1, 2, 3, 4], "label": "dog", "result": TEXT, "is_truncated": True}
    second = {"item": 1, "box": [0.1, 0, 5, 5], "label": "Hündin", "result": FAILED, "is_truncated": False}
    assert data["regions"] == [first, second]


def test_task_results_have_results_and_errors_in_order():
    results = TaskResults([FAILURE, Text("A dog.", 0.25, image_size=SIZE), TaskResults([detections()])])
    nested = {"type": "task_results", "outcomes": [detections().to_dict()]}
    assert data_of(results) == {"type": "task_results", "outcomes": [FAILED, TEXT, nested]}


def answer(result, text="</s><s>A dog.</s>", **more) -> Answer:
    usage = v1.Usage(prompt_tokens=7, generated_tokens=5, queue_milliseconds=0.1, image_embedding_cached=True)
    return Answer(result, text, SIZE, "stop", usage, TokenScores([-1], [17]), "mine", "there:8001", **more)


def test_an_answer_has_what_the_server_reports():
    usage = {
        "prompt_tokens": 7,
        "generated_tokens": 5,
        "queue_milliseconds": 0.1,
        "encode_milliseconds": 0,
        "decode_milliseconds": 0,
        "image_embedding_cached": True,
    }
    assert data_of(answer(Text("A dog.", 0.25, image_size=SIZE))) == {
        "result": TEXT,
        "text": "</s><s>A dog.</s>",
        "image_size": [40, 30],
        "finish_reason": "stop",
        "usage": usage,
        "request_id": "mine",
        "url": "there:8001",
    }


def test_the_steps_of_an_answer_say_how_each_ended_and_do_not_repeat_results():
    caption = answer(Text("A dog.", image_size=SIZE))
    done = StepAnswer(v1.TaskRequest(caption={}), caption)
    failed = StepAnswer(v1.TaskRequest(prompt="<OD>"), FAILURE, item=0)
    first, second = data_of(answer(TaskResults([caption.result, FAILURE]), "", steps=[done, failed]))["steps"]
    assert (first["task"], first["text"], first["finish_reason"]) == ("caption", "</s><s>A dog.</s>", "stop")
    assert not {"result", "item"} & set(first)
    assert second == {"task": "object_detection", "item": 0, **FAILED}


def test_numbers_have_the_digits_of_float32():
    result = Detections([[0.1, 1 / 3, 1e-7, 123456.7]], ["a"], [0.3])
    (item,) = data_of(result)["items"]
    assert item["box"] == [0.1, 0.33333334, 1e-7, 123456.7]
    assert item["score"] == 0.3
    assert np.array_equal(np.float32(item["box"]), result.boxes[0])
    types = {type(value) for value in (*item["box"], item["score"])}
    assert types == {float}


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_number_that_json_does_not_have_becomes_null_or_is_left_out(odd):
    (item,) = data_of(Detections([[0, odd, 2, 3]], ["a"], [odd]))["items"]
    assert item == {"label": "a", "box": [0, None, 2, 3]}
    assert "score" not in data_of(Text("a", odd))


def test_text_that_utf_8_cannot_express_is_escaped():
    result = Text("é \ud800", image_size=SIZE)
    result.to_json().encode()
    assert strictly(result.to_json())["text"] == "é \ud800"


def test_json_may_be_indented():
    assert Text("a").to_json(indent=2).splitlines()[1] == '  "type": "text",'
    assert len(Text("a").to_json().splitlines()) == 1


pieces = st.sampled_from(
    ["<loc_1>", "<loc_2>", "<loc_999>", "<poly>", "</poly>", "<sep>", "<and>", "dog", "\ud800", "<"]
)


@given(st.lists(pieces, max_size=40).map("".join))
def test_any_answer_becomes_data(text):
    for task in TASKS:
        data_of(decode(task, text, SIZE))


@pytest.mark.parametrize("error", [InvalidArgumentError.of_field("a", 1, "2"), ServerError("it broke")])
def test_the_type_of_an_error_is_its_class(error):
    (outcome,) = data_of(TaskResults([error]))["outcomes"]
    assert outcome == {"error": {"type": type(error).__name__, "message": str(error)}}


@pytest.mark.parametrize("wrong", ["a text", {"type": "text"}, {"type": "detections", "items": []}, {"error": "full"}])
def test_the_schema_refuses_other_data(wrong):
    assert not VALIDATOR.is_valid(wrong)
