"""What the stub asks of Triton, and when. Triton is a fake here: the real one crashes if the order is wrong."""

import ast
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import florence2_server
import grpc
import pytest
from florence2_server.environment import START_ERROR_FILE
from florence2_server.errors import ConfigError
from florence2_server.stub.answers import UnaryAnswer
from florence2_server.stub.pending_request import PendingRequest

from tests.stub.conftest import FakeModelError, FakeSender, FakeTritonRequest

PACKAGE = Path(florence2_server.__file__).parent


class SlowTritonRequest(FakeTritonRequest):
    """Counts the checks for cancellation while or after the response is sent: Triton 2.51 ends with SIGSEGV there."""

    def __init__(self) -> None:
        super().__init__()
        self.sending = False
        self.checks = 0
        self.late_checks = 0

    def get_response_sender(self) -> "SlowTritonRequest":
        return self

    def send(self, _response, **_flags) -> None:
        self.sending = True
        time.sleep(0.001)

    def is_cancelled(self) -> bool:
        self.checks += 1
        for _ in range(5):
            time.sleep(0.0002)
            self.late_checks += self.sending
        return False


def test_an_answered_request_is_never_checked_for_cancellation(triton):
    checks = 0
    for _ in range(20):
        request = SlowTritonRequest()
        incoming = triton.Triton({}).request(request)
        pending = PendingRequest(incoming)
        pending.answer = UnaryAnswer(incoming)
        answered = threading.Event()

        def sweep(pending=pending, answered=answered) -> None:
            while not answered.is_set():
                pending.is_cancelled()

        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        time.sleep(0.002)
        pending.fail(grpc.StatusCode.INTERNAL, "so it is")
        pending.is_cancelled()
        answered.set()
        sweeper.join()
        assert request.sending
        assert request.late_checks == 0
        checks += request.checks
    assert checks


@pytest.fixture
def start_error(tmp_path, monkeypatch):
    """The file of start errors."""
    file = tmp_path / "start-error"
    monkeypatch.setenv(START_ERROR_FILE, str(file))
    return file


@pytest.mark.parametrize(
    ("error", "message", "has_traceback"),
    [
        (ConfigError("slots: got 0,\n  expected more"), "slots: got 0, expected more", False),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device", True),
        (RuntimeError("first line\nsecond line"), "RuntimeError: first line second line", True),
        (AssertionError(), "AssertionError", True),
    ],
)
def test_every_error_of_a_start_is_reported_in_one_line(triton, start_error, caplog, error, message, has_traceback):
    with pytest.raises(FakeModelError) as raised, triton.load_errors(ConfigError):
        raise error
    assert str(raised.value) == message
    assert start_error.read_text() == f"{message}\n"
    assert ("Traceback" in caplog.text) == has_traceback


def test_a_start_without_an_error_reports_none(triton, start_error):
    with triton.load_errors(ConfigError):
        pass
    assert not start_error.exists()


def test_a_request_has_its_callers_id_and_trace_context(triton):
    request = triton.Triton({}).request(FakeTritonRequest())
    assert request.request_id == "a request"
    assert request.traceparent.startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")


def test_the_inputs_are_copied_and_tritons_request_is_released_at_once(triton):
    original = FakeTritonRequest(image=b"an image")
    alive = weakref.ref(original)
    request = triton.Triton({}).request(original)
    original.sender = None
    del original
    assert request.input("IMAGE").tolist() == [[b"an image"]]
    assert request.input("REQUEST").shape == (1, 1)
    assert alive() is None


def test_tritons_timeout_is_in_microseconds(triton):
    request = FakeTritonRequest()
    assert triton.Triton({}).request(request).queue_timeout is None
    request.microseconds = 2_500_000
    assert triton.Triton({}).request(request).queue_timeout == 2.5


def test_the_responses_of_a_batch_are_one_column(triton):
    request = FakeTritonRequest()
    triton.Triton({}).request(request).respond([b"first", b"second"])
    (((first,), (second,)),) = request.sent[0]
    assert (first, second) == (b"first", b"second")


def test_an_event_of_a_stream_is_a_response_of_its_own_and_the_end_has_none(triton):
    request = FakeTritonRequest()
    calls = []
    request.sender.send = lambda *response, flags=0: calls.append((response, flags))
    stream = triton.Triton({}).stream(request)
    stream.emit(b"first")
    stream.emit(b"second")
    request.sender.cancelled = True
    assert stream.is_cancelled()
    stream.end()
    assert [(response[0][0].tolist() if response else None, flags) for response, flags in calls] == [
        ([b"first"], 0),
        ([b"second"], 0),
        (None, triton.pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL),
    ]
    assert not stream.is_cancelled(), "Triton crashes if an ended stream is checked"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARG"),
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
        (grpc.StatusCode.CANCELLED, "CANCELLED"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, "INTERNAL"),
        (grpc.StatusCode.FAILED_PRECONDITION, "INTERNAL"),
    ],
)
def test_a_status_of_grpc_has_its_code_in_triton(triton, status, code):
    request = FakeTritonRequest()
    triton.Triton({}).request(request).fail(status, "so it is")
    (error,) = request.sent
    assert (error.code, str(error)) == (code, "so it is")


def test_a_time_series_is_created_once_and_called_by_one_thread_at_a_time(triton, monkeypatch):
    """Checks, sends and metrics of all requests share one lock."""
    inside, most = 0, 0

    def call(*_args, **_kwargs) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.0005)
        inside -= 1

    class Family:
        COUNTER, GAUGE, HISTOGRAM = range(3)

        def __init__(self, **_arguments) -> None:
            self.created = 0
            families.append(self)

        def Metric(self, **_arguments):  # noqa: N802 - Triton's name
            call()
            self.created += 1
            return SimpleNamespace(increment=call, set=call, observe=call)

    families: list[Family] = []
    monkeypatch.setattr(triton.pb_utils, "MetricFamily", Family, raising=False)
    server = triton.Triton({})
    counter, histogram = server.counter("requests", ""), server.histogram("seconds", "", [1.0])
    monkeypatch.setattr(FakeSender, "is_cancelled", call)
    request = server.request(FakeTritonRequest())

    def work() -> None:
        for _ in range(5):
            counter.with_labels(task="caption").increment(1)
            histogram.with_labels(task="caption").observe(1)
            request.is_cancelled()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert [family.created for family in families] == [1, 1]


def test_every_time_series_has_the_labels_of_its_stub(triton, monkeypatch):
    created = []

    class Family:
        COUNTER, GAUGE, HISTOGRAM = range(3)

        def __init__(self, **_arguments) -> None:
            pass

        def Metric(self, labels, **_arguments):  # noqa: N802 - Triton's name
            created.append(labels)

    monkeypatch.setattr(triton.pb_utils, "MetricFamily", Family, raising=False)
    server = triton.Triton({"model": "captions", "engine": "1"})
    info = server.gauge("info", "")
    info.with_labels(revision="a")
    info.with_labels(revision="a")
    info.clear()
    info.with_labels(revision="a")
    assert created == [{"model": "captions", "engine": "1", "revision": "a"}] * 2


def test_one_module_imports_the_backends_utilities():
    imports = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom) and "triton_python_backend_utils" in ast.unparse(node)
    }
    assert imports == {"stub/triton.py"}
