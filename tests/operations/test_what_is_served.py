"""What is served, wherever an operator looks: every place says the same, and it is true."""

import json
import os
import re
import subprocess
import sys
import urllib.error
from dataclasses import dataclass

import pytest
from florence2 import Client
from florence2_server import __version__

from tests.conftest import DEMO_CHECKPOINT
from tests.hub import COMMIT, Hub
from tests.operations.foreground import Foreground, foreground
from tests.operations.probes import DIRECT, PROBE_SECONDS
from tests.operations.test_health import command

NAME = "owner/captions"
CHECKPOINT = f"{NAME}@main"
# None of them is a default.
SETTINGS = {"FLORENCE2_SLOTS": "5", "FLORENCE2_DTYPE": "bfloat16", "FLORENCE2_DEVICE": "cpu"}
SENTENCE = re.compile(
    r"florence2-triton (?P<version>\S+) serves (?P<checkpoint>[^@\s]+)@(?P<revision>\w+) \((?P<layout>\w+) layout\) "
    r"on (?P<device>\S+) in (?P<dtype>\w+) with (?P<slots>\d+) slots$"
)
LABEL = re.compile(r'(\w+)="([^"]*)"')
CHECK_SECONDS = 120


@dataclass(frozen=True)
class Served:
    """What a place says; numbers as they are written there."""

    version: str
    checkpoint: str
    revision: str
    layout: str
    device: str
    dtype: str
    slots: str

    @classmethod
    def of_words(cls, line: str) -> "Served":
        """Read the sentence at the end of a line."""
        found = SENTENCE.search(line)
        assert found, line
        return cls(**found.groupdict())

    @classmethod
    def of_fields(cls, fields: dict) -> "Served":
        """Take the fields out of others."""
        return cls(**{name: str(fields[name]) for name in cls.__annotations__})


EXPECTED = Served(__version__, NAME, COMMIT, "native", "cpu", "bfloat16", "5")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The settings, and a hub that has the checkpoint."""
    with Hub({NAME: DEMO_CHECKPOINT}) as hub:
        yield SETTINGS | hub.environment(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def server(environment, tmp_path_factory):
    with foreground(tmp_path_factory.mktemp("server"), FLORENCE2_CHECKPOINT=CHECKPOINT, **environment) as server:
        server.wait_until_ready()
        yield server


def in_the_log(server: Foreground) -> Served:
    """Of the lines before the one that says that the server is ready."""
    ready = next(number for number, line in enumerate(server.log) if "] ready: " in line)
    (line,) = [line for line in server.log[:ready] if " serves " in line]
    return Served.of_words(line)


def in_the_metrics(server: Foreground) -> Served:
    url = f"http://127.0.0.1:{server.ports.metrics}/metrics"
    with DIRECT.open(url, timeout=PROBE_SECONDS) as response:
        (line,) = [line for line in response.read().decode().splitlines() if line.startswith("florence2_info{")]
    return Served.of_fields(dict(LABEL.findall(line)))


def in_readiness(server: Foreground) -> Served:
    url = f"http://127.0.0.1:{server.ports.health}/ready"
    with DIRECT.open(url, timeout=PROBE_SECONDS) as response:
        (model,) = json.loads(response.read())["models"].values()
    (engine,) = model["engines"]
    return Served.of_fields({"version": model["version"], **engine})


def in_the_health_command(server: Foreground) -> Served:
    status, line, _ = command(server.url, "--ready")
    assert status == 0, line
    return Served.of_words(line)


def in_the_client(server: Foreground) -> Served:
    with Client(server.url) as client:
        (info,) = client.server_info()
    (engine,) = info.engines
    return Served.of_fields({"version": info.version, **vars(engine)})


def in_the_check(environment: dict[str, str]) -> Served:
    """Of `florence2-server check`, which needs no server."""
    done = subprocess.run(
        [sys.executable, "-m", "florence2_server", "check", CHECKPOINT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(re.split(r"  +", line, maxsplit=1) for line in done.stdout.splitlines() if re.match(r"\S.*  ", line))
    dtype, device = said["served dtype"].split(" on ")
    slots = re.search(r"for (\d+) slots", said["cache memory"])
    assert slots
    return Served(
        version=said["served by"].removeprefix("florence2-triton "),
        checkpoint=said["checkpoint"].removesuffix("@main"),
        revision=said["revision"],
        layout=said["layout"],
        device=device,
        dtype=dtype,
        slots=slots[1],
    )


def is_ready(server: Foreground) -> bool:
    try:
        return bool(in_readiness(server))
    except urllib.error.HTTPError:
        return False


def test_the_log_metrics_readiness_the_commands_and_the_client_agree(server, environment, figure):
    server.wait_until(lambda: is_ready(server))
    looks = (in_the_log, in_the_metrics, in_readiness, in_the_health_command, in_the_client)
    found = {look.__name__: look(server) for look in looks}
    found["in_the_check"] = in_the_check(environment)
    figure(f"O3: places that agree on what is served, of {len(found)}", list(found.values()).count(EXPECTED))
    assert found == dict.fromkeys(found, EXPECTED)
