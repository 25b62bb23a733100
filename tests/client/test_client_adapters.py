"""The option `adapter` of the methods: how it is sent, and which names are rejected."""

import inspect

import pytest
from florence2 import v1
from florence2.adapter_names import check_adapter_name
from florence2.client import Client
from florence2.errors import InvalidArgumentError, UnavailableError

from tests.client.fake_server import task_response
from tests.client.test_client import METHODS, PLAN_METHODS, the_call

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"an encoded image"
CAPTION = v1.TaskRequest(caption={})
NAMES = ["a", "7", "DocVQA", "tags-v2.1_final", "x" * 64]
NO_NAMES = ["", " ", "a b", "a/b", "a\n", ".hidden", "-flag", "_a", "ä", "\ud800", "x" * 65]


@pytest.mark.parametrize("method", METHODS)
def test_every_task_method_sends_the_adapter(server, use, method):
    arguments, answer = the_call(method)
    server.answer(f"</s><s>{answer}</s>")
    use(lambda client: getattr(client, method)(IMAGE, *arguments))
    plain = server.last.content
    use(lambda client: getattr(client, method)(IMAGE, *arguments, adapter="tags"))
    assert server.last.content.adapter == "tags"
    plain.adapter = "tags"
    assert server.last.content == plain


@pytest.mark.parametrize("method", PLAN_METHODS)
def test_every_method_of_several_steps_sends_the_adapter(server, use, method):
    arguments = [[CAPTION, v1.TaskRequest(caption={}, adapter="other")]] if method == "run_tasks" else []
    server.fail_first(1)
    with pytest.raises(UnavailableError):
        use(lambda client: getattr(client, method)(IMAGE, *arguments, adapter="tags"), retry=None)
    assert server.last.request.adapter == "tags"
    assert [task.adapter for task in server.last.request.task_list.tasks] == ["", "other"][: 2 * len(arguments)]


def test_run_and_stream_send_the_adapter_of_the_request(server, use):
    response = v1.TaskResponse.FromString(task_response("</s><s>A dog.</s>"))
    server.stream(v1.StreamEvent(response=response))
    request = v1.TaskRequest(caption={}, adapter="tags")

    async def last_event(stream):
        events = [event async for event in stream] if hasattr(stream, "__aiter__") else list(stream)
        return events[-1]

    use(lambda client: client.run(IMAGE, request))
    assert server.last.request.adapter == "tags"
    use(lambda client: last_event(client.stream(IMAGE, request)))
    assert server.last.request.adapter == "tags"
    assert len(server.received) == 2


def test_without_an_adapter_the_checkpoint_answers(server, use):
    use(lambda client: client.caption(IMAGE, adapter=None))
    use(lambda client: client.caption(IMAGE))
    assert [received.request.adapter for received in server.received] == ["", ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_sent_as_it_is(server, use, name):
    use(lambda client: client.caption(IMAGE, adapter=name))
    assert server.last.request.adapter == name
    check_adapter_name(name)


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
def test_what_cannot_be_a_name_is_rejected_before_it_is_sent(server, use, name):
    for call in (
        lambda client: client.caption(IMAGE, adapter=name),
        lambda client: client.ground_caption(IMAGE, adapter=name),
        lambda client: client.run_tasks(IMAGE, [CAPTION], adapter=name),
    ):
        with pytest.raises(InvalidArgumentError, match=r"^adapter: got '.*, expected 1 to 64 letters") as raised:
            use(call)
        assert (raised.value.field, raised.value.value) == ("adapter", name)
    assert not server.received


@pytest.mark.parametrize("name", [name for name in NO_NAMES if name not in ("", "\ud800")], ids=ascii)
def test_the_name_in_a_request_is_checked_too(server, use, name):
    listed = v1.TaskRequest(task_list={"tasks": [CAPTION, v1.TaskRequest(caption={}, adapter=name)]})
    for request, field in (
        (v1.TaskRequest(caption={}, adapter=name), "adapter"),
        (listed, "task_list.tasks[1].adapter"),
    ):
        with pytest.raises(InvalidArgumentError) as raised:
            use(lambda client, request=request: client.run(IMAGE, request))
        assert raised.value.field == field
    assert not server.received


@pytest.mark.parametrize("adapter", [5, True, b"tags", ["tags"]])
def test_a_name_of_the_wrong_type_is_a_type_error(server, use, adapter):
    with pytest.raises(TypeError, match=r"^adapter: got .*, expected a str"):
        use(lambda client: client.caption(IMAGE, adapter=adapter))
    assert not server.received


def test_run_takes_the_adapter_in_the_request_only(server, use):
    with pytest.raises(TypeError, match="unexpected keyword argument 'adapter'"):
        use(lambda client: client.run(IMAGE, CAPTION, adapter="tags"))
    assert not server.received


def test_the_help_of_a_method_describes_the_adapter():
    text = " ".join((inspect.getdoc(Client.caption) or "").split())
    assert "adapter: name of the adapter (LoRA) to answer with" in text
    assert "None or omitted: no adapter. max_new_tokens: " in text
