"""Inputs that mean harm are refused or answered, and change nothing."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.server.conftest import children_of, tensors
from tests.server.faults.hostile import Attacker, Hostile
from tests.server.looks import WAIT_SECONDS, held_by

pytestmark = pytest.mark.faults

HOSTILE_CALLERS = 16
HOSTILE_INPUTS = 20_000


def test_hostile_inputs_are_refused_or_answered_and_change_nothing(start_server, figure):
    # A small cache, full of embeddings before memory is looked at for the first time. The engine's memory goes up and
    # down by a tenth with the sizes of the images that it is at. What mutation makes of a request may be a good
    # question with an answer of a thousand tokens, which takes longer than anybody waits here.
    server = start_server(FLORENCE2_EMBEDDING_CACHE_BYTES="4000000", FLORENCE2_MAX_NEW_TOKENS="64")
    before = children_of(server.process_id)
    attacker = Attacker(seed=0)
    with triton.InferenceServerClient(server.grpc_url) as client:
        warm = run_attack(client, attacker, HOSTILE_INPUTS // 10)
        held = held_by(server)
        outcomes = warm + run_attack(client, attacker, HOSTILE_INPUTS - HOSTILE_INPUTS // 10)
    figure("hostile inputs", len(outcomes))
    figure("of them refused", sum(outcome != "answered" for _, outcome in outcomes))
    for process_id, after in held_by(server).items():
        growth = after.resident / held[process_id].resident
        figure(f"resident memory of {after.name}, of that after the first tenth", growth, at_most=1.1)
        assert growth < 1.25
    odd = {(hostile.kind, outcome) for hostile, outcome in outcomes if outcome not in ("answered", "INVALID_ARGUMENT")}
    assert odd == set()
    wrong = {
        (hostile.kind, outcome)
        for hostile, outcome in outcomes
        if hostile.is_good is not None and hostile.is_good != (outcome == "answered")
    }
    assert wrong == set()
    assert children_of(server.process_id) == before


def run_attack(client, attacker: Attacker, inputs: int) -> list[tuple[Hostile, str]]:
    with ThreadPoolExecutor(HOSTILE_CALLERS) as callers:
        return list(callers.map(partial(outcome_of, client), [attacker.next() for _ in range(inputs)]))


def outcome_of(client, hostile: Hostile) -> tuple[Hostile, str]:
    try:
        client.infer("florence2", tensors([hostile.image], [hostile.request]), client_timeout=WAIT_SECONDS)
    except InferenceServerException as error:
        return hostile, str(error.status()).removeprefix("StatusCode.")
    return hostile, "answered"
