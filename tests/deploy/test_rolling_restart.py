"""Three replicas and one client: each replica is stopped and replaced in turn, and no caller notices."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from florence2 import Client
from florence2.errors import Florence2Error
from serve import Ports, TritonServer

from tests.reference import TASKS, png
from tests.server.looks import metrics_page, questions_counted, seconds_until
from training.sampling import sample_scene
from training.scenes import draw

pytestmark = pytest.mark.deploy

REPLICAS = 3
CALLERS = 12
START_SECONDS = 180
STEADY_CALLS = 150
CALL_SECONDS = 60


class Fleet:
    """Replicas, each on ports of its own, which it keeps when it is replaced."""

    def __init__(self, folder) -> None:
        self._folder = folder
        self._started = 0
        self.replicas = [self._start(Ports.free()) for _ in range(REPLICAS)]

    @property
    def urls(self) -> list[str]:
        return [replica.grpc_url for replica in self.replicas]

    def replace(self, number: int, **settings: str) -> None:
        """Stop a replica as an orchestrator does, and start another in its place; wait until it is ready."""
        self.replicas[number].stop()
        self.replicas[number] = self._start(self.replicas[number].ports, **settings)

    def stop(self) -> None:
        for replica in self.replicas:
            replica.stop()

    def _start(self, ports: Ports, **settings: str) -> TritonServer:
        self._started += 1
        with (self._folder / f"replica-{self._started}.log").open("wb") as log:
            replica = TritonServer(ports=ports, environment=settings, log=log)
            replica.start()
        try:
            replica.wait_until_ready(START_SECONDS)
            seconds_until(lambda: _has_metrics(replica))  # Triton opens their port last
        except BaseException:
            replica.stop()
            raise
        return replica

    def answered(self) -> list[float]:
        """How many questions each replica has answered."""
        return [questions_counted(replica) for replica in self.replicas]


class Load:
    """Callers who share one client; every answer is held against the right one."""

    def __init__(self, client: Client, questions, expected) -> None:
        self._client = client
        self._pairs = list(zip(questions, expected, strict=True))
        self._stop = threading.Event()
        self.calls = 0
        self.faults: list[str] = []

    def __enter__(self) -> "Load":
        self._pool = ThreadPoolExecutor(CALLERS)
        self._runs = [self._pool.submit(self._run, number) for number in range(CALLERS)]
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._pool.shutdown()

    def more(self, calls: int) -> None:
        """Wait for so many more calls."""
        enough = self.calls + calls
        seconds_until(lambda: self.calls >= enough, limit=START_SECONDS)

    def outcomes(self) -> None:
        """Raise what a caller met that is no error of the client's."""
        for run in self._runs:
            run.result()

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            question, text = self._pairs[number % len(self._pairs)]
            number += CALLERS + 1
            try:
                answer = self._client.run(question.image, question.request)
            except Florence2Error as error:
                self.faults.append(f"{type(error).__name__}: {error}")
            else:
                if answer.text != text:
                    self.faults.append(f"{question}: {answer.text!r}")
            self.calls += 1


def _has_metrics(replica: TritonServer) -> bool:
    try:
        return bool(metrics_page(replica))
    except OSError:
        return False


def spread(before: list[float], after: list[float]) -> float:
    """Of the answers in between, those of the replica with most by those of the one with fewest."""
    counts = [there - here for here, there in zip(before, after, strict=True)]
    return max(counts) / max(1, min(counts))


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.stop()


def test_replicas_are_replaced_in_turn_and_no_request_fails(fleet, reference, figure):
    scene = png(draw(sample_scene(41)))
    questions = [reference.question(scene, task, {"max_new_tokens": 10}) for task in TASKS]
    expected = [reference.text(question) for question in questions]
    with Client(fleet.urls, timeout=CALL_SECONDS) as client, Load(client, questions, expected) as load:
        load.more(CALLERS)
        begin = fleet.answered()
        load.more(STEADY_CALLS)
        before = spread(begin, fleet.answered())
        for number in range(REPLICAS):
            fleet.replace(number, FLORENCE2_SLOTS="17")  # an upgrade
            seconds_until(lambda number=number: questions_counted(fleet.replicas[number]) > 0)
        begin = fleet.answered()
        load.more(STEADY_CALLS)
        after = spread(begin, fleet.answered())
    load.outcomes()
    figure("replicas replaced under load: calls", load.calls)
    figure("replicas replaced under load: calls that failed", len(load.faults), at_most=0)
    figure("spread of load over replicas before, most by fewest", before, at_most=1.3)
    figure("spread of load over replicas after, most by fewest", after, at_most=1.3)
    assert load.faults == []
    assert max(before, after) < 2
