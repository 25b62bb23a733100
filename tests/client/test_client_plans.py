"""Cascades and task lists of both clients: what they send, and what they make of the steps of a response."""

import numpy as np
import pytest
from florence2 import (
    AnalyzedRegion,
    Answer,
    GroundedCaption,
    RegionAnalysis,
    StepAnswer,
    TaskResults,
    v1,
)
from florence2.errors import InvalidArgumentError, ServerError, UnavailableError
from florence2.plans import PlanLimits, PlanRun
from florence2.results import Detections, Segmentation, Text
from google.protobuf import text_format

from tests.client.fake_server import IMAGE_SIZE, LENGTH, STOP, task_response

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"an encoded image"
BOX = "<loc_100><loc_200><loc_300><loc_400>"
DOGS = f"</s><s>dog{BOX}cat<loc_1><loc_2><loc_3><loc_4></s>"
CAPTION = v1.TaskRequest(caption={})
DETECTION = v1.TaskRequest(object_detection={})
FAILED = ("INTERNAL", "it broke")


def outcome_of(answer):
    """What a model might do: a generated text, a truncated one if it has no end token, or an error."""
    if isinstance(answer, tuple):
        status, message = answer
        return v1.TaskError(status=status, message=message)
    return v1.TaskResponse.FromString(task_response(answer, STOP if answer.endswith("</s>") else LENGTH))


@pytest.fixture
def answer_steps(server):
    """`answer_steps(*answers)`: the server runs a request's plan, whose steps have these answers in their order."""

    def answer_steps(*answers):
        def respond():
            run = PlanRun(server.last.content, PlanLimits(tasks=99))
            steps = run.start()
            while steps:
                step = steps.pop(0)
                steps += run.complete(step.number, outcome_of(answers[step.number]))
            if isinstance(run.result, v1.TaskError):
                raise AssertionError(run.result)
            return run.result.SerializeToString()

        server.compute(respond)

    return answer_steps


@pytest.mark.parametrize(
    ("action", "request_text"),
    [
        (lambda client: client.ground_caption(IMAGE), "caption_grounding { detail: CAPTION_DETAIL_BRIEF }"),
        (
            lambda client: client.ground_caption(IMAGE, "paragraph", num_beams=2),
            "caption_grounding { detail: CAPTION_DETAIL_PARAGRAPH } generation { num_beams: 2 }",
        ),
        (
            lambda client: client.analyze_regions(IMAGE),
            "region_analysis { region_task: REGION_TASK_DESCRIPTION object_detection {} }",
        ),
        (
            lambda client: client.analyze_regions(IMAGE, "text", detector="proposals", max_regions=7),
            "region_analysis { region_task: REGION_TASK_TEXT region_proposal {} max_regions: 7 }",
        ),
        (
            lambda client: client.analyze_regions(IMAGE, "category", detector="descriptions"),
            "region_analysis { region_task: REGION_TASK_CATEGORY dense_region_caption {} }",
        ),
        (
            lambda client: client.analyze_regions(IMAGE, "segmentation", caption="a dog"),
            'region_analysis { region_task: REGION_TASK_SEGMENTATION phrase_grounding { caption: "a dog" } }',
        ),
        (
            lambda client: client.analyze_regions(IMAGE, query=["a dog", "a cat"]),
            'region_analysis { open_vocabulary_detection { queries: "a dog" queries: "a cat" } region_task: 1 }',
        ),
    ],
)
def test_a_method_of_several_steps_sends_its_cascade(server, use, answer_steps, action, request_text):
    answer_steps(DOGS, "</s><s>it</s>", "</s><s>it</s>")
    use(action)
    expected = text_format.Parse(request_text, v1.TaskRequest(raw=True))
    assert server.last.content == expected


def test_a_grounded_caption_has_the_caption_and_its_phrases(use, answer_steps):
    answer_steps("</s><s>A dog.</s>", f"</s><s>A dog{BOX}</s>")
    result = use(lambda client: client.ground_caption(IMAGE))
    boxes = np.float32([[100.5, 100.25, 300.5, 200.25]])
    assert result == GroundedCaption(Text("A dog."), Detections(boxes, ["A dog"]))
    assert result.is_complete


def test_a_caption_whose_grounding_fails_is_not_lost(server, use, answer_steps):
    answer_steps("</s><s>A dog.</s>", FAILED)
    result = use(lambda client: client.ground_caption(IMAGE, request_id="mine"))
    assert (result.caption, result.detections) == (Text("A dog."), None)
    assert type(result.error) is ServerError
    assert (str(result.error), result.error.request_id, result.error.url) == ("INTERNAL: it broke", "mine", server.url)
    assert not result.is_complete


@pytest.mark.parametrize(
    ("answers", "caption", "grounding"),
    [
        (("</s><s>A do", f"</s><s>A do{BOX}</s>"), True, False),
        (("</s><s>A dog.</s>", f"</s><s>A dog{BOX}"), False, True),
    ],
)
def test_a_grounded_caption_shows_what_was_truncated_and_raises_nothing(use, answer_steps, answers, caption, grounding):
    answer_steps(*answers)
    result = use(lambda client: client.ground_caption(IMAGE))
    assert (result.is_caption_truncated, result.is_grounding_truncated) == (caption, grounding)
    assert len(result.detections) == 1
    assert not result.is_complete


def test_an_analysis_has_a_result_an_error_or_a_truncated_result_for_each_region(server, use, answer_steps):
    boxes = [BOX, "<loc_5><loc_5><loc_1><loc_9>", "<loc_1><loc_1><loc_9><loc_9>", "<loc_2><loc_2><loc_9><loc_9>"]
    found = "".join(f"{label}{box}" for label, box in zip("abcd", boxes, strict=True))
    # The inverted box is no step that the server runs.
    answer_steps(f"</s><s>{found}</s>", "</s><s>a dog</s>", FAILED, "</s><s>a cat that")
    analysis = use(lambda client: client.analyze_regions(IMAGE, request_id="mine"))
    assert analysis.detections.labels == ["a", "b", "c", "d"]
    assert [region.item for region in analysis.regions] == [0, 1, 2, 3]
    assert [region.label for region in analysis.regions] == ["a", "b", "c", "d"]
    assert np.array_equal([region.box for region in analysis.regions], analysis.detections.boxes)
    assert [region.result for region in analysis.regions] == [Text("a dog"), None, None, Text("a cat that")]
    assert [type(region.error) for region in analysis.regions] == [
        type(None),
        InvalidArgumentError,
        ServerError,
        type(None),
    ]
    assert analysis.regions[1].error.field == "region_to_description.region.x_max"
    assert {(region.error.request_id, region.error.url) for region in analysis.regions[1:3]} == {("mine", server.url)}
    assert [region.is_truncated for region in analysis.regions] == [False, False, False, True]
    assert not analysis.is_detection_truncated
    assert not analysis.is_complete


def test_an_analysis_may_outline_regions(use, answer_steps):
    answer_steps(f"</s><s>dog{BOX}</s>", f"</s><s>{BOX}{BOX}</s>")
    analysis = use(lambda client: client.analyze_regions(IMAGE, "segmentation"))
    (region,) = analysis.regions
    assert type(region.result) is Segmentation
    assert analysis.is_complete


def test_an_analysis_without_detections_is_complete(use, answer_steps):
    answer_steps("</s><s></s>")
    analysis = use(lambda client: client.analyze_regions(IMAGE))
    assert analysis == RegionAnalysis(Detections.empty())
    assert analysis.is_complete


def test_a_truncated_detection_is_visible(use, answer_steps):
    answer_steps(f"</s><s>dog{BOX}cat<loc_1>", "</s><s>a dog</s>")
    analysis = use(lambda client: client.analyze_regions(IMAGE))
    assert analysis.is_detection_truncated
    assert [region.result for region in analysis.regions] == [Text("a dog")]
    assert not analysis.is_complete


def test_regions_beyond_the_servers_limit_have_an_error_that_names_it(use, answer_steps):
    limit = "steps: got more than 2, expected at most 2 (max_steps)"
    answer_steps(DOGS, "</s><s>a dog</s>", ("RESOURCE_EXHAUSTED", limit))
    _, beyond = use(lambda client: client.analyze_regions(IMAGE)).regions
    assert type(beyond.error) is InvalidArgumentError
    assert (beyond.error.field, beyond.error.requirement) == ("steps", "at most 2 (max_steps)")


def test_analyzed_regions_are_equal_if_their_fields_are():
    box = np.float32([1, 2, 3, 4])
    region = AnalyzedRegion(0, box, "dog", Text("a dog"))
    assert region == AnalyzedRegion(0, box.copy(), "dog", Text("a dog"))
    assert region != AnalyzedRegion(0, box + 1, "dog", Text("a dog"))
    assert region != AnalyzedRegion(0, box, "dog", Text("a dog"), is_truncated=True)
    assert region != "dog"


def test_tasks_are_sent_as_one_request_and_their_options_stay_their_own(server, use, answer_steps):
    answer_steps("</s><s>A dog.</s>", DOGS)
    tasks = [v1.TaskRequest(caption={}, generation={"num_beams": 3}), DETECTION]
    before = [task.SerializeToString() for task in tasks]
    use(lambda client: client.run_tasks(IMAGE, tuple(tasks), max_new_tokens=9, priority=1))
    expected = v1.TaskRequest(task_list={"tasks": tasks}, generation={"max_new_tokens": 9}, raw=True)
    assert server.last.content == expected
    assert server.last.request.priority == 1
    assert [task.SerializeToString() for task in tasks] == before


def test_each_task_has_an_answer_or_an_error(server, use, answer_steps):
    answer_steps("</s><s>A dog.</s>", FAILED, f"</s><s>dog{BOX}")
    caption, failed, cut = use(lambda client: client.run_tasks(IMAGE, [CAPTION, CAPTION, DETECTION], request_id="mine"))
    assert caption == Answer(
        result=Text("A dog."),
        text="</s><s>A dog.</s>",
        image_size=IMAGE_SIZE,
        finish_reason="stop",
        usage=v1.Usage(prompt_tokens=9, generated_tokens=7),
        request_id="mine",
        url=server.url,
    )
    assert (type(failed), str(failed), failed.request_id) == (ServerError, "INTERNAL: it broke", "mine")
    assert cut.is_truncated
    assert cut.result.labels == ["dog"]


def test_a_task_may_be_a_cascade(use, answer_steps):
    # The first steps of both tasks start before the others.
    answer_steps("</s><s>A dog.</s>", "</s><s>A cat.</s>", f"</s><s>A dog{BOX}</s>")
    cascade = v1.TaskRequest(caption_grounding={})
    grounded, caption = use(lambda client: client.run_tasks(IMAGE, [cascade, CAPTION]))
    assert grounded.result.detections.labels == ["A dog"]
    assert [step.request.WhichOneof("task") for step in grounded.steps] == ["caption", "phrase_grounding"]
    assert caption.result == Text("A cat.")


def test_run_takes_cascades_and_task_lists_and_shows_their_steps(use, answer_steps):
    answer_steps("</s><s>A dog.</s>", FAILED)
    answer = use(lambda client: client.run(IMAGE, v1.TaskRequest(task_list={"tasks": [CAPTION, DETECTION]})))
    first, second = answer.steps
    assert first == StepAnswer(v1.TaskRequest(caption={}, raw=True), first.outcome)
    assert answer.result == TaskResults([Text("A dog."), second.outcome])
    assert (answer.text, answer.token_scores, answer.finish_reason, answer.is_truncated) == ("", None, "stop", False)
    assert answer.usage.generated_tokens == 7

    answer_steps(DOGS, "</s><s>it</s>", "</s><s>it")
    answer = use(lambda client: client.run(IMAGE, v1.TaskRequest(region_analysis={})))
    assert type(answer.result) is RegionAnalysis
    assert [step.item for step in answer.steps] == [None, 0, 1]
    assert answer.is_truncated


@pytest.mark.parametrize("method", ["ground_caption", "analyze_regions"])
def test_a_cascade_whose_first_step_fails_is_an_error(server, use, method):
    server.fail_first(1)
    with pytest.raises(UnavailableError):
        use(lambda client: getattr(client, method)(IMAGE), retry=None)


def response_of(*steps):
    """A response with steps, each a generated text or a complete message."""
    messages = [
        step if isinstance(step, v1.StepResponse) else v1.StepResponse(request=CAPTION, response=outcome_of(step))
        for step in steps
    ]
    return v1.TaskResponse(image_size={"width": 9, "height": 9}, finish_reason=STOP, steps=messages)


DETECTED = v1.StepResponse(request=DETECTION, response=outcome_of(DOGS))
BROKEN = v1.StepResponse(request=DETECTION, error={"status": "INTERNAL", "message": "it broke"})


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        ("ground_caption", []),
        ("ground_caption", ["</s><s>A dog.</s>"]),
        ("ground_caption", ["</s><s>A dog.</s>", "</s><s>no detections</s>"]),
        ("ground_caption", [BROKEN, DETECTED]),
        ("analyze_regions", []),
        ("analyze_regions", [BROKEN]),
        ("analyze_regions", ["</s><s>no detections</s>"]),
        ("analyze_regions", [DETECTED, "</s><s>no item</s>"]),
        ("analyze_regions", [DETECTED, v1.StepResponse(request=CAPTION, item=2, response=outcome_of("</s><s></s>"))]),
        ("analyze_regions", [DETECTED, v1.StepResponse(request=CAPTION, item=-1, response=outcome_of("</s><s></s>"))]),
        ("analyze_regions", [DETECTED, v1.StepResponse(request=CAPTION, item=0)]),
    ],
)
def test_steps_that_no_server_sends_are_a_server_error(server, use, method, steps):
    server.respond(response_of(*steps).SerializeToString())
    with pytest.raises(ServerError, match="the response") as caught:
        use(lambda client: getattr(client, method)(IMAGE))
    assert caught.value.url == server.url


def test_a_task_list_with_too_few_steps_is_a_server_error(server, use):
    server.respond(response_of("</s><s>A dog.</s>").SerializeToString())
    with pytest.raises(ServerError, match="the response's 1 steps are not those of task_list"):
        use(lambda client: client.run_tasks(IMAGE, [CAPTION, CAPTION]))


@pytest.mark.parametrize(
    ("action", "kind", "message"),
    [
        (lambda c: c.ground_caption(IMAGE, "long"), InvalidArgumentError, "detail: got 'long', expected \"brief\", "),
        (lambda c: c.ground_caption(IMAGE, 5), TypeError, "detail: got 5"),
        (lambda c: c.analyze_regions(IMAGE, "color"), InvalidArgumentError, "region_task: got 'color'"),
        (lambda c: c.analyze_regions(IMAGE, detector="all"), InvalidArgumentError, "detector: got 'all'"),
        (lambda c: c.analyze_regions(IMAGE, detector=""), InvalidArgumentError, "detector: got ''"),
        (lambda c: c.analyze_regions(IMAGE, detector=7), TypeError, "detector: got 7"),
        (
            lambda c: c.analyze_regions(IMAGE, detector="objects", query="a dog"),
            InvalidArgumentError,
            "query: got 'a dog', expected None, because detector is given",
        ),
        (
            lambda c: c.analyze_regions(IMAGE, caption="a dog", query="a dog"),
            InvalidArgumentError,
            "query: got 'a dog', expected None, because caption is given",
        ),
        (
            lambda c: c.analyze_regions(IMAGE, caption=" "),
            InvalidArgumentError,
            "region_analysis.phrase_grounding.caption: got ' '",
        ),
        (lambda c: c.analyze_regions(IMAGE, caption=7), TypeError, "caption: got 7"),
        (lambda c: c.analyze_regions(IMAGE, max_regions=0), InvalidArgumentError, "max_regions: got 0, expected 1 to"),
        (lambda c: c.analyze_regions(IMAGE, max_regions=2**31), InvalidArgumentError, "max_regions: got 2147483648"),
        (lambda c: c.analyze_regions(IMAGE, max_regions=1.5), TypeError, "max_regions: got 1.5"),
        (lambda c: c.run_tasks(IMAGE, []), InvalidArgumentError, "requests: got [], expected at least one request"),
        (lambda c: c.run_tasks(IMAGE, CAPTION), TypeError, "requests: got caption"),
        (lambda c: c.run_tasks(IMAGE, [CAPTION, "<OD>"]), TypeError, "requests[1]: got '<OD>'"),
        (
            lambda c: c.run_tasks(IMAGE, [CAPTION, v1.TaskRequest()]),
            InvalidArgumentError,
            "task_list.tasks[1].task: got ",
        ),
        (
            lambda c: c.run_tasks(IMAGE, [v1.TaskRequest(caption={}, priority=1)]),
            InvalidArgumentError,
            "task_list.tasks[0].priority: got 1",
        ),
        (lambda c: c.run_tasks(IMAGE, [CAPTION], num_beams=9), InvalidArgumentError, "generation.num_beams: got 9"),
    ],
)
def test_an_invalid_request_of_several_steps_is_rejected_before_anything_is_sent(server, use, action, kind, message):
    with pytest.raises(kind) as caught:
        use(action)
    assert str(caught.value).startswith(message)
    assert not server.received


def test_only_the_server_limits_the_number_of_tasks(use, answer_steps):
    answer_steps(*["</s><s>A dog.</s>"] * 40)
    assert len(use(lambda client: client.run_tasks(IMAGE, [CAPTION] * 40))) == 40
