"""The option `adapter` of the clients, from their methods to an engine in this process and back."""

import asyncio
import inspect
import json

import pytest
from florence2 import AsyncClient, Client, Finished, StepStarted, TextDelta, TruncatedAnswerError
from florence2.errors import InvalidArgumentError
from florence2.v1 import TaskRequest
from florence2_server.errors import ConfigError
from florence2_server.in_process import InProcess

NOTEBOOK, SMALL = "notebook", "small"
NAMES = ("", NOTEBOOK, SMALL)
OPTIONS = {"num_beams": 1, "max_new_tokens": 50}


@pytest.fixture(scope="module")
def transport(tiny):
    adapters = {name: tiny / f"adapter_{name}" for name in (NOTEBOOK, SMALL)}
    transport = InProcess(tiny, device="cpu", dtype="float32", slots=8, adapters=adapters)
    yield transport
    transport.close()


@pytest.fixture(scope="module")
def image(tiny):
    return (tiny / "scene0.png").read_bytes()


@pytest.fixture(scope="module")
def expected(tiny):
    """`expected(name, prompt)`: the text that the original code generates, by greedy search."""

    def expected(name, prompt):
        cases = json.loads((tiny / (f"adapter_{name}" if name else "") / "expected.json").read_text())
        (case,) = [
            each for each in cases if (each["image"], each["prompt"], each["num_beams"]) == ("scene0.png", prompt, 1)
        ]
        return case["text"]

    return expected


@pytest.fixture(params=[Client, AsyncClient])
def use(transport, request):
    """`use(lambda client: client.caption(...))`: the result of a method of either client, whose engine goes on."""

    def use(action):
        async def act():
            return await settled(action(request.param(transport=transport)))

        return asyncio.run(act())

    return use


async def settled(result):
    return await result if inspect.isawaitable(result) else result


async def events_of(stream):
    return [event async for event in stream] if hasattr(stream, "__aiter__") else list(stream)


def truncated(action):
    """Do something with a client whose answer the length limit cuts off, as all of these: random weights never end."""

    async def act(client):
        with pytest.raises(TruncatedAnswerError) as raised:
            await settled(action(client))
        return raised.value.answer

    return act


@pytest.mark.parametrize("name", NAMES)
def test_a_task_method_answers_with_the_adapter(use, image, expected, name):
    found = use(truncated(lambda client: client.detect(image, adapter=name or None, **OPTIONS)))
    assert found.text == expected(name, "<OD>")
    question = "<DocVQA>What is the total?"
    found = use(truncated(lambda client: client.generate(image, question, adapter=name or None, **OPTIONS)))
    assert found.text == expected(name, question)


def test_captions_differ_with_the_adapter(use, image, expected):
    texts = {}
    for name in ("", NOTEBOOK):
        found = use(truncated(lambda client, name=name: client.caption(image, adapter=name or None, **OPTIONS)))
        texts[name] = found.text
        assert found.text == expected(name, "<CAPTION>")
    assert texts[""] != texts[NOTEBOOK]


def test_a_cascade_answers_as_its_steps_do_with_its_adapter(use, image, expected):
    generation = {"num_beams": 1, "max_new_tokens": 20}
    cascade = TaskRequest(caption_grounding={}, adapter=NOTEBOOK, generation=generation)
    caption, grounding = use(lambda client: client.run(image, cascade)).steps
    assert [step.request.adapter for step in (caption, grounding)] == [NOTEBOOK, NOTEBOOK]
    assert len(caption.outcome.text) > 50
    assert expected(NOTEBOOK, "<CAPTION>").startswith(caption.outcome.text.removesuffix("</s>"))
    alone = TaskRequest(phrase_grounding={"caption": caption.outcome.result.text}, generation=generation)
    assert grounding.outcome.text != use(lambda client: client.run(image, alone)).text
    alone.adapter = NOTEBOOK
    assert grounding.outcome.text == use(lambda client: client.run(image, alone)).text
    found = use(lambda client: client.ground_caption(image, adapter=NOTEBOOK, **generation))
    assert found.caption == caption.outcome.result
    assert found.detections == grounding.outcome.result


def test_each_task_of_a_list_has_its_own_adapter_or_that_of_the_list(use, image, expected):
    tasks = [
        TaskRequest(object_detection={}),
        TaskRequest(object_detection={}, adapter=SMALL),
        TaskRequest(prompt="<OCR_WITH_REGION>", adapter=NOTEBOOK),
        TaskRequest(ocr_with_region={}, adapter=SMALL),
    ]
    for of_list, first in ((None, ""), (NOTEBOOK, NOTEBOOK)):
        answers = use(lambda client, name=of_list: client.run_tasks(image, tasks, adapter=name, **OPTIONS))
        assert [answer.text for answer in answers] == [
            expected(first, "<OD>"),
            expected(SMALL, "<OD>"),
            expected(NOTEBOOK, "<OCR_WITH_REGION>"),
            expected(SMALL, "<OCR_WITH_REGION>"),
        ]


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_has_the_text_of_its_adapter(use, image, expected, name):
    request = TaskRequest(object_detection={}, adapter=name, generation=OPTIONS)
    *events, last = use(lambda client: events_of(client.stream(image, request)))
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == expected(name, "<OD>")
    assert isinstance(last, Finished)
    assert last.answer.text == text


def test_a_stream_of_several_tasks_shows_the_adapter_of_each(use, image, expected):
    tasks = [TaskRequest(object_detection={}), TaskRequest(object_detection={}, adapter=SMALL)]
    request = TaskRequest(task_list={"tasks": tasks}, adapter=NOTEBOOK, generation=OPTIONS)
    *events, last = use(lambda client: events_of(client.stream(image, request)))
    started = {event.step: event.request.adapter for event in events if isinstance(event, StepStarted)}
    assert started == {0: NOTEBOOK, 1: SMALL}
    for step, name in started.items():
        text = "".join(event.text for event in events if isinstance(event, TextDelta) and event.step == step)
        assert text == last.answer.steps[step].outcome.text == expected(name, "<OD>")


def test_an_unknown_adapter_is_rejected_with_the_known_ones(use, image):
    known = f"expected one of {NOTEBOOK}, {SMALL}"
    for action in (
        lambda client: client.caption(image, adapter="tags"),
        lambda client: client.ground_caption(image, adapter="tags"),
        lambda client: client.analyze_regions(image, adapter="tags"),
        lambda client: client.run_tasks(image, [TaskRequest(caption={})], adapter="tags"),
        lambda client: events_of(client.stream(image, TaskRequest(caption={}, adapter="tags"))),
    ):
        with pytest.raises(InvalidArgumentError) as raised:
            use(action)
        assert str(raised.value) == f"adapter: got 'tags', {known}"
        assert raised.value.field == "adapter"


def test_an_unknown_adapter_of_one_task_loses_no_other_answer(use, image, expected):
    tasks = [TaskRequest(object_detection={}), TaskRequest(caption={}, adapter="tags")]
    answer, error = use(lambda client: client.run_tasks(image, tasks, adapter=SMALL, **OPTIONS))
    assert answer.text == expected(SMALL, "<OD>")
    assert (type(error), error.field, error.value) == (InvalidArgumentError, "task_list.tasks[1].adapter", "'tags'")


def test_the_adapters_are_listed(use):
    (info,) = use(lambda client: client.server_info())
    assert info.engines[0].adapters == (NOTEBOOK, SMALL)
    (health,) = use(lambda client: client.health())
    assert health.info == info


def test_an_adapter_that_no_request_could_name_ends_the_start(tiny):
    with pytest.raises(ConfigError, match=r"^adapters: got 'my adapter', expected 1 to 64 letters"):
        InProcess(tiny, adapters={"my adapter": tiny / "adapter_small"})
