"""`florence2.plans`: the steps of cascades and task lists, and the responses that they compose."""

import threading

import pytest
from florence2 import v1
from florence2.plans import DEFAULT_LIMITS, PlanLimits, PlanRun
from florence2.testing import task_response

TWO_CARS = "car<loc_100><loc_200><loc_300><loc_400><loc_500><loc_200><loc_700><loc_400>"
FAILED = v1.TaskError(status="INTERNAL", message="out of luck")


def run(request, answer, limits=DEFAULT_LIMITS):
    """The result of a request whose steps are answered one by one, and the steps."""
    plan, seen = PlanRun(request, limits), []
    steps = plan.start()
    while steps:
        step = steps.pop(0)
        seen.append(step)
        steps += plan.complete(step.number, answer(step.request))
    return plan.result, seen


def answers(**by_task):
    """Answers a step by the name of its task, with a text or an error."""

    def answer(request):
        found = by_task[request.WhichOneof("task")]
        return found if isinstance(found, v1.TaskError) else task_response(found)

    return answer


def task_list(*tasks, **fields):
    return v1.TaskRequest(task_list=v1.TaskList(tasks=tasks), **fields)


def status_and_message(result):
    assert isinstance(result, v1.TaskError)
    return result.status, result.message


@pytest.mark.parametrize("raw", [False, True])
def test_a_task_is_one_step_and_its_response_is_the_answer(raw):
    request = v1.TaskRequest(caption={}, raw=raw, priority=1, timeout_seconds=5)
    result, steps = run(request, answers(caption="A car."))
    assert [step.request for step in steps] == [request]
    assert result.text == "A car."
    assert result.WhichOneof("result") == (None if raw else "text_result")


def test_a_task_that_fails_has_its_error():
    assert run(v1.TaskRequest(caption={}), answers(caption=FAILED))[0] == FAILED


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("detail", "task"), [(0, "caption"), (1, "caption"), (2, "detailed_caption"), (3, "more_detailed_caption")]
)
def test_a_caption_is_grounded_in_a_second_step(detail, task, raw):
    request = v1.TaskRequest(caption_grounding={"detail": detail}, generation={"num_beams": 2}, raw=raw)
    result, steps = run(request, answers(**{task: "</s><s>Two cars.</s>", "phrase_grounding": TWO_CARS}))
    assert [step.request.WhichOneof("task") for step in steps] == [task, "phrase_grounding"]
    assert steps[1].request.phrase_grounding.caption == "Two cars."
    assert {(step.request.raw, step.request.generation.num_beams, step.item) for step in steps} == {(raw, 2, None)}
    assert [step.response.text for step in result.steps] == ["</s><s>Two cars.</s>", TWO_CARS]
    assert [step.request for step in result.steps] == [step.request for step in steps]
    expected = [None, None] if raw else ["text_result", "detections"]
    assert [step.response.WhichOneof("result") for step in result.steps] == expected
    assert (result.text, result.WhichOneof("result"), result.image_size.width) == ("", None, 640)


def test_a_blank_caption_is_an_error_of_the_step_that_needs_it():
    result, steps = run(v1.TaskRequest(caption_grounding={}), answers(caption="</s><s></s>"))
    assert len(steps) == 1
    assert result.steps[0].response.text == "</s><s></s>"
    assert result.steps[1].error.status == "INVALID_ARGUMENT"
    assert result.steps[1].error.message.startswith("phrase_grounding.caption: got ''")


def test_a_cascade_whose_first_step_fails_has_its_error():
    assert run(v1.TaskRequest(caption_grounding={}), answers(caption=FAILED))[0] == FAILED
    assert run(v1.TaskRequest(region_analysis={}), answers(object_detection=FAILED))[0] == FAILED


@pytest.mark.parametrize(
    ("region_task", "task"),
    [
        (0, "region_to_description"),
        (1, "region_to_description"),
        (2, "region_to_category"),
        (3, "region_to_ocr"),
        (4, "region_to_segmentation"),
    ],
)
def test_each_detected_region_has_a_step(region_task, task):
    request = v1.TaskRequest(region_analysis={"region_task": region_task, "region_proposal": {}})
    result, steps = run(request, answers(**{"region_proposal": TWO_CARS, task: "<loc_1><loc_1><loc_2><loc_2>"}))
    assert [step.request.WhichOneof("task") for step in steps] == ["region_proposal", task, task]
    assert [step.item for step in steps] == [None, 0, 1]
    boxes = [detection.bounding_box for detection in result.steps[0].response.detections.detections]
    assert [getattr(step.request, task).region for step in steps[1:]] == boxes
    assert [(step.HasField("item"), step.item) for step in result.steps] == [(False, 0), (True, 0), (True, 1)]


def test_the_regions_of_a_raw_request_are_known():
    request = v1.TaskRequest(region_analysis={}, raw=True)
    result, steps = run(request, answers(object_detection=TWO_CARS, region_to_description="a car"))
    assert len(steps) == 3
    assert {step.response.WhichOneof("result") for step in result.steps} == {None}


@pytest.mark.parametrize(
    ("detector", "task"),
    [
        ({}, {"object_detection": {}}),
        ({"dense_region_caption": {}}, {"dense_region_caption": {}}),
        ({"phrase_grounding": {"phrases": ["a", "b"]}}, {"phrase_grounding": {"phrases": ["a", "b"]}}),
        ({"open_vocabulary_detection": {"query": "a"}}, {"open_vocabulary_detection": {"query": "a"}}),
    ],
)
def test_the_detector_is_the_first_step_as_the_caller_wrote_it(detector, task):
    (step,) = PlanRun(v1.TaskRequest(region_analysis=detector, raw=True)).start()
    assert step.request == v1.TaskRequest(**task, raw=True)


def test_an_analysis_without_regions_ends_with_the_detection():
    result, steps = run(v1.TaskRequest(region_analysis={}), answers(object_detection="</s><s></s>"))
    assert (len(steps), len(result.steps), result.finish_reason) == (1, 1, v1.FinishReason.FINISH_REASON_STOP)


def test_an_inverted_region_fails_alone():
    inverted = "car<loc_300><loc_200><loc_100><loc_400><loc_500><loc_200><loc_700><loc_400>"
    result, steps = run(
        v1.TaskRequest(region_analysis={}), answers(object_detection=inverted, region_to_description="a")
    )
    assert [step.item for step in steps] == [None, 1]
    assert [(step.item, step.WhichOneof("outcome")) for step in result.steps[1:]] == [(0, "error"), (1, "response")]
    assert result.steps[1].error.message.startswith("region_to_description.region.x_max: got ")


def test_a_cascade_may_look_at_its_first_regions_only():
    request = v1.TaskRequest(region_analysis={"max_regions": 1})
    result, _ = run(request, answers(object_detection=TWO_CARS, region_to_description="a car"))
    assert [step.item for step in result.steps[1:]] == [0]


def test_regions_beyond_the_limit_fail_and_the_others_do_not():
    answer = answers(object_detection=TWO_CARS, region_to_description="a car")
    result, _ = run(v1.TaskRequest(region_analysis={}), answer, PlanLimits(steps=2))
    assert [step.WhichOneof("outcome") for step in result.steps] == ["response", "response", "error"]
    error = result.steps[2].error
    assert (error.status, error.message) == ("RESOURCE_EXHAUSTED", "steps: got 3, expected at most 2 (max_steps)")


def test_no_region_can_be_run_if_the_detection_is_the_last_step_that_is_allowed():
    result, steps = run(v1.TaskRequest(region_analysis={}), answers(object_detection=TWO_CARS), PlanLimits(steps=1))
    assert len(steps) == 1
    assert [step.WhichOneof("outcome") for step in result.steps] == ["response", "error", "error"]


def test_the_analyses_of_a_list_share_its_steps_equally_whichever_is_first():
    analysis = v1.TaskRequest(region_analysis={})
    request = task_list(analysis, v1.TaskRequest(caption_grounding={}), analysis)
    answer = answers(
        object_detection=TWO_CARS, region_to_description="a car", caption="Two cars.", phrase_grounding=TWO_CARS
    )
    result, steps = run(request, answer, PlanLimits(steps=7))
    outcomes = [[step.WhichOneof("outcome") for step in each.response.steps] for each in result.steps]
    partial = ["response", "response", "error"]
    assert outcomes == [partial, ["response", "response"], partial]
    assert result.steps[2].response.steps[2].error.message == (
        "steps: got 3, expected at most 2, its share of 7 (max_steps)"
    )
    assert len(steps) == 6


def test_a_list_answers_each_of_its_requests_in_order():
    request = task_list(
        v1.TaskRequest(caption={}),
        v1.TaskRequest(prompt="<OD>", raw=True, generation={"num_beams": 1}),
        generation={"num_beams": 3, "max_new_tokens": 9},
    )
    plan = PlanRun(request)
    first, second = plan.start()
    assert second.request == v1.TaskRequest(prompt="<OD>", raw=True, generation={"num_beams": 1, "max_new_tokens": 9})
    assert plan.complete(second.number, task_response(TWO_CARS, is_truncated=True)) == []
    assert plan.result is None
    assert plan.complete(first.number, task_response("A car.")) == []
    assert [step.request for step in plan.result.steps] == [first.request, second.request]
    assert [step.response.text for step in plan.result.steps] == ["A car.", TWO_CARS]
    assert [step.response.WhichOneof("result") for step in plan.result.steps] == ["text_result", None]
    assert plan.result.finish_reason == v1.FinishReason.FINISH_REASON_LENGTH


def test_a_failure_in_a_list_loses_no_other_result():
    request = task_list(v1.TaskRequest(caption={}), v1.TaskRequest(ocr={}))
    result, _ = run(request, answers(caption=FAILED, ocr="STOP"))
    assert [step.WhichOneof("outcome") for step in result.steps] == ["error", "response"]


def test_a_list_of_failures_fails_as_its_first_request_does():
    request = task_list(v1.TaskRequest(caption={}), v1.TaskRequest(ocr={}))
    result, _ = run(request, answers(caption=FAILED, ocr=v1.TaskError(status="CANCELLED")))
    assert result == FAILED


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("phrase_grounding.caption: got 'a', expected less", "task_list.tasks[1].phrase_grounding.caption"),
        ("generation.num_beams: got 9, expected less", "task_list.tasks[1].generation.num_beams"),
        ("IMAGE: got 3 bytes, expected an image", "IMAGE"),
    ],
)
def test_the_error_of_a_listed_request_names_the_field_by_its_full_path(message, shown):
    request = task_list(v1.TaskRequest(caption={}), v1.TaskRequest(phrase_grounding={"caption": "a"}))
    error = v1.TaskError(status="INVALID_ARGUMENT", message=message)
    result, _ = run(request, answers(caption="A car.", phrase_grounding=error))
    assert result.steps[1].error.message == shown + message[message.index(":") :]


def test_the_error_of_a_listed_detector_names_the_field_by_its_full_path():
    detection = v1.TaskRequest(region_analysis={"phrase_grounding": {"caption": "a"}})
    error = v1.TaskError(status="INVALID_ARGUMENT", message="phrase_grounding.caption: got 'a', expected less")
    for message in ("phrase_grounding.caption: got 'a', expected less", "generation.num_beams: got 9, expected less"):
        error.message = message
        alone, _ = run(detection, answers(phrase_grounding=error))
        prefix = "region_analysis." if message.startswith("phrase") else ""
        assert alone.message == prefix + message
        listed, _ = run(task_list(detection), answers(phrase_grounding=error))
        assert listed.message == f"task_list.tasks[0].{prefix}{message}"


UNKNOWN = v1.TaskError(status="INVALID_ARGUMENT", message="adapter: got 'a', expected one of b, c")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (v1.TaskRequest(caption_grounding={}), answers(caption="Two cars.", phrase_grounding=TWO_CARS)),
        (v1.TaskRequest(region_analysis={}), answers(object_detection=TWO_CARS, region_to_description="a car")),
    ],
    ids=["caption_grounding", "region_analysis"],
)
def test_every_step_of_a_cascade_has_its_adapter(request_, answer):
    request = v1.TaskRequest(adapter="tags")
    request.MergeFrom(request_)
    result, steps = run(request, answer)
    assert len(steps) >= 2
    assert {step.request.adapter for step in steps} == {"tags"}
    assert [step.request for step in result.steps] == [step.request for step in steps]


def test_a_task_of_a_list_has_its_own_adapter_or_that_of_the_list():
    plain, own = v1.TaskRequest(caption={}), v1.TaskRequest(ocr={}, adapter="pages")
    cascade = v1.TaskRequest(caption_grounding={}, adapter="phrases")
    answer = answers(caption="Two cars.", ocr="STOP", phrase_grounding=TWO_CARS)
    result, _ = run(task_list(plain, own, cascade, adapter="tags"), answer)
    assert [step.request.adapter for step in result.steps] == ["tags", "pages", "phrases"]
    assert [step.request.adapter for step in result.steps[2].response.steps] == ["phrases", "phrases"]
    result, _ = run(task_list(plain, own), answer)
    assert [step.request.adapter for step in result.steps] == ["", "pages"]


def test_an_unknown_adapter_is_named_where_the_caller_wrote_it():
    plain, own = v1.TaskRequest(caption={}), v1.TaskRequest(ocr={}, adapter="a")
    for task in ("caption", "caption_grounding", "region_analysis"):
        alone, _ = run(v1.TaskRequest(**{task: {}}, adapter="a"), answers(caption=UNKNOWN, object_detection=UNKNOWN))
        assert alone == UNKNOWN
    result, _ = run(task_list(plain, own, adapter="a"), answers(caption=UNKNOWN, ocr=UNKNOWN))
    assert result == UNKNOWN
    result, _ = run(task_list(plain, own), answers(caption="Two cars.", ocr=UNKNOWN))
    assert result.steps[1].error.message == f"task_list.tasks[1].{UNKNOWN.message}"
    result, _ = run(task_list(plain, own, adapter="b"), answers(caption="Two cars.", ocr=UNKNOWN))
    assert result.steps[1].error.message == f"task_list.tasks[1].{UNKNOWN.message}"


def unfit_response():
    response = task_response("A car.")
    response.token_ends[:] = [1]  # without a log-probability
    return response


def test_a_response_that_cannot_be_decoded_is_an_error_of_its_step():
    request = task_list(*[v1.TaskRequest(**{name: {}}) for name in ("caption", "caption_grounding", "ocr")])

    def answer(step):
        return unfit_response() if step.WhichOneof("task") == "caption" else task_response("STOP")

    result, _ = run(request, answer)
    assert [step.WhichOneof("outcome") for step in result.steps] == ["error", "error", "response"]
    assert {step.error.status for step in result.steps[:2]} == {"INTERNAL"}
    assert result.steps[0].error.message.startswith("the generated text cannot be decoded: token_scores.ends: got ")


@pytest.mark.parametrize("cascade", ["caption_grounding", "region_analysis"])
def test_a_raw_cascade_whose_first_response_cannot_be_decoded_fails(cascade):
    result, _ = run(v1.TaskRequest(**{cascade: {}}, raw=True), lambda _: unfit_response())
    assert result.status == "INTERNAL"


def test_a_raw_response_is_passed_on_as_it_is():
    result, _ = run(v1.TaskRequest(caption={}, raw=True), lambda _: unfit_response())
    assert result == unfit_response()


def test_usage_is_the_sum_and_the_image_was_cached_only_for_all():
    request = task_list(v1.TaskRequest(caption={}), v1.TaskRequest(ocr={}))
    usages = [v1.Usage(prompt_tokens=2, decode_milliseconds=3), v1.Usage(generated_tokens=5, decode_milliseconds=4)]
    for cached in ((False, True), (True, False), (True, True)):
        responses = [task_response("a"), task_response("b")]
        for response, usage, is_cached in zip(responses, usages, cached, strict=True):
            response.usage.CopyFrom(usage)
            response.usage.image_embedding_cached = is_cached
        result, _ = run(request, lambda step, both=responses: both[step.WhichOneof("task") == "ocr"])
        total = v1.Usage(prompt_tokens=2, generated_tokens=5, decode_milliseconds=7, image_embedding_cached=all(cached))
        assert result.usage == total


def test_a_step_ends_once():
    plan = PlanRun(task_list(v1.TaskRequest(caption={}), v1.TaskRequest(ocr={})))
    first, _ = plan.start()
    plan.complete(first.number, task_response("a"))
    with pytest.raises(KeyError):
        plan.complete(first.number, task_response("a"))


def test_one_of_several_threads_gets_the_result():
    plan = PlanRun(v1.TaskRequest(caption={}))
    assert plan.claim_result() is None
    (step,) = plan.start()
    plan.complete(step.number, task_response("a"))
    claimed, barrier = [], threading.Barrier(8)

    def claim():
        barrier.wait()
        claimed.append(plan.claim_result())

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each for each in claimed if each is not None] == [plan.result]
