"""The options that select items: what they select, and the requests to which they cannot apply."""

import asyncio
from dataclasses import replace

import pytest
from florence2 import Answer, GroundedCaption, StepAnswer, TaskResults, v1
from florence2.client.filters import Filters
from florence2.errors import InvalidArgumentError, UnavailableError
from florence2.results import Detections, Segmentation, Text
from florence2.testing import MockTransport, task_response

from tests.client.fake_server import settled
from tests.client.test_client import METHOD_CALLS

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"an encoded image"
BOX = "<loc_100><loc_200><loc_300><loc_400>"
ANSWER = f"dog{BOX}cat{BOX}dog{BOX}"
FOUND = Detections([[0, 0, 1, 1]] * 3, ["dog", "cat", "dog"], [0.1, 0.9, 0.8])
OUTLINES = Segmentation([[], []], ["", ""], [0.7, 0.2])
FAILURE = UnavailableError("full")


@pytest.fixture
def use(client_type):
    """`use(lambda client: ...)`: do something with a client of a server that finds a dog, a cat and a dog."""

    def use(action, text=ANSWER):
        async def act():
            client = client_type(transport=MockTransport(lambda *_: task_response(text)))
            try:
                return await settled(action(client))
            finally:
                await settled(client.close())

        return asyncio.run(act())

    return use


def answer(result, steps=()) -> Answer:
    return Answer(result, "", (10, 10), "stop", v1.Usage(), steps=list(steps))


def step(outcome, **task) -> StepAnswer:
    return StepAnswer(v1.TaskRequest(**task), outcome)


def test_methods_and_run_select_items_of_the_answer(use):
    assert use(lambda client: client.detect(IMAGE, labels=["dog"])).labels == ["dog", "dog"]
    assert use(lambda client: client.detect(IMAGE, max_items=2)).labels == ["dog", "cat"]
    request = v1.TaskRequest(object_detection={})
    ran = use(lambda client: client.run(IMAGE, request, labels={"dog"}, max_items=1))
    assert (ran.result.labels, ran.text) == (["dog"], ANSWER)


def test_the_conditions_are_not_sent(client_type):
    seen = []

    def respond(_, request):
        seen.append(request.SerializeToString())
        return task_response(ANSWER)

    async def act():
        client = client_type(transport=MockTransport(respond))
        await settled(client.detect(IMAGE, max_items=1, labels=["dog"]))
        await settled(client.detect(IMAGE))

    asyncio.run(act())
    assert seen[0] == seen[1]


def test_scores_select_items():
    assert Filters(min_score=0.5).apply(answer(FOUND)).result == FOUND[1:]
    assert Filters(min_score=0.5, max_items=1, labels=frozenset({"dog"})).apply(answer(FOUND)).result == FOUND[2:]


def test_an_unknown_score_is_an_error(use):
    with pytest.raises(InvalidArgumentError, match="scores: got None, expected known scores"):
        use(lambda client: client.detect(IMAGE, min_score=0.5))


def test_in_a_task_list_every_result_with_items_is_filtered():
    results = [FOUND, Text("a dog"), OUTLINES]
    tasks = [{"object_detection": {}}, {"caption": {}}, {"region_to_segmentation": {}}]
    steps = [step(answer(result), **task) for result, task in zip(results, tasks, strict=True)] + [step(FAILURE)]
    whole = answer(TaskResults([*results, FAILURE]), steps)
    filtered = Filters(max_items=1, labels=frozenset({"dog", "cat"})).apply(whole)
    expected = [FOUND[[1]], Text("a dog"), OUTLINES[:1], FAILURE]  # outlines have no labels
    assert filtered.result == TaskResults(expected)
    assert [each.outcome.result for each in filtered.steps[:3]] == expected[:3]
    assert filtered.steps[3].outcome is FAILURE


def test_blank_labels_are_none_of_those_that_are_accepted(use):
    assert len(use(lambda client: client.detect(IMAGE, labels=["dog"]), text=f" {BOX}")) == 0


def test_in_a_grounded_caption_the_detections_are_filtered():
    grounded = GroundedCaption(Text("a dog"), FOUND)
    whole = answer(grounded, [step(answer(Text("a dog"))), step(answer(FOUND))])
    filtered = Filters(min_score=0.85).apply(whole)
    assert filtered.result == GroundedCaption(Text("a dog"), FOUND[[1]])
    assert filtered.steps[1].outcome.result == FOUND[[1]]
    failed = replace(grounded, detections=None, error=FAILURE)
    assert Filters(min_score=0.85).apply(answer(failed)).result == failed


def test_without_conditions_an_answer_stays_itself():
    whole = answer(FOUND)
    assert Filters().apply(whole) is whole


TEXT_CALLS = [(name, arguments) for name, arguments, _, _, result in METHOD_CALLS if result is Text]
UNLABELED_CALLS = [call[:2] for call in METHOD_CALLS if call[0] in ("segment", "segment_region", "propose_regions")]


@pytest.mark.parametrize(("method", "arguments"), TEXT_CALLS)
@pytest.mark.parametrize("options", [{"min_score": 0.5}, {"max_items": 3}, {"labels": ["dog"]}], ids=str)
def test_tasks_that_answer_with_text_refuse_them(use, method, arguments, options):
    (name,) = options
    with pytest.raises(InvalidArgumentError, match=f"^{name}: got .*, expected None, because the result is a text"):
        use(lambda client: getattr(client, method)(IMAGE, *arguments, **options))


@pytest.mark.parametrize(("method", "arguments"), UNLABELED_CALLS)
def test_tasks_without_labels_refuse_labels_but_not_the_others(use, method, arguments):
    with pytest.raises(InvalidArgumentError, match=r"^labels: got .*, because the result has no labels"):
        use(lambda client: getattr(client, method)(IMAGE, *arguments, labels=["dog"]))
    assert len(use(lambda client: getattr(client, method)(IMAGE, *arguments, max_items=1), f"{BOX}{BOX}")) == 1


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"region_analysis": {"object_detection": {}}}, "because regions refer to their detections"),
        ({"task_list": {"tasks": [{"region_analysis": {}}, {"object_detection": {}}]}}, "because regions refer"),
        ({"task_list": {"tasks": [{"caption": {}}, {"ocr": {}}]}}, "because the result is a text"),
        ({"free_prompt": {"text": "<DocVQA>Who?"}}, "because the result is a text"),
        ({"prompt": "<CAPTION>"}, "because the result is a text"),
    ],
)
def test_requests_to_which_they_do_not_apply_refuse_them(request_, reason):
    with pytest.raises(InvalidArgumentError, match=f"^max_items: got 3, expected None, {reason}"):
        Filters(max_items=3).check(v1.TaskRequest(**request_))


def test_requests_to_which_they_apply_do_not_refuse_them():
    everything = Filters(0.5, 3, frozenset({"dog"}))
    tasks = [{"caption": {}}, {"object_detection": {}}, {"region_proposal": {}}, {"caption_grounding": {}}]
    for applicable in ({"task_list": {"tasks": tasks}}, {"caption_grounding": {}}, {"prompt": "<OD>"}):
        everything.check(v1.TaskRequest(**applicable))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"min_score": -0.1}, InvalidArgumentError, "min_score: got -0.1, expected 0 to 1"),
        ({"max_items": 0}, InvalidArgumentError, "max_items: got 0, expected at least 1"),
        ({"labels": "dog"}, TypeError, "labels: got 'dog' of type str, expected a collection of str"),
    ],
)
def test_impossible_conditions_are_refused_before_anything_is_sent(use, options, error, message):
    with pytest.raises(error, match=message):
        use(lambda client: client.detect(IMAGE, **options), text=None)


def test_a_stream_has_no_such_options(use):
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_items'"):
        use(lambda client: client.stream(IMAGE, v1.TaskRequest(object_detection={}), max_items=1))


def test_map_selects_items_and_refuses_what_does_not_apply(client_type):
    async def outcomes(client, *arguments, **options):
        found = client.map(*arguments, **options)
        return [each async for each in found] if hasattr(found, "__aiter__") else list(found)

    async def act():
        client = client_type(transport=MockTransport(lambda *_: task_response(ANSWER)))
        mapped = await outcomes(client, [IMAGE, IMAGE], "detect", labels=["cat"])
        assert [outcome.result.labels for outcome in mapped] == [["cat"], ["cat"]]
        with pytest.raises(InvalidArgumentError, match="max_items: got 1, expected None, because the result is a text"):
            await outcomes(client, [IMAGE], "caption", max_items=1)
        (outcome,) = await outcomes(client, [IMAGE], lambda _: v1.TaskRequest(caption={}), max_items=1)
        assert isinstance(outcome.error, InvalidArgumentError)
        await settled(client.close())

    asyncio.run(act())
