"""Streams of real engines that are killed."""

import os
import signal
import threading

import pytest
from florence2_server.config import EngineConfig, SupervisionConfig
from florence2_server.supervision.engine_process import EngineProcess
from florence2_server.supervision.pending_generation import PendingGeneration
from florence2_server.supervision.supervisor import EngineState, EngineSupervisor
from florence2_server.v1.engine_pb2 import GeneratedTokens, GenerateRequest, GenerateResponse, PromptPart

from tests.conftest import DEMO_CHECKPOINT
from tests.supervision.fleet import Fleet, wait_for

WAIT = 120


class Streamed:
    """A streamed generation, and the tokens that were passed on for it."""

    def __init__(self, supervisor: EngineSupervisor, request: GenerateRequest) -> None:
        self.passed: list[GeneratedTokens] = []
        self.generation = PendingGeneration(request, describe=str, on_tokens=self.passed.append)
        supervisor.submit(self.generation)

    def assert_complete(self) -> GenerateResponse:
        """Everything that was passed on is the response."""
        response = self.generation.completion.result(WAIT)
        assert "".join(tokens.text for tokens in self.passed) == response.text
        assert [end for tokens in self.passed for end in tokens.token_ends] == list(response.token_ends)
        scores = [score for tokens in self.passed for score in tokens.token_log_probabilities]
        assert scores == list(response.token_log_probabilities)
        masses = [mass for tokens in self.passed for mass in tokens.token_masses]
        assert masses == list(response.token_masses)
        assert len(masses) == len(scores)
        return response


@pytest.fixture
def engines() -> list[EngineProcess]:
    """The engines that were launched, in order."""
    return []


@pytest.fixture
def supervisor(engines, tmp_path_factory):
    sockets = tmp_path_factory.mktemp("s")

    def launch() -> EngineProcess:
        engines.append(EngineProcess(EngineConfig(checkpoint=str(DEMO_CHECKPOINT), device="cpu", slots=2), sockets))
        return engines[-1]

    supervisor = EngineSupervisor(launch, SupervisionConfig(), Fleet())
    supervisor.start()
    yield supervisor
    supervisor.close()


def requests(image: bytes) -> list[GenerateRequest]:
    """More generations than there are slots: greedy and with beams."""
    prompts = ("What does the image describe?", "Locate the objects in the image.")
    return [
        GenerateRequest(
            image=image,
            prompt=[PromptPart(text=prompt)],
            generation={"num_beams": beams, "min_new_tokens": 120, "max_new_tokens": 150},
        )
        for beams in (1, 3)
        for prompt in prompts
    ]


def test_streams_go_on_after_their_engine_was_killed(supervisor, engines, image_file):
    image = image_file(seed=1)
    streams = [Streamed(supervisor, request) for request in requests(image)]
    for launched in (1, 2):
        kill_while_streaming(supervisor, engines, launched, streams)
    responses = [stream.assert_complete() for stream in streams]
    assert len(engines) == 3
    for request, response in zip(requests(image), responses, strict=True):
        supervisor.submit(unary := PendingGeneration(request, describe=str))
        assert unary.completion.result(WAIT).text == response.text


def kill_while_streaming(
    supervisor: EngineSupervisor, engines: list[EngineProcess], launched: int, streams: list[Streamed]
) -> None:
    """Kill the engine of that number once it has sent tokens that none before it had."""
    wait_for(lambda: len(engines) == launched and supervisor.state is EngineState.RUNNING, WAIT)
    before = sum(len(stream.passed) for stream in streams)
    wait_for(lambda: sum(len(stream.passed) for stream in streams) > before, WAIT)
    os.kill(engines[-1]._process.pid, signal.SIGKILL)


def test_a_cancelled_stream_frees_its_slot(supervisor, engines, image_file):
    first_tokens = threading.Event()
    long = GenerateRequest(
        image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"num_beams": 1, "min_new_tokens": 900}
    )
    streams = [
        PendingGeneration(long, describe=str, on_tokens=lambda _: first_tokens.set()) for _ in range(2)
    ]  # all slots
    for stream in streams:
        supervisor.submit(stream)
    assert first_tokens.wait(WAIT)
    for stream in streams:
        stream.cancel()
    short = PendingGeneration(
        GenerateRequest(image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"max_new_tokens": 2}), str
    )
    supervisor.submit(short)
    assert short.completion.result(WAIT).usage.generated_tokens == 2
    assert len(engines) == 1
