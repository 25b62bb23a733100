"""Any plan, whatever its steps answer and in whichever order: compared with a composition written by hand."""

import queue
import random
import re
import sys
import threading
import zlib
from contextlib import nullcontext

import numpy as np
import pytest
from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.messages import to_message
from florence2.parsing import decode
from florence2.plans import PlanLimits, PlanRun, check_plan
from hypothesis import given, settings
from hypothesis import strategies as st

WIDTH, HEIGHT = 640, 480
ANY_MESSAGE = "any"  # stands for a message of the plan's own
ERRORS = [
    v1.TaskError(status="INTERNAL", message="the engine crashed"),
    v1.TaskError(status="CANCELLED", message="the caller cancelled the request"),
    v1.TaskError(status="INVALID_ARGUMENT", message="IMAGE: got 3 bytes, expected an image"),
]
CAPTIONS = ["caption", "caption", "detailed_caption", "more_detailed_caption"]
REGION_TASKS = [
    "region_to_description",
    "region_to_description",
    "region_to_category",
    "region_to_ocr",
    "region_to_segmentation",
]
DETECTORS = [
    {},
    {"object_detection": {}},
    {"dense_region_caption": {}},
    {"region_proposal": {}},
    {"phrase_grounding": {"caption": "two cars"}},
    {"open_vocabulary_detection": {"query": "a car"}},
]
TOKENS = ["</s>", "<s>", "car", " ", "é", "<and>", "<poly>", "<sep>", "<", "<od>"]


@pytest.fixture(autouse=True)
def eager_threads():
    """Threads that take turns after every few instructions."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


GENERATION = st.sampled_from([None, {"num_beams": 2}, {"max_new_tokens": 9}])
SINGLE = st.sampled_from(
    [
        {"caption": {}},
        {"object_detection": {}},
        {"ocr_with_region": {}},
        {"phrase_grounding": {"phrases": ["a car", "a dog"]}},
        {"referring_expression_segmentation": {"expression": "a car"}},
        {"region_to_ocr": {"region": {"x_max": 9, "y_max": 9}}},
        {"prompt": "<OD>"},
        {"free_prompt": {"text": "hello"}},
    ]
)
GROUNDING = st.builds(lambda detail: {"caption_grounding": {"detail": detail}}, st.integers(0, 3))
ANALYSIS = st.builds(
    lambda detector, task, most: {"region_analysis": {**detector, "region_task": task, "max_regions": most}},
    st.sampled_from(DETECTORS),
    st.integers(0, 4),
    st.integers(0, 3),
)
LISTED = st.builds(
    lambda task, generation, raw: v1.TaskRequest(**task, generation=generation, raw=raw),
    st.one_of(SINGLE, GROUNDING, ANALYSIS),
    GENERATION,
    st.booleans(),
)
LIST = st.builds(
    lambda tasks, generation, raw: v1.TaskRequest(task_list={"tasks": tasks}, generation=generation, raw=raw),
    st.lists(LISTED, min_size=1, max_size=6),
    GENERATION,
    st.booleans(),
)
REQUESTS = st.one_of(LISTED, LIST)


class Model:
    """Answers each prompt, always in the same way: with a text, with one that cannot be decoded, or with an error."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def answer(self, request):
        draw = random.Random(zlib.crc32(request.SerializeToString(deterministic=True), self.seed))
        if draw.random() < 0.15:
            return draw.choice(ERRORS)
        response = v1.TaskResponse(text=self.text(draw), image_size={"width": WIDTH, "height": HEIGHT})
        response.finish_reason = draw.choice([1, 1, 2])
        response.usage.prompt_tokens = draw.randrange(9)
        response.usage.decode_milliseconds = draw.randrange(9)
        response.usage.image_embedding_cached = draw.random() < 0.7
        if draw.random() < 0.1:
            response.token_ends.append(1)  # without a log-probability
        return response

    @staticmethod
    def text(draw):
        locations = [f"<loc_{draw.choice([100, 200, 300, 999])}>" for _ in range(4)]
        pieces = [draw.choice([draw.choice(TOKENS), "".join(draw.sample(locations, 4))]) for _ in range(9)]
        return "".join(draw.choice([["</s><s>", *pieces], ["</s><s></s>"]]))


def is_undecodable(response):
    return len(response.token_ends) != len(response.token_log_probabilities)


class ByHand:
    """What a request's answer should be, from the answers to single tasks."""

    def __init__(self, model, limits):
        self.model, self.limits = model, limits

    def answer(self, request):
        tasks = request.task_list.tasks
        if not tasks:
            return self.one(request, self.limits.steps)
        whole = []
        for task in tasks:
            each = v1.TaskRequest()
            each.CopyFrom(task)
            each.generation.CopyFrom(request.generation)
            each.generation.MergeFrom(task.generation)
            if not (request.HasField("generation") or task.HasField("generation")):
                each.ClearField("generation")
            each.raw = request.raw or task.raw
            whole.append(each)
        kinds = [each.WhichOneof("task") for each in whole]
        left = self.limits.steps - len(kinds) - kinds.count("caption_grounding")
        share = left // kinds.count("region_analysis") if "region_analysis" in kinds else 0
        return self.response([(each, None, self.one(each, 1 + share)) for each in whole])

    def one(self, request, steps):
        match request.WhichOneof("task"):
            case "caption_grounding":
                return self.grounding(request)
            case "region_analysis":
                return self.analysis(request, steps)
        return self.single(request)

    def single(self, request, is_needed=False):
        answer = self.model.answer(request)
        if isinstance(answer, v1.TaskError):
            return answer
        if is_undecodable(answer) and (is_needed or not request.raw):
            return v1.TaskError(status="INTERNAL", message=ANY_MESSAGE)
        if not request.raw:
            self.decode(request, answer)
        return answer

    @staticmethod
    def decode(request, answer):
        name = {None: "object_detection"}.get(request.WhichOneof("task"), request.WhichOneof("task"))
        result = to_message(decode(getattr(request, name), answer.text, answer.image_size))
        field = {v1.Text: "text_result", v1.Detections: "detections"}.get(type(result))
        field = field or {v1.Segmentation: "segmentation", v1.TextRegions: "text_regions"}[type(result)]
        getattr(answer, field).CopyFrom(result)

    def step(self, request, **task):
        generation = request.generation if request.HasField("generation") else None
        return v1.TaskRequest(**task, generation=generation, raw=request.raw)

    def grounding(self, request):
        first = self.step(request, **{CAPTIONS[request.caption_grounding.detail]: {}})
        caption = self.single(first, is_needed=True)
        if isinstance(caption, v1.TaskError):
            return caption
        words = re.sub("</?s>", "", caption.text).strip()
        second = self.step(request, phrase_grounding={"caption": words})
        blank = v1.TaskError(status="INVALID_ARGUMENT", message=ANY_MESSAGE)
        return self.response([(first, None, caption), (second, None, self.single(second) if words else blank)])

    def analysis(self, request, steps):
        analysis = request.region_analysis
        detector = analysis.WhichOneof("detector") or "object_detection"
        first = self.step(request, **{detector: getattr(analysis, detector)})
        detection = self.single(first, is_needed=True)
        if isinstance(detection, v1.TaskError):
            return detection
        parts, left = [(first, None, detection)], steps - 1
        for item, box in enumerate(self.boxes(first, detection)[: analysis.max_regions or None]):
            part = self.step(request, **{REGION_TASKS[analysis.region_task]: {"region": box}})
            if box.x_min >= box.x_max or box.y_min >= box.y_max:
                outcome = v1.TaskError(status="INVALID_ARGUMENT", message=ANY_MESSAGE)
            elif left == 0:
                outcome = v1.TaskError(status="RESOURCE_EXHAUSTED", message=ANY_MESSAGE)
            else:
                outcome, left = self.single(part), left - 1
            parts.append((part, item, outcome))
        return self.response(parts)

    @staticmethod
    def boxes(request, response):
        found = decode(getattr(request, request.WhichOneof("task")), response.text, (WIDTH, HEIGHT)).boxes
        corners = ("x_min", "y_min", "x_max", "y_max")
        return [v1.BoundingBox(**dict(zip(corners, map(float, box), strict=True))) for box in np.asarray(found)]

    @staticmethod
    def response(parts):
        whole, usages = v1.TaskResponse(finish_reason=1), []
        for request, item, outcome in parts:
            step = whole.steps.add(request=request, item=item)
            if isinstance(outcome, v1.TaskError):
                step.error.CopyFrom(outcome)
                continue
            step.response.CopyFrom(outcome)
            whole.image_size.CopyFrom(outcome.image_size)
            whole.finish_reason = max(whole.finish_reason, outcome.finish_reason)
            usages.append(outcome.usage)
        if not usages:
            return parts[0][2]
        whole.usage.prompt_tokens = sum(usage.prompt_tokens for usage in usages)
        whole.usage.decode_milliseconds = sum(usage.decode_milliseconds for usage in usages)
        whole.usage.image_embedding_cached = min(usage.image_embedding_cached for usage in usages)
        return whole


def without_own_messages(actual, expected):
    """The actual outcome, with the plan's own messages replaced as in the expected one."""
    if isinstance(actual, v1.TaskError):
        if isinstance(expected, v1.TaskError) and expected.message == ANY_MESSAGE and actual.message:
            return v1.TaskError(status=actual.status, message=ANY_MESSAGE)
        return actual
    replaced = v1.TaskResponse()
    replaced.CopyFrom(actual)
    for step, expected_step in zip(replaced.steps, getattr(expected, "steps", ()), strict=False):
        name, expected_name = step.WhichOneof("outcome"), expected_step.WhichOneof("outcome")
        if name == expected_name:
            getattr(step, name).CopyFrom(without_own_messages(getattr(step, name), getattr(expected_step, name)))
    return replaced


def assert_right(actual, request, model, limits):
    expected = ByHand(model, limits).answer(request)
    assert without_own_messages(actual, expected) == expected


def accepted(request, limits):
    """Whether the steps that a request takes at least are within the limits."""
    tasks = request.task_list.tasks or [request]
    is_accepted = sum(1 + task.HasField("caption_grounding") for task in tasks) <= limits.steps
    with nullcontext() if is_accepted else pytest.raises(InvalidArgumentError, match="max_steps"):
        check_plan(request, limits)
    return is_accepted


@given(REQUESTS, st.integers(0, 2**32), st.integers(1, 20), st.randoms(use_true_random=False))
def test_a_request_has_the_same_answer_in_whichever_order_its_steps_end(request, seed, max_steps, order):
    limits, model = PlanLimits(steps=max_steps), Model(seed)
    if not accepted(request, limits):
        return
    plan, numbers = PlanRun(request, limits), []
    steps = plan.start()
    while steps:
        assert plan.result is None
        step = steps.pop(order.randrange(len(steps)))
        numbers.append(step.number)
        steps += plan.complete(step.number, model.answer(step.request))
    assert sorted(numbers) == list(range(len(numbers)))
    assert len(numbers) <= max_steps
    assert_right(plan.result, request, model, limits)


@settings(max_examples=60)
@given(st.lists(REQUESTS, min_size=1, max_size=8), st.integers(0, 2**32), st.integers(2, 8), st.integers(3, 20))
def test_threads_answer_each_request_once(requests, seed, thread_count, max_steps):
    limits, model = PlanLimits(steps=max_steps), Model(seed)
    requests = [request for request in requests if accepted(request, limits)]
    plans = [PlanRun(request, limits) for request in requests]
    todo, answered = queue.SimpleQueue(), queue.SimpleQueue()
    done = threading.Semaphore(0)

    def generate():
        while (given_ := todo.get()) is not None:
            plan, step = given_
            for further in plan.complete(step.number, model.answer(step.request)):
                todo.put((plan, further))
            if plan.result is not None and (result := plan.claim_result()) is not None:
                answered.put((plan, result))
                done.release()

    threads = [threading.Thread(target=generate) for _ in range(thread_count)]
    for thread in threads:
        thread.start()
    steps = [(plan, step) for plan in plans for step in plan.start()]
    random.Random(seed).shuffle(steps)
    for each in steps:
        todo.put(each)
    is_done = all(done.acquire(timeout=20) for _ in plans)
    for _ in threads:
        todo.put(None)
    for thread in threads:
        thread.join()
    assert is_done
    results = {}
    while not answered.empty():
        plan, result = answered.get()
        assert plan not in results
        results[plan] = result
    for plan, request in zip(plans, requests, strict=True):
        assert_right(results[plan], request, model, limits)


@given(LIST, st.integers(0, 2**32))
def test_a_list_answers_as_its_requests_do_one_by_one(request, seed):
    model = Model(seed)
    whole = answer_of(request, model)
    steps = whole.steps if isinstance(whole, v1.TaskResponse) else ()
    for step in steps:
        alone = answer_of(step.request, model)
        assert getattr(step, step.WhichOneof("outcome")) == alone


def answer_of(request, model):
    plan = PlanRun(request)
    steps = plan.start()
    while steps:
        step = steps.pop()
        steps += plan.complete(step.number, model.answer(step.request))
    return plan.result
