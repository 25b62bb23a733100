"""Three replicas and one client: each replica is stopped and replaced in turn, and no request fails."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from florence2 import Client
from florence2.errors import Florence2Error
from florence2_server.tritonserver import Ports, TritonServer

from tests.reference import TASKS, png
from tests.server.observation import metrics_page, requests_counted, seconds_until
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

pytestmark = pytest.mark.deploy

REPLICAS = 3
CALLERS = 12
START_SECONDS = 180
STEADY_REQUESTS = 150
REQUEST_SECONDS = 60


class Fleet:
    """Replicas; a replacement listens on the ports of the replica that it replaces."""

    def __init__(self, folder) -> None:
        self._folder = folder
        self._started = 0
        self.replicas = [self._start(Ports.free()) for _ in range(REPLICAS)]

    @property
    def urls(self) -> list[str]:
        return [replica.grpc_url for replica in self.replicas]

    def replace(self, number: int, **settings: str) -> None:
        """Stop a replica as an orchestrator does, start another in its place, and wait until it is ready."""
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
            seconds_until(lambda: _has_metrics(replica))  # Triton opens this port last
        except BaseException:
            replica.stop()
            raise
        return replica

    def answered(self) -> list[float]:
        """Return how many requests each replica has answered."""
        return [requests_counted(replica) for replica in self.replicas]


class Load:
    """Concurrent callers of one client; every answer is compared with the right one."""

    def __init__(self, client: Client, cases, expected) -> None:
        self._client = client
        self._pairs = list(zip(cases, expected, strict=True))
        self._stop = threading.Event()
        self.requests = 0
        self.faults: list[str] = []

    def __enter__(self) -> "Load":
        self._pool = ThreadPoolExecutor(CALLERS)
        self._runs = [self._pool.submit(self._run, number) for number in range(CALLERS)]
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._pool.shutdown()

    def wait_for(self, requests: int) -> None:
        """Wait until this many more requests have ended."""
        enough = self.requests + requests
        seconds_until(lambda: self.requests >= enough, limit=START_SECONDS)

    def raise_unexpected(self) -> None:
        """Raise any exception of a caller that is not an error of the client."""
        for run in self._runs:
            run.result()

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            case, text = self._pairs[number % len(self._pairs)]
            number += CALLERS + 1
            try:
                answer = self._client.run(case.image, case.request)
            except Florence2Error as error:
                self.faults.append(f"{type(error).__name__}: {error}")
            else:
                if answer.text != text:
                    self.faults.append(f"{case}: {answer.text!r}")
            self.requests += 1


def _has_metrics(replica: TritonServer) -> bool:
    try:
        return bool(metrics_page(replica))
    except OSError:
        return False


def spread(before: list[float], after: list[float]) -> float:
    """Return the ratio of the answers of the busiest replica to those of the least busy one, between two counts."""
    counts = [there - here for here, there in zip(before, after, strict=True)]
    return max(counts) / max(1, min(counts))


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.stop()


def test_replicas_are_replaced_in_turn_and_no_request_fails(fleet, reference, figure):
    scene = png(draw(sample_scene(41)))
    cases = [reference.case(scene, task, {"max_new_tokens": 10}) for task in TASKS]
    expected = [reference.text(case) for case in cases]
    with Client(fleet.urls, timeout=REQUEST_SECONDS) as client, Load(client, cases, expected) as load:
        load.wait_for(CALLERS)
        begin = fleet.answered()
        load.wait_for(STEADY_REQUESTS)
        before = spread(begin, fleet.answered())
        for number in range(REPLICAS):
            fleet.replace(number, FLORENCE2_SLOTS="17")  # as an upgrade would
            seconds_until(lambda number=number: requests_counted(fleet.replicas[number]) > 0)
        begin = fleet.answered()
        load.wait_for(STEADY_REQUESTS)
        after = spread(begin, fleet.answered())
    load.raise_unexpected()
    figure("replicas replaced under load: requests", load.requests)
    figure("replicas replaced under load: failed requests", len(load.faults), at_most=0)
    figure("load of the busiest replica by that of the least busy, before", before, at_most=1.3)
    figure("load of the busiest replica by that of the least busy, after", after, at_most=1.3)
    assert load.faults == []
    assert max(before, after) < 2
