"""Runs of the command against a real tritonserver, while either of them is killed."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from florence2_server.tritonserver import Ports, TritonServer

from tests.bulk.conftest import lines
from tests.server.conftest import START_SECONDS, children_of
from tests.server.observation import engine_of, is_gone, metric, seconds_until
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

RUN_SECONDS = 3000
TASK = "caption"


class Server:
    """A tritonserver that is started again at the same address after each kill."""

    def __init__(self, log: Path) -> None:
        self._ports = Ports.free()
        self._log = log.open("ab")
        self.running = self._start()
        self.running.wait_until_ready(START_SECONDS)

    @property
    def url(self) -> str:
        return str(self.running.grpc_url)

    def answered(self) -> float:
        """The number of requests that it has answered since it was started."""
        return metric(self.running, "nv_inference_request_success", model="florence2", version="1")

    def kill_engine(self) -> None:
        os.kill(engine_of(self.running), signal.SIGKILL)

    def kill(self) -> None:
        """Kill tritonserver and start another one."""
        children = children_of(self.running.process_id)
        self.running.process.kill()
        self.running.stop()
        seconds_until(lambda: all(map(is_gone, children)))  # they have its ports
        self.restart()

    def restart(self) -> None:
        """Start a tritonserver at the same address, after the last one has ended."""
        self.running = self._start()
        self.running.wait_until_ready(START_SECONDS)

    def close(self) -> None:
        self.running.stop()
        self._log.close()

    def _start(self) -> TritonServer:
        server = TritonServer(ports=self._ports, log=self._log)
        server.start()
        return server


def draw_scenes(folder: Path, count: int) -> Path:
    for number in range(count):
        path = folder / f"{number % 10}" / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(sample_scene(number)).resize((64, 64)).save(path)
    return folder


def start_command(source: Path, output: Path, url: str, *options: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "florence2.bulk",
        str(source),
        "--task",
        TASK,
        "-o",
        str(output),
        "--url",
        url,
        *options,
    ]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def run_with_kills(
    source: Path, output: Path, server: Server, kills: Sequence[str], most: int, seed: int
) -> Counter[str]:
    """Run the command to its end, while victims are killed after random numbers of answers.

    Args:
        source: the images.
        output: of the command.
        server: the server.
        kills: the victims in order: "command", "engine" or "server".
        most: the most answers between two kills.
        seed: of the random numbers.

    Returns:
        How often each was killed.
    """
    generator = random.Random(seed)
    killed: Counter[str] = Counter()
    process = start_command(source, output, server.url)
    try:
        for victim in kills:
            _wait_for_answers(server, generator.randint(1, most), process)
            if process.poll() is not None:
                break
            if victim == "command":
                process.kill()
                process.wait()
                process = start_command(source, output, server.url)
            elif victim == "engine":
                server.kill_engine()
            else:
                server.kill()
            killed[victim] += 1
        assert process.wait(RUN_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
    return killed


def _wait_for_answers(server: Server, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for that many more answers, or for the end of the command."""
    goal = server.answered() + count
    seconds_until(lambda: server.answered() >= goal or process.poll() is not None, RUN_SECONDS)


def assert_equal_outputs(disturbed: Path, undisturbed: Path) -> None:
    """Check that the outputs are the same but for usage and the last digits of scores, which depend on the batch."""
    found, expected = lines(disturbed), lines(undisturbed)
    assert [line["id"] for line in found] == [line["id"] for line in expected]
    found_scores: list[float] = []
    expected_scores: list[float] = []
    for one, other in zip(found, expected, strict=True):
        assert _without_scores(one, found_scores) == _without_scores(other, expected_scores)
    np.testing.assert_allclose(found_scores, expected_scores, atol=1e-3)


def _without_scores(value: Any, scores: list[float]) -> Any:
    if isinstance(value, dict):
        kept = {}
        for name, each in value.items():
            if "score" in name or "likelihood" in name:
                scores.append(each)
            elif name != "usage":
                kept[name] = _without_scores(each, scores)
        return kept
    return [_without_scores(each, scores) for each in value] if isinstance(value, list) else value
