"""The previous client with this server, and this client with the previous server (docs/upgrading.md)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import EXAMPLE_SCENE, ROOT
from tests.deploy.conftest import python_tool
from tests.operations import every_task
from tests.operations.previous_release import check_out

RUN_SECONDS = 60
# Two waiting requests are the limit of both servers, so that their clients have to retry.
QUEUE_LIMIT = "2"


@pytest.fixture(scope="module")
def previous(tmp_path_factory):
    return check_out(tmp_path_factory.mktemp("previous"))


@pytest.fixture(scope="module")
def server(start_server):
    return start_server(FLORENCE2_QUEUE_REQUESTS=QUEUE_LIMIT)


@pytest.fixture(scope="module")
def current(server):
    """The outcomes of this client with this server: what the others are compared with."""
    return outcomes(sys.executable, server.grpc_url)


@pytest.fixture(scope="module")
def of_previous_server(previous):
    """The outcomes of this client with the previous server."""
    config = previous.folder / "model_repository" / "florence2" / "configs" / "cpu.pbtxt"
    config.write_text(config.read_text().replace("max_queue_size: 256", f"max_queue_size: {QUEUE_LIMIT}"))
    with previous.serving() as ports:
        return outcomes(sys.executable, f"127.0.0.1:{ports.grpc}")


def outcomes(python: Path | str, url: str) -> dict:
    """Run every_task.py with an interpreter's client. Returns what it printed."""
    command = [python, every_task.__file__, url, EXAMPLE_SCENE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def is_same(one: object, other: object) -> bool:
    """Whether two results agree in every field that both have; numbers may differ by rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        common = one.keys() & other.keys()
        return bool(common) and all(is_same(one[key], other[key]) for key in common)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-3, abs=1e-3)
    return one == other


def is_same_error(one: dict, other: dict) -> bool:
    """Whether two outcomes are errors of one class; messages have new wording, and fields are named by their path."""
    return bool(one["error"] == other["error"])


def compare(pair: str, found: dict, expected: dict, figure) -> None:
    """Check results and errors, and report how many of them agreed."""
    for kind, agree in (("results", is_same), ("errors", is_same_error)):
        pairs = {name: (outcome, expected[kind][name]) for name, outcome in found[kind].items()}
        different = {name: both for name, both in pairs.items() if not agree(*both)}
        figure(f"{pair}: {kind} that agreed, of {len(pairs)}", len(pairs) - len(different))
        assert not different
    assert [outcome for outcome in expected["results"].values() if "answer" not in outcome] == []
    assert found["refusals"] > 0, "no request was refused, so that none was retried"


def test_the_previous_client_gets_the_same_results_from_this_server(previous, server, current, figure):
    found = outcomes(previous.python, server.grpc_url)
    assert found["client"].startswith(str(previous.folder)), "the previous client was not used"
    compare("previous client, this server", found, current, figure)


def test_this_client_gets_the_same_results_from_the_previous_server(of_previous_server, current, figure):
    compare("this client, previous server", of_previous_server, current, figure)


def test_what_the_previous_server_lacks_is_a_typed_error(of_previous_server, current, figure):
    assert [name for name, outcome in current["features"].items() if "answer" not in outcome] == []
    found = {name: outcome for name, outcome in of_previous_server["features"].items() if "penalty" not in name}
    typed = [name for name, outcome in found.items() if "Florence2Error" in outcome.get("error", ())]
    figure(f"this client, previous server: missing features with a typed error, of {len(found)}", len(typed))
    assert typed == list(found)
    for name in ("task list", "caption, then grounding", "region analysis", "large array"):
        assert found[name]["error"][0] == "InvalidArgumentError"
    assert found["stream"]["error"][0] == "ModelNotFoundError"
    assert found["server info"]["error"][0] == "ServerError"


def test_the_previous_server_ignores_an_option_that_it_does_not_know(of_previous_server, current):
    """That is why servers are updated before clients."""
    current, previous = current["features"], of_previous_server["features"]
    assert current["repetition penalty"] != current["no repetition penalty"]
    assert previous["repetition penalty"] == previous["no repetition penalty"] == current["no repetition penalty"]


def test_no_message_changed_in_a_way_that_other_languages_would_notice(previous):
    """Neither in protobuf nor in JSON."""
    rules = json.dumps({"version": "v2", "breaking": {"use": ["WIRE_JSON"]}})
    command = [
        python_tool("buf"),
        "breaking",
        ROOT / "protos",
        "--against",
        previous.folder / "protos",
        "--config",
        rules,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
