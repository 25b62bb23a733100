"""The help of the clients' methods."""

import inspect
import pydoc
import re

import pytest
from florence2.client import AsyncClient, CallOptions, Client, RunOptions, TaskOptions

from tests.client.test_client import METHODS as TASK_METHODS
from tests.client.test_client import PLAN_METHODS

ERRORS = (
    "TypeError",
    "InvalidArgumentError",
    "UnavailableError",
    "DeadlineExceededError",
    "ServerError",
    "OSError",
)


def methods_with_options(client):
    functions = inspect.getmembers(client, inspect.isfunction)
    return [
        name for name, function in functions if "options" in inspect.signature(function).parameters and name[0] != "_"
    ]


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("name", methods_with_options(Client))
def test_help_of_a_method_names_every_argument_and_the_errors(client, name):
    text = pydoc.plain(pydoc.render_doc(getattr(client, name)))
    keywords = {"run": RunOptions, "stream": CallOptions}.get(name, TaskOptions).__optional_keys__
    arguments = [
        each for each in inspect.signature(getattr(client, name)).parameters if each not in ("self", "options")
    ]
    for documented in (*arguments, *keywords, *ERRORS):
        assert re.search(rf"^ +\|? *(\w+, )?{documented}(, \w+)*: \S", text, re.MULTILINE), documented
    assert ("TruncatedAnswerError: " in text) == (name in TASK_METHODS)


@pytest.mark.parametrize("option", ["num_beams", "length_penalty", "no_repeat_ngram_size", "priority"])
def test_help_states_the_range_of_an_option(option):
    text = inspect.getdoc(Client.detect)
    (described,) = re.findall(rf"^    {option}: (.*?)(?=^    \w+: )", text, re.MULTILINE | re.DOTALL)
    assert re.search(r"\d", described)
    assert " to " in " ".join(described.split())


def test_all_methods_that_send_requests_are_covered():
    assert set(methods_with_options(Client)) == {*TASK_METHODS, *PLAN_METHODS, "run", "stream", "map"}
    assert methods_with_options(Client) == methods_with_options(AsyncClient)


def test_a_summary_stays_that_of_its_own_method():
    assert inspect.getdoc(AsyncClient.detect).startswith("Detect objects, with category names. See `Client.detect`.\n")


@pytest.mark.parametrize("name", ["is_ready", "health", "close"])
def test_both_clients_describe_a_method_alike(name):
    details = [inspect.getdoc(getattr(client, name)).partition("\n")[2] for client in (Client, AsyncClient)]
    assert details[0] == details[1]
