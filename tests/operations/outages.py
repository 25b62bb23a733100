"""One run of real servers through all outages that alerts are for, as seen by a real Prometheus with the real rules.

All durations of the rules are divided by one constant; what a server does itself, such as restarting an engine, is not.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from florence2_server.tritonserver import TritonServer

from tests.operations.load import Callers, picture, prompt
from tests.operations.prometheus import Prometheus, Series
from tests.operations.releases import (
    ENGINES,
    GONE,
    HEALTHY,
    MODEL,
    NAMESPACE,
    OVERLOADED,
    SECOND_MODEL,
    SLUGGISH,
    SLUGGISH_OBJECTIVE,
    STUCK,
    Releases,
    instance,
)
from tests.operations.scaling import LOOKBACK_SECONDS, SCALE, SCRAPE_SECONDS, divided, divided_rules, selected_names
from tests.server.conftest import children_of
from tests.server.observation import ENGINE_ARGUMENT, metric_sum, seconds_until

LIMIT_SECONDS = 100
QUIET_SECONDS = 4  # before the first outage, so that each alert has a time at which it does not fire
# QueueGrowing compares with the queue 15 minutes ago, which must have been scraped.
EARLIER_SECONDS = 900 / SCALE
STAY_SECONDS = 1  # in which the alert goes on firing
CRASHES = 3
FIRING = 'ALERTS{alertstate="firing"}'


@dataclass(frozen=True)
class Outage:
    """An outage that was provoked, and the alert that it must raise.

    Attributes:
        alert: the alert's name.
        labels: all labels of the firing alert but its name and its severity.
        began: Unix time at which the outage began.
        ended: Unix time at which it was over; None if it lasts until the end of the run, or if nothing is promised.
    """

    alert: str
    labels: dict[str, str]
    began: float
    ended: float | None = None

    @property
    def job(self) -> str:
        """The release; empty if the alert is about none."""
        return self.labels.get("job", "")


@dataclass
class Run:
    """What happened.

    Attributes:
        began: Unix time of Prometheus's start.
        ended: Unix time at which all alerts had fired, before the servers are stopped.
        outages: what was provoked.
        alerts: the series of firing alerts.
        series: all scraped series that the rules use.
        annotations: of the alerts that fired, by name and release.
        slots: as the alert Florence2QueueGrowing sums them, by release and served model.
    """

    began: float
    ended: float = 0.0
    outages: list[Outage] = field(default_factory=list)
    alerts: list[Series] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    annotations: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    slots: dict[tuple[str, str], float] = field(default_factory=dict)

    def firing(self, outage: Outage) -> list[float]:
        """The times at which an outage's alert was firing."""
        found = [each for each in self.alerts if is_of(outage, each.labels)]
        return sorted(time for each in found for time, _ in each.samples)


def is_of(outage: Outage, labels: dict[str, str]) -> bool:
    """Whether a series of ALERTS belongs to an outage."""
    identity = {name: value for name, value in labels.items() if name not in ("__name__", "alertstate", "severity")}
    return identity == {"alertname": outage.alert, **outage.labels}


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """A Prometheus with the project's rules, all durations divided."""
    interval, lookback = divided(f"{SCRAPE_SECONDS}s"), divided(f"{LOOKBACK_SECONDS}s")
    with Prometheus(folder, divided_rules(), interval, lookback) as running:
        yield running


def run_all(folder: Path) -> Run:
    """Start everything, provoke every outage, wait for every alert, and stop everything.

    Args:
        folder: an empty folder.
    """
    (folder / "prometheus").mkdir()
    with prometheus(folder / "prometheus") as watching:
        stage = Stage(watching, Run(time.time()))
        with Releases(folder) as releases:
            stage.provoke_all(releases)
            stage.read()
    return stage.run


class Stage:
    """Provokes outages.

    Args:
        watching: scrapes the releases.
        run: what happens is added to it.
    """

    def __init__(self, watching: Prometheus, run: Run) -> None:
        self._prometheus = watching
        self.run = run
        self._discovery = threading.Lock()

    def provoke_all(self, releases: Releases) -> None:
        """Provoke all outages, side by side, beside a release that stays healthy."""
        self._releases = releases
        self._expect("Florence2Down", self.run.began, {})
        self._prometheus.set_targets(releases.targets())
        pages = len(releases.targets())
        seconds_until(lambda: len(self._prometheus.query("up == 1")) == pages)
        healthy = Callers(releases.servers[HEALTHY], lambda _: (picture(0), prompt("a car")), pause=0.2)
        with healthy.calling(1), ThreadPoolExecutor() as outages:
            time.sleep(QUIET_SECONDS)
            for each in self._prometheus.query("sum by (namespace, job, model) (avg_over_time(florence2_slots[5s]))"):
                self.run.slots[each["metric"]["job"], each["metric"]["model"]] = float(each["value"][1])
            provocations = (self._sluggish, self._overloaded, self._stuck, self._engines, self._gone)
            for each in [outages.submit(provoke) for provoke in provocations]:
                each.result()
            self.run.ended = time.time()

    def read(self) -> None:
        """Read what Prometheus knows about the run."""
        seconds = time.time() - self.run.began
        self.run.alerts = self._prometheus.samples(FIRING, seconds)
        for name in selected_names():
            self.run.series += self._prometheus.samples(name, seconds)

    def _sluggish(self) -> None:
        """One request in fifty fails, and one is slow; no image is sent twice.

        That is a third of the slow requests that page: a busy machine that makes some more of them slow pages nobody.
        """
        slow, failing = f"sleep {SLUGGISH_OBJECTIVE + 0.5}", f"sleep {SLUGGISH_OBJECTIVE + 5}"

        def request(number: int):
            image = picture(number)
            if number % 50 == 49:
                return image, prompt(failing, timeout=SLUGGISH_OBJECTIVE + 0.2)
            return image, prompt(slow if number % 50 == 10 else "a car")

        began = time.time()
        with Callers(self._releases.servers[SLUGGISH], request).calling(8):
            labels = _labels(SLUGGISH)
            self._expect("Florence2ErrorBudgetBurnSlow", began, labels)
            self._expect("Florence2LatencyBudgetBurnSlow", began, labels | {"task_class": "long"})
            self._expect("Florence2ImageCacheUseless", began, labels)

    def _overloaded(self) -> None:
        """More and more callers for a single slot; in the end, all of them leave."""
        time.sleep(EARLIER_SECONDS)
        callers = Callers(self._releases.servers[OVERLOADED], lambda _: (picture(0), prompt("sleep 0.3")), pause=0.3)
        began = time.time()
        labels = _labels(OVERLOADED)
        with callers.calling(18, every=0.5):
            self._expect("Florence2LatencyBudgetBurnFast", began, labels | {"task_class": "long"})
            seconds_until(lambda: callers.first_error_at is not None)
            self._expect("Florence2ErrorBudgetBurnFast", callers.first_error_at, labels)
            self._expect("Florence2QueueGrowing", began, labels)
            full = self._expect(
                "Florence2QueueFull", callers.first_error_at, labels | {"instance": instance(OVERLOADED)}
            )
            ended = time.time()  # the callers end once the requests that wait are answered
        self.run.outages.remove(full)
        self.run.outages.append(Outage(full.alert, full.labels, full.began, ended=ended))
        seconds_until(lambda: not self._is_firing(full), LIMIT_SECONDS)

    def _stuck(self) -> None:
        """No request is answered before its deadline, or before its caller leaves; then the server is killed."""
        server = self._releases.servers[STUCK]

        def request(number: int):
            return picture(0), prompt("sleep 6", timeout=1.0 if number % 2 else 0.0)

        began = time.time()
        callers = Callers(server, request, patience=lambda number: 5.0 if number % 2 else 1.0)
        with callers.calling(4, every=0.25):
            self._expect("Florence2DeadlineStorm", began, _labels(STUCK))
            engine = {"engine": "0", "instance": instance(STUCK)}
            self._expect("Florence2NoAnswers", began, _labels(STUCK) | engine)
        began = time.time()
        os.kill(server.process_id, signal.SIGKILL)
        self._expect("Florence2Down", began, _release(STUCK))

    def _engines(self) -> None:
        """One of two engines stays away, the other crashes again and again; then a stub is killed, then the server."""
        server = self._releases.servers[ENGINES]
        labels = _labels(ENGINES) | {"instance": instance(ENGINES)}
        self._releases.stay_away.touch()
        began = time.time()
        os.kill(_engine(server, 1), signal.SIGKILL)
        self._expect("Florence2EngineDown", began, labels | {"engine": "1"})
        self._releases.stay_away.unlink()
        began = time.time()
        for crashes in range(CRASHES):
            seconds_until(lambda: _of_engine_zero(server, "florence2_engine_up") == 1)
            os.kill(_engine(server, 0), signal.SIGKILL)
            seconds_until(lambda known=crashes: _of_engine_zero(server, "florence2_engine_restarts_total") > known)
        self._expect("Florence2EngineRestarting", began, labels | {"engine": "0"})
        began = time.time()
        os.kill(_stub(server, SECOND_MODEL, 0), signal.SIGKILL)
        self._expect("Florence2EngineDown", began, labels | {"model": SECOND_MODEL, "engine": "0"})
        began = time.time()
        os.kill(server.process_id, signal.SIGKILL)
        self._expect("Florence2ReplicaDown", began, _release(ENGINES) | {"instance": instance(ENGINES)})

    def _gone(self) -> None:
        """The service discovery forgets a release."""
        self._prometheus.set_targets(self._releases.targets(without=GONE))
        seconds_until(lambda: not self._prometheus.query(f'up{{job="{GONE}"}}'))
        (up,) = self._prometheus.samples(f'up{{job="{GONE}"}}', LIMIT_SECONDS)
        # Prometheus takes the change over some seconds later, whatever the scale.
        self._expect("Florence2Down", up.samples[-1][0], _release(GONE))

    def _expect(self, alert: str, began: float, labels: dict[str, str]) -> Outage:
        """Wait until an alert is firing."""
        outage = Outage(alert, labels, began)
        self.run.outages.append(outage)
        seconds_until(lambda: self._is_firing(outage), LIMIT_SECONDS)
        time.sleep(STAY_SECONDS)
        return outage

    def _is_firing(self, outage: Outage) -> bool:
        time.sleep(0.2)
        for each in self._prometheus.active_alerts():
            if each["state"] == "firing" and is_of(outage, each["labels"]):
                self.run.annotations[outage.alert, outage.job] = each["annotations"]
                return True
        return False


def _release(job: str) -> dict[str, str]:
    return {"namespace": NAMESPACE, "job": job}


def _labels(job: str) -> dict[str, str]:
    return _release(job) | {"model": MODEL}


def _of_engine_zero(server: TritonServer, metric: str) -> float:
    return metric_sum(server, metric, model=MODEL, engine="0")


def _engine(server: TritonServer, number: int) -> int:
    """The process id of one of a server's engines, by the name that Triton gives its stub."""
    stub_name = f"{MODEL}_0_{number}".encode()
    for child in children_of(server.process_id):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process ended meanwhile
            parent = psutil.Process(child).ppid()
            if ENGINE_ARGUMENT in _arguments(child) and stub_name in _arguments(parent):
                return child
    raise AssertionError(f"engine {number} is not running")


def _stub(server: TritonServer, model: str, number: int) -> int:
    """The process id of one of a model's stubs."""
    name = f"{model}_0_{number}".encode()
    for child in children_of(server.process_id):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process ended meanwhile
            if name in _arguments(child) and ENGINE_ARGUMENT not in _arguments(child):
                return child
    raise AssertionError(f"stub {number} of {model} is not running")


def _arguments(process_id: int) -> list[bytes]:
    return Path(f"/proc/{process_id}/cmdline").read_bytes().split(b"\0")
