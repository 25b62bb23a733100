"""Triton's side of the stub, as a fake: what `triton_python_backend_utils` gives a Python model."""

import importlib
import sys
import tempfile
from concurrent.futures import Executor
from types import SimpleNamespace

import numpy as np
import pytest
from florence2.v1 import TaskRequest
from florence2_server.config import AdmissionConfig, RequestLimits
from florence2_server.stub.dispatcher import Dispatcher

ONE_AT_A_TIME = AdmissionConfig(ahead=0)


class FakeTritonError(Exception):
    """An error with a code, which is its name here."""

    INVALID_ARG, UNAVAILABLE, CANCELLED, INTERNAL = "INVALID_ARG", "UNAVAILABLE", "CANCELLED", "INTERNAL"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class FakeModelError(Exception):
    """What keeps a model from loading."""


class FakeSender:
    """A response sender.

    Attributes:
        sent: the responses; an error, or a list of output tensors.
    """

    def __init__(self) -> None:
        self.sent = []
        self.cancelled = False

    def send(self, response, **_flags) -> None:
        self.sent.append(response)

    def is_cancelled(self) -> bool:
        return self.cancelled


class FakeTritonRequest:
    """A request with one batch element, and its response sender."""

    def __init__(self, request: TaskRequest | None = None, image: bytes = b"an image") -> None:
        self.inputs = {"IMAGE": image, "REQUEST": (request or TaskRequest()).SerializeToString()}
        self.sender = FakeSender()
        self.sent = self.sender.sent
        self.microseconds = 0

    def request_id(self) -> str:
        return "a request"

    def parameters(self) -> str:
        return '{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}'

    def timeout(self) -> int:
        return self.microseconds

    def get_response_sender(self) -> FakeSender:
        return self.sender


class FakeEngine:
    """Where a dispatcher submits generations.

    Args:
        complete: called with each generation as soon as it is submitted; by default it is only noted.

    Attributes:
        submitted: the generations, in order.
    """

    def __init__(self, complete=lambda _: None) -> None:
        self.submitted = []
        self._complete = complete

    def submit(self, generation) -> None:
        self.submitted.append(generation)
        self._complete(generation)


class FakeMetrics:
    """What a dispatcher reports."""

    def __init__(self) -> None:
        self.outcomes, self.refusals, self.statistics = [], [], None

    def observe(self, outcome) -> None:
        self.outcomes.append(outcome)

    def count_refusal(self, reason: str, seconds: float) -> None:
        assert seconds < 60
        self.refusals.append(reason)

    def show(self, statistics) -> None:
        self.statistics = statistics


class AtOnce(Executor):
    """Runs everything at once, on the caller's thread."""

    def submit(self, function, /, *arguments):
        function(*arguments)


def dispatcher_of(engine, metrics: FakeMetrics, admission=ONE_AT_A_TIME, slots: int = 1, plans: Executor | None = None):
    """A dispatcher in front of a fake engine."""
    log = SimpleNamespace(write=lambda *_: None)
    return Dispatcher(engine, admission, slots, RequestLimits(), metrics, metrics, log, plans or AtOnce())


@pytest.fixture
def triton(monkeypatch):
    """The module `florence2_server.stub.triton`, upon a fake `triton_python_backend_utils`."""
    fake = SimpleNamespace(
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        InferenceResponse=lambda output_tensors, error=None: error or output_tensors,
        Tensor=lambda _, array: array,
        TritonError=FakeTritonError,
        TritonModelException=FakeModelError,
        get_input_tensor_by_name=lambda request, name: SimpleNamespace(
            as_numpy=lambda: np.array([[request.inputs[name]]], np.object_)
        ),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    monkeypatch.delitem(sys.modules, "florence2_server.stub.triton", raising=False)
    yield importlib.import_module("florence2_server.stub.triton")
    sys.modules.pop("florence2_server.stub.triton", None)


@pytest.fixture
def temporary_folder(tmp_path_factory, monkeypatch):
    """The folder of temporary files of the code under test."""
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
