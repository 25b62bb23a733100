"""Adapters in a server of two models, one of which has two engines: whose they are, and what operators see of them.

The tests use one server, in this order. `watched` has two engines and a folder of adapters, `paired` one engine and
pairs. Both have an adapter `tags`, and these are different.
"""

import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from florence2 import Client
from florence2.errors import InvalidArgumentError
from florence2.v1 import TaskRequest
from florence2_server.__main__ import main
from florence2_server.in_process import InProcess

from tests.operations.foreground import Foreground, foreground
from tests.server.observation import metric, metric_sum, metrics_page, seconds_until

WATCHED, PAIRED = "watched", "paired"
SOURCES = {WATCHED: {"tags": "adapter_notebook"}, PAIRED: {"tags": "adapter_small", "receipts": "adapter_notebook"}}
# Loaded by an operator into both engines of `watched`.
TRIED, TRIED_SOURCE = "tried", "adapter_small"
MOST_WATCHED, MOST_PAIRED = "4", "32"
CASES = tuple(product(("scene0.png", "scene1.png"), ("<CAPTION>", "<DocVQA>What is the total?")))
REQUESTS, LOAD = "florence2_adapter_requests_total", "florence2_lora_requests_info"
OF_ADAPTERS = ("florence2_adapter", "florence2_lora")
CHURN = 50


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny):
    folder, adapters = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("adapters")
    for name, source in SOURCES[WATCHED].items():
        shutil.copytree(tiny / source, adapters / name)
    pairs = ",".join(f"{name}={tiny / source}" for name, source in SOURCES[PAIRED].items())
    own = [f"{WATCHED}.adapters={adapters}", f"{WATCHED}.slots=2", f"{WATCHED}.max_adapters={MOST_WATCHED}"]
    options = [f"--model={name}={tiny}" for name in SOURCES]
    options += [f"--set={each}" for each in (*own, f"{PAIRED}.adapters={pairs}")]
    assert main(["repository", str(folder / "models"), *options]) == 0
    config = folder / "models" / WATCHED / "config.pbtxt"
    one, two = "instance_group [ { kind: KIND_AUTO count: 1 } ]", "instance_group [ { kind: KIND_CPU count: 2 } ]"
    assert one in config.read_text()
    config.write_text(config.read_text().replace(one, two))
    settings = {"FLORENCE2_AHEAD": "1", "FLORENCE2_THREADS": "1"}
    with foreground(folder, f"--model-repository={folder / 'models'}", **settings) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="module")
def alone(tiny):
    """`alone(source, case)`: the text of the answer with an adapter, or none, from an engine in this process."""
    sources = ("adapter_notebook", "adapter_small")
    transport = InProcess(tiny, device="cpu", dtype="float32", adapters={each: tiny / each for each in sources})
    with Client(transport=transport) as client:
        found = {
            (source, case): client.run(tiny / case[0], request(case[1], source)).text
            for source in ("", *sources)
            for case in CASES
        }
    for case in CASES:
        assert len({found[source, case] for source in ("", *sources)}) == 3, "each adapter changes each answer"
    return lambda source, case: found[source, case]


@pytest.fixture(scope="module")
def clients(server):
    """A client of each model, which sends each request once."""
    clients = {model: Client(server.url, model=model, retry=None) for model in SOURCES}
    yield clients
    for client in clients.values():
        client.close()


@pytest.fixture(scope="module")
def ask(clients, tiny):
    """`ask(model, adapter, case)`: the text of the answer."""

    def ask(model: str, adapter: str, case: tuple[str, str]) -> str:
        image, prompt = case
        return str(clients[model].run(tiny / image, request(prompt, adapter)).text)

    return ask


@pytest.fixture(scope="module")
def command(server):
    """`command(*arguments)`: what `florence2-server adapters` prints, which has to succeed unless `status` is given."""

    def command(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "florence2_server", "adapters", *arguments, *of_this(server)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return command


def request(prompt: str, adapter: str = "", **generation: int) -> TaskRequest:
    return TaskRequest(prompt=prompt, adapter=adapter, generation=generation or {"num_beams": 1, "max_new_tokens": 30})


def of_this(server: Foreground) -> list[str]:
    """The option that chooses a server."""
    return ["--tritonserver", str(server.tritonserver().pid)]


def load_of(server: Foreground) -> dict[tuple[str, str], dict[str, str]]:
    """What gateways read of each engine, by model and engine: each has one series."""
    lines = [line for line in metrics_page(server).splitlines() if line.startswith(f"{LOAD}{{")]
    found = [dict(re.findall(r'(\w+)="([^"]*)"', line)) for line in lines]
    by_engine = {(each.pop("model"), each.pop("engine")): each for each in found}
    assert len(by_engine) == len(lines)
    return by_engine


def series_of_adapters(server: Foreground) -> set[str]:
    """The time series of adapters but `(other)`; of those for gateways, whose labels change, the engines."""
    lines = [line for line in metrics_page(server).splitlines() if line.startswith(OF_ADAPTERS)]
    series = {line.rpartition(" ")[0] for line in lines if not line.startswith(LOAD)}
    return {each for each in series if "(other)" not in each} | {str(engine) for engine in load_of(server)}


def counted(server: Foreground, model: str, adapter: str, outcome: str = "ok") -> list[float]:
    """The requests that each engine of a model has counted."""
    engines = "01" if model == WATCHED else "0"
    labels = {"model": model, "adapter": adapter, "outcome": outcome}
    return [metric_sum(server, REQUESTS, engine=engine, **labels) for engine in engines]


def test_each_model_answers_with_its_own_adapters(server, ask, alone, figure):
    cases = [
        (model, name, source, case)
        for model, sources in SOURCES.items()
        for name, source in {"": "", **sources}.items()
        for case in CASES
        for _ in range(2)  # for each engine of `watched`
    ]
    with ThreadPoolExecutor(8) as callers:
        texts = list(callers.map(lambda each: ask(each[0], each[1], each[3]), cases))
    wrong = [each for each, text in zip(cases, texts, strict=True) if text != alone(each[2], each[3])]
    assert wrong == []
    figure("O10: answers of two models with adapters, equal to those in process", len(cases))
    for model, name in ((WATCHED, "tags"), (PAIRED, "tags"), (PAIRED, "receipts")):
        seconds_until(lambda m=model, n=name: sum(counted(server, m, n)) == 2 * len(CASES), limit=10)


@pytest.mark.parametrize(
    ("model", "adapter", "known"), [(WATCHED, "receipts", "tags"), (PAIRED, TRIED, "receipts, tags")]
)
def test_an_adapter_of_another_model_is_unknown_and_the_models_own_are_listed(server, ask, model, adapter, known):
    before = sum(counted(server, model, "(other)", "invalid_argument"))
    with pytest.raises(InvalidArgumentError) as raised:
        ask(model, adapter, CASES[0])
    assert f"adapter: got '{adapter}', expected one of {known}" in str(raised.value)
    seconds_until(lambda: sum(counted(server, model, "(other)", "invalid_argument")) == before + 1, limit=10)


def test_a_command_loads_into_all_engines_of_one_model(server, command, clients, ask, alone, tiny):
    assert "several models; choose one with --model: paired, watched" in command("list", status=1)
    line = command("load", f"{TRIED}={tiny / TRIED_SOURCE}", "--model", WATCHED)
    assert line.startswith(f"{TRIED} is served: rank ")
    rows = [row.split() for row in command("list", "--model", WATCHED).splitlines()]
    assert [(row[0], row[3]) for row in rows[1:]] == [("tags", "folder"), (TRIED, "command")], "of both"
    (info,) = clients[WATCHED].server_info()
    assert [engine.adapters for engine in info.engines] == [("tags", TRIED)] * 2
    assert [metric(server, "florence2_adapters", model=WATCHED, engine=engine) for engine in "01"] == [2, 2]
    assert metric(server, "florence2_adapters", model=PAIRED) == 2, "no more than before"
    with ThreadPoolExecutor(4) as callers:
        texts = list(callers.map(lambda _: ask(WATCHED, TRIED, CASES[1]), range(8)))
    assert set(texts) == {alone(TRIED_SOURCE, CASES[1])}
    seconds_until(lambda: sum(counted(server, WATCHED, TRIED)) == 8, limit=10)
    assert min(counted(server, WATCHED, TRIED)) > 0, "both engines have it"


def test_gateways_are_shown_which_adapters_run_and_wait_in_each_engine(server, clients, tiny):
    engines = {(WATCHED, "0"), (WATCHED, "1"), (PAIRED, "0")}
    idle = {"running_lora_adapters": "", "waiting_lora_adapters": ""}
    shown = set()

    def run(adapter: str, tokens: int) -> None:
        options = {"num_beams": 1, "min_new_tokens": tokens, "max_new_tokens": tokens}
        clients[WATCHED].run(tiny / "scene0.png", request("<CAPTION>", adapter, **options))

    def is_shown() -> bool:
        load = load_of(server)
        assert set(load) == engines
        assert load[PAIRED, "0"] == {"max_lora": MOST_PAIRED, **idle}
        for (_, engine), labels in load.items():
            running, waiting = (set(filter(None, labels[name].split(","))) for name in idle)
            assert running | waiting <= {"tags", TRIED}
            if running == {"tags"} and TRIED in waiting and labels["max_lora"] == MOST_WATCHED:
                shown.add(engine)
        return shown == {"0", "1"}

    with ThreadPoolExecutor(24) as callers:
        calls = [callers.submit(run, "tags", 300) for _ in range(8)]
        server.wait_until(lambda: metric_sum(server, "florence2_slots_in_use", model=WATCHED) == 4)
        calls += [callers.submit(run, TRIED, 20) for _ in range(8)]
        server.wait_until(is_shown)
        for call in calls:
            call.result()
    watched = {"max_lora": MOST_WATCHED, **idle}
    expected = {each: watched if each[0] == WATCHED else {**watched, "max_lora": MOST_PAIRED} for each in engines}
    seconds_until(lambda: load_of(server) == expected, limit=10)
    before = metric(server, LOAD, model=PAIRED)
    seconds_until(lambda: metric(server, LOAD, model=PAIRED) > before, limit=10)
    assert abs(metric(server, LOAD, model=PAIRED) - time.time()) < 10


def test_the_successor_of_a_killed_engine_has_the_same_adapters_before_it_answers(server, ask, alone, figure):
    before = counted(server, WATCHED, "tags"), counted(server, WATCHED, TRIED)
    engines = server.engines(f'"max_adapters": {MOST_WATCHED}')
    assert len(engines) == 2
    engines[0].kill()
    names = {"tags": "adapter_notebook", TRIED: TRIED_SOURCE}
    asked = [(name, case) for case in CASES for name in names for _ in range(3)]
    begin = time.monotonic()
    with ThreadPoolExecutor(len(asked)) as callers:
        texts = list(callers.map(lambda each: ask(WATCHED, *each), asked))
    figure("O10: seconds until all requests of a crash with adapters are answered", time.monotonic() - begin)
    assert texts == [alone(names[name], case) for name, case in asked]
    (engine,) = [each for each in "01" if restarts(server, each)]
    index = int(engine)
    for name, counts in zip(names, before, strict=True):
        seconds_until(lambda n=name, c=counts: counted(server, WATCHED, n)[index] > c[index], limit=10)
        assert counted(server, WATCHED, name, "invalid_argument") == [0, 0]
    assert [metric(server, "florence2_adapters", model=WATCHED, engine=each) for each in "01"] == [2, 2]


def restarts(server: Foreground, engine: str) -> float:
    return metric(server, "florence2_engine_restarts_total", model=WATCHED, engine=engine)


def test_adapters_that_come_and_go_leave_no_series(server, ask, alone, tiny, figure):
    before, most = series_of_adapters(server), 0
    assert before
    of_model = ["--model", WATCHED, *of_this(server)]
    for number in range(CHURN):
        name = f"passing-{number}"
        assert main(["adapters", "load", f"{name}={tiny / TRIED_SOURCE}", *of_model]) == 0
        assert ask(WATCHED, name, CASES[number % len(CASES)]) == alone(TRIED_SOURCE, CASES[number % len(CASES)])
        most = max(most, len(series_of_adapters(server)))
        assert main(["adapters", "unload", name, *of_model]) == 0
    figure(f"O10: time series of adapters while {CHURN} come and go", most)
    figure("O10: before and after that", len(before))
    assert series_of_adapters(server) == before
    seconds_until(lambda: "passing" not in metrics_page(server), limit=10)  # what gateways read is a second old
    # Requests that are counted after the adapter was unloaded are among the others.
    others = {line.rpartition(" ")[0] for line in metrics_page(server).splitlines() if "(other)" in line}
    assert len(others) <= 2 * len(load_of(server)), "one for each engine and outcome: ok and invalid_argument"
    # Of each engine, the memory of one more adapter, and its one outcome.
    assert most <= len(before) + 4
