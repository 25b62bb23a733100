"""The memory of the images of unanswered requests stays within its limit, however many callers send large ones."""

import io
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import PIL.Image
import pytest
from florence2.v1 import TaskRequest

from tests.server.conftest import children_of
from tests.server.observation import (
    anonymous_bytes,
    engine_of,
    memory_file_bytes,
    metric,
    metric_sum,
    seconds_until,
    shared_memory_files,
)
from tests.server.wire_requests import MODEL_INFER, infer_request

pytestmark = pytest.mark.faults

SIDE = 1826  # pixels: ten megabytes as BMP
REPETITIONS = 5
REFUSED_CALLERS = 4
REFUSED_SECONDS = 3
ADMITTED_SECONDS = 1


def test_a_queue_full_of_large_images_stays_within_its_limit(start_server, figure):
    server = start_server(FLORENCE2_SLOTS="1")
    limit = metric(server, "florence2_queue_limit_bytes")
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "BMP")
    # Long answers, one at a time, so that hardly any ends meanwhile.
    request = TaskRequest(ocr={}, generation={"min_new_tokens": 1000, "num_beams": 8})
    message = infer_request(file.getvalue(), request.SerializeToString()).SerializeToString()
    with grpc.insecure_channel(server.grpc_url, [("grpc.max_send_message_length", -1)]) as channel:
        send = channel.unary_unary(MODEL_INFER)
        empty = memory_of(server)
        fulls, peaks, refused = [], [], 0
        for _ in range(REPETITIONS):
            calls = filled(send, message)
            refused += 1
            seconds_until(lambda: metric(server, "florence2_waiting_image_bytes") > limit - 3 * len(message))
            fulls.append(memory_of(server) - empty)
            peak, count = peak_while_refusing(server, send, message)
            peaks.append(peak - empty)
            refused += count
            for call in calls:
                call.cancel()
            seconds_until(lambda: metric(server, "florence2_waiting_image_bytes") == 0)
    figure("queue full of 10 MB images: requests in it", len(calls))
    figure("queue full of 10 MB images: memory, relative to the limit, maximum", max(fulls) / limit, at_most=1.2)
    figure("the same, while four callers are refused", max(peaks) / limit, at_most=1.2)
    figure("the same, the fifth time relative to the first", fulls[-1] / fulls[0], at_most=1.02)
    figure("the same after all callers have left", (memory_of(server) - empty) / limit)
    # Those whose caller was too slow to see them are counted, too.
    seconds_until(lambda: metric_sum(server, "florence2_refusals_total", reason="bytes") >= refused, limit=10)
    assert max(fulls) <= 1.2 * limit
    assert fulls[-1] <= 1.1 * fulls[0]


def filled(send, message: bytes) -> list[grpc.Future]:
    """Send requests, one after the other, until one is refused. Returns the others."""
    calls = []
    while True:
        calls.append(send.future(message))
        time.sleep(0.05)  # so that they arrive one by one
        if calls[-1].done():
            assert calls.pop().code() is grpc.StatusCode.UNAVAILABLE
            return calls


def peak_while_refusing(server, send, message: bytes) -> tuple[int, int]:
    """The maximum memory while callers send further requests, and how many of those are refused."""
    end = time.monotonic() + REFUSED_SECONDS

    def refusals() -> int:
        count = 0
        while time.monotonic() < end:
            # One is admitted if an answer has made room.
            count += send.future(message, timeout=ADMITTED_SECONDS).code() is grpc.StatusCode.UNAVAILABLE
        return count

    with ThreadPoolExecutor(REFUSED_CALLERS) as callers:
        counts = [callers.submit(refusals) for _ in range(REFUSED_CALLERS)]
        peak = 0
        while time.monotonic() < end:
            peak = max(peak, memory_of(server))
            time.sleep(0.02)
        return peak, sum(each.result() for each in counts)


def memory_of(server) -> int:
    """The bytes that tritonserver and its stubs hold, with what they share; without the engine."""
    process_ids = {server.process_id, *children_of(server.process_id)} - {engine_of(server)}
    own = sum(anonymous_bytes(each) + memory_file_bytes(each) for each in process_ids)
    shared = set().union(*map(shared_memory_files, process_ids))
    return own + sum(file.stat().st_blocks * 512 for file in shared)
