"""Requests that the server refuses or rejects: at once, every one of them counted, and no other with them."""

import grpc
import pytest
from florence2.v1 import TaskRequest

from tests.server.faults.callers import percentile, send_at_once
from tests.server.observation import metric, metric_sum, seconds_until
from tests.server.wire_requests import element, infer_request

pytestmark = pytest.mark.faults

SIMULTANEOUS = 800
CUT_TENSORS = 10
REFUSED_WITHIN = 0.01  # seconds; a bucket of the histogram
SLOW_REFUSALS = 0.01  # the share that may take longer


def test_every_refusal_of_800_simultaneous_requests_is_counted(server, cases, figure):
    request = TaskRequest(ocr={}, generation={"min_new_tokens": 40, "max_new_tokens": 40, "num_beams": 1})
    message = infer_request(cases[0].image, request.SerializeToString())
    refusals, requests = refusals_counted(server), requests_unavailable(server)
    known, quick = refusal_seconds(server)
    endings = send_at_once(server.grpc_url, [message] * SIMULTANEOUS)
    refused = [each for each in endings if each.status is grpc.StatusCode.UNAVAILABLE]
    assert {each.status for each in endings} == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert len({each.text for each in endings if each.text}) == 1
    assert len(endings) - len(refused) >= metric(server, "florence2_queue_limit_requests")
    assert all("queue_requests: got " in each.details for each in refused)
    # A refusal is counted soon after its response.
    seconds_until(lambda: requests_unavailable(server) - requests == len(refused), limit=10)
    assert refusals_counted(server) - refusals == len(refused)
    assert metric_sum(server, "florence2_refusals_total", reason="requests") >= len(refused)
    counted, within = refusal_seconds(server)
    assert counted - known == len(refused)
    figure("800 requests at once: refused, and counted", len(refused))
    figure("800 requests at once: seconds to a refusal, p95", percentile([each.seconds for each in refused], 95))
    slow = 1 - (within - quick) / len(refused)
    figure(f"share of refusals that took the stub longer than {REFUSED_WITHIN} s", slow, at_most=SLOW_REFUSALS)


def test_a_request_with_a_cut_tensor_fails_alone(server, cases, expected, figure):
    """Its image's length prefix promises more bytes than there are."""
    good = [infer_request(case.image, case.request.SerializeToString()) for case in cases] * 2
    cut = infer_request(cases[0].image, cases[0].request.SerializeToString())
    cut.raw_input_contents[0] = element(cases[0].image)[:-1]
    messages = [*good]
    distance = len(good) // CUT_TENSORS
    positions = [number * (distance + 1) + distance // 2 for number in range(CUT_TENSORS)]
    for position in positions:
        messages.insert(position, cut)
    endings = send_at_once(server.grpc_url, messages)
    failed = [endings.pop(position) for position in reversed(positions)]
    assert len(endings) == len(good) == 64
    assert {each.status for each in failed} == {grpc.StatusCode.INVALID_ARGUMENT}
    figure("cut tensors amid 64 good requests: good ones that failed", sum(bool(each.details) for each in endings), 0)
    assert [each.details for each in endings if each.details] == []
    assert [each.text for each in endings] == expected * 2


def refusals_counted(server) -> float:
    return metric_sum(server, "florence2_refusals_total")


def requests_unavailable(server) -> float:
    return metric_sum(server, "florence2_requests_total", outcome="unavailable")


def refusal_seconds(server) -> tuple[float, float]:
    """The number of refusals that were timed, and of those among them that were quick."""
    name = "florence2_refusal_seconds"
    return metric_sum(server, f"{name}_count"), metric_sum(server, f"{name}_bucket", le=str(REFUSED_WITHIN))
