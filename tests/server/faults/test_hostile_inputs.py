"""Inputs that mean harm are refused or answered right, and change nothing."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import grpc
import pytest
from florence2.v1 import TaskResponse
from florence2_adapter.wire import Encoding, parse_request
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.reference import Question, Reference, assert_equal_but_for_ties
from tests.server.conftest import children_of
from tests.server.faults.hostile import Attacker, Hostile
from tests.server.looks import WAIT_SECONDS, held_by
from tests.server.wire_requests import only_element

pytestmark = pytest.mark.faults

HOSTILE_CALLERS = 16
HOSTILE_INPUTS = 20_000
COMPARED_ANSWERS = 200
# What mutation makes of a request may be a good question with an answer of a thousand tokens, which takes longer than
# anybody waits here.
MAX_NEW_TOKENS = 64
# What looks like a special token in a caller's words is plain text here, and a special token or an error there.
NOT_COMPARED = "special tokens in text"
# As our client does: Triton refuses all requests that it hands over together with one whose tensors are cut.
REFUSED_WITH_ANOTHER = "incomplete string data for inference input"
ATTEMPTS = 20


@dataclass(frozen=True)
class Outcome:
    """What became of an input.

    Attributes:
        text: of the answer; None where there is none.
        attempts: it was refused before, with another caller's.
    """

    hostile: Hostile
    status: grpc.StatusCode
    text: str | None = None
    attempts: int = 1


def test_hostile_inputs_are_refused_or_answered_right_and_change_nothing(start_server, reference, figure):
    # A small cache, full of embeddings before memory is looked at for the first time. The engine's memory goes up and
    # down by a tenth with the sizes of the images that it is at.
    server = start_server(FLORENCE2_EMBEDDING_CACHE_BYTES="4000000", FLORENCE2_MAX_NEW_TOKENS=str(MAX_NEW_TOKENS))
    before = children_of(server.process_id)
    attacker = Attacker(seed=0)
    with grpc.insecure_channel(server.grpc_url) as channel:
        warm = run_attack(channel, attacker, HOSTILE_INPUTS // 10)
        held = held_by(server)
        outcomes = warm + run_attack(channel, attacker, HOSTILE_INPUTS - HOSTILE_INPUTS // 10)
    answered = [outcome for outcome in outcomes if outcome.text is not None]
    figure("hostile inputs", len(outcomes))
    figure("of them refused", len(outcomes) - len(answered))
    figure("asked again, because Triton had refused them with another", sum(each.attempts > 1 for each in outcomes))
    for process_id, after in held_by(server).items():
        growth = after.resident / held[process_id].resident
        figure(f"resident memory of {after.name}, of that after the first tenth", growth, at_most=1.1)
        assert growth < 1.25
    fitting = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    assert {(each.hostile.kind, each.status) for each in outcomes if each.status not in fitting} == set()
    assert {each.hostile.kind for each in outcomes if each.hostile.is_good == (each.text is None)} == set()
    assert children_of(server.process_id) == before
    comparable = [each for each in answered if each.hostile.kind != NOT_COMPARED]
    compared = random.Random(1).sample(comparable, min(COMPARED_ANSWERS, len(comparable)))
    questions = [question_of(reference, each.hostile) for each in compared]
    texts = [reference.text(question) for question in questions]
    assert_equal_but_for_ties(questions, [each.text for each in compared], texts)
    figure("answers held against generate()", len(compared))


def run_attack(channel, attacker: Attacker, inputs: int) -> list[Outcome]:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    with ThreadPoolExecutor(HOSTILE_CALLERS) as callers:
        return list(callers.map(partial(outcome_of, stub), [attacker.next() for _ in range(inputs)]))


def outcome_of(stub, hostile: Hostile) -> Outcome:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            response = stub.ModelInfer(hostile.on_the_wire(), timeout=WAIT_SECONDS)
        except grpc.RpcError as error:
            if hostile.lies or REFUSED_WITH_ANOTHER not in error.details():
                return Outcome(hostile, error.code(), attempts=attempt)
        else:
            return Outcome(hostile, grpc.StatusCode.OK, text_of(response, hostile), attempt)
    raise AssertionError(f"refused {ATTEMPTS} times with others: {hostile}")


def text_of(response: service_pb2.ModelInferResponse, hostile: Hostile) -> str:
    data = only_element(response.raw_output_contents[0])
    _, encoding = parse_request(hostile.request)
    answer = TaskResponse.FromString(data) if encoding is Encoding.BINARY else json_format.Parse(data, TaskResponse())
    return str(answer.text)


def question_of(reference: Reference, hostile: Hostile) -> Question:
    """What was asked, by who knows the server's limit."""
    request, _ = parse_request(hostile.request)
    if not request.generation.HasField("max_new_tokens"):
        request.generation.max_new_tokens = MAX_NEW_TOKENS
    return reference.question_of(hostile.image, request)
