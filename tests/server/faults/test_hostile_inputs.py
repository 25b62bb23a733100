"""Hostile inputs are rejected or answered correctly, and leave no trace."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import grpc
import pytest
from florence2.v1 import TaskResponse
from florence2_server.stub.wire import Encoding, parse_request
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.reference import Case, Reference, assert_equal_except_near_ties
from tests.server.conftest import children_of
from tests.server.faults.hostile import Attacker, Hostile
from tests.server.observation import WAIT_SECONDS, held_by
from tests.server.wire_requests import only_element

pytestmark = pytest.mark.faults

HOSTILE_CALLERS = 16
HOSTILE_INPUTS = 20_000
COMPARED_ANSWERS = 200
# A mutated request may be a valid one with an answer of a thousand tokens, which takes longer than this test waits.
MAX_NEW_TOKENS = 64
# Special tokens in a caller's text are plain text here, but special tokens or errors in the reference.
NOT_COMPARED = "special tokens in text"


@dataclass(frozen=True)
class Response:
    """The server's response to an input.

    Attributes:
        text: the answer; None if the input was rejected.
    """

    hostile: Hostile
    status: grpc.StatusCode
    text: str | None = None


def test_hostile_inputs_are_rejected_or_answered_correctly_and_leak_nothing(start_server, reference, figure):
    # The cache is small, so that it is full before memory is first measured. The engine's memory varies by a tenth with
    # the sizes of the images that it is decoding.
    server = start_server(FLORENCE2_EMBEDDING_CACHE_BYTES="4000000", FLORENCE2_MAX_NEW_TOKENS=str(MAX_NEW_TOKENS))
    before = children_of(server.process_id)
    attacker = Attacker(seed=0)
    with grpc.insecure_channel(server.grpc_url) as channel:
        warm_up = run_attack(channel, attacker, HOSTILE_INPUTS // 10)
        held = held_by(server)
        responses = warm_up + run_attack(channel, attacker, HOSTILE_INPUTS - HOSTILE_INPUTS // 10)
    answered = [each for each in responses if each.text is not None]
    figure("hostile inputs", len(responses))
    figure("of them rejected", len(responses) - len(answered))
    for process_id, after in held_by(server).items():
        growth = after.resident / held[process_id].resident
        figure(f"resident memory of {after.name}, relative to that after the first tenth", growth, at_most=1.1)
        assert growth < 1.25
    expected = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    assert {(each.hostile.kind, each.status) for each in responses if each.status not in expected} == set()
    assert {each.hostile.kind for each in responses if each.hostile.is_good == (each.text is None)} == set()
    assert children_of(server.process_id) == before
    comparable = [each for each in answered if each.hostile.kind != NOT_COMPARED]
    compared = random.Random(1).sample(comparable, min(COMPARED_ANSWERS, len(comparable)))
    cases = [case_of(reference, each.hostile) for each in compared]
    texts = [reference.text(case) for case in cases]
    assert_equal_except_near_ties(cases, [each.text for each in compared], texts)
    figure("answers compared with generate()", len(compared))


def run_attack(channel, attacker: Attacker, inputs: int) -> list[Response]:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    with ThreadPoolExecutor(HOSTILE_CALLERS) as callers:
        return list(callers.map(partial(response_to, stub), [attacker.next() for _ in range(inputs)]))


def response_to(stub, hostile: Hostile) -> Response:
    try:
        response = stub.ModelInfer(hostile.on_the_wire(), timeout=WAIT_SECONDS)
    except grpc.RpcError as error:
        return Response(hostile, error.code())
    return Response(hostile, grpc.StatusCode.OK, text_of(response, hostile))


def text_of(response: service_pb2.ModelInferResponse, hostile: Hostile) -> str:
    data = only_element(response.raw_output_contents[0])
    _, encoding = parse_request(hostile.request)
    answer = TaskResponse.FromString(data) if encoding is Encoding.BINARY else json_format.Parse(data, TaskResponse())
    return str(answer.text)


def case_of(reference: Reference, hostile: Hostile) -> Case:
    """The reference's answer to the same request, under the server's limit of new tokens."""
    request, _ = parse_request(hostile.request)
    if not request.generation.HasField("max_new_tokens"):
        request.generation.max_new_tokens = MAX_NEW_TOKENS
    return reference.case_of(hostile.image, request)
