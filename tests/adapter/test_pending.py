"""What a pending request may ask of Triton, and when. Triton is a fake here: the real one dies of the mistake."""

import importlib
import sys
import threading
import time
from types import SimpleNamespace

import pytest


class FakeTritonRequest:
    """Notes every look at a request whose answer is sent or being sent: Triton 2.51 ends with SIGSEGV there."""

    def __init__(self) -> None:
        self.sending = False
        self.looks = 0
        self.looks_too_late = 0

    def get_response_sender(self) -> "FakeTritonRequest":
        return self

    def send(self, _response, **_flags) -> None:
        self.sending = True
        time.sleep(0.001)

    def request_id(self) -> str:
        return "a request"

    def parameters(self) -> str:
        return '{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}'

    def is_cancelled(self) -> bool:
        self.looks += 1
        for _ in range(5):
            time.sleep(0.0002)
            self.looks_too_late += self.sending
        return False


@pytest.fixture
def pending_request(monkeypatch):
    """The class, with what Triton's stub would give it."""
    fake = SimpleNamespace(
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        InferenceResponse=lambda **fields: fields,
        TritonError=lambda message, code: (message, code),
        Tensor=lambda name, array: (name, array),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    monkeypatch.delitem(sys.modules, "florence2_adapter.pending", raising=False)
    yield importlib.import_module("florence2_adapter.pending").PendingRequest
    sys.modules.pop("florence2_adapter.pending", None)


def test_triton_is_not_asked_about_a_request_that_is_answered(pending_request):
    looks = 0
    for _ in range(20):
        request = FakeTritonRequest()
        pending = pending_request(request, threading.Lock())
        pending.expect_rows(1)
        answered = threading.Event()

        def sweep(pending=pending, answered=answered) -> None:
            while not answered.is_set():
                pending.cancelled_by_caller()

        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        time.sleep(0.002)
        pending.succeed(0, b"")
        pending.cancelled_by_caller()
        answered.set()
        sweeper.join()
        assert request.sending
        assert request.looks_too_late == 0
        looks += request.looks
    assert looks
