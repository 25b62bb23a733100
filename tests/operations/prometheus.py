"""A Prometheus server process that scrapes servers under test."""

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from florence2_server.tritonserver import Ports

from tests.deploy.conftest import debian_tool
from tests.server.observation import seconds_until

STOP_SECONDS = 30


@dataclass(frozen=True)
class Target:
    """A metrics page, and the labels that a service discovery gives it.

    Attributes:
        port: on the loopback interface.
        labels: such as `job`, `namespace` and `instance`.
    """

    port: int
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """A time series.

    Attributes:
        labels: with `__name__`.
        samples: pairs of Unix time in seconds and value.
    """

    labels: dict[str, str]
    samples: list[tuple[float, float]]

    @classmethod
    def of(cls, answer: dict) -> "Series":
        """Parse an element of a matrix."""
        return cls(answer["metric"], [(time, float(value)) for time, value in answer["values"]])


class Prometheus:
    """A Prometheus server; a context manager that starts it, waits until it is ready, and stops it.

    Args:
        folder: an empty folder for its configuration, data and log.
        rules: the file of rules, parsed.
        interval: of scrapes and evaluations, in Prometheus's notation.
        lookback: for how long a sample is valid, in Prometheus's notation.
        relabel: `metric_relabel_configs` of the scrapes.
    """

    def __init__(
        self, folder: Path, rules: dict, interval: str = "1s", lookback: str = "5m", relabel: Sequence[dict] = ()
    ) -> None:
        self._folder = folder
        self._relabel = list(relabel)
        port = Ports.free().http
        self._url = f"http://127.0.0.1:{port}"
        self.set_targets([])
        (folder / "rules.yml").write_text(yaml.safe_dump(rules, sort_keys=False))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(self._configuration(interval)))
        self._command = [
            debian_tool("prometheus", "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--query.lookback-delta={lookback}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]

    def __enter__(self) -> "Prometheus":
        with (self._folder / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        try:
            seconds_until(self._is_ready)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait(STOP_SECONDS)

    def set_targets(self, targets: Sequence[Target]) -> None:
        """Replace the targets of the service discovery, whose changes Prometheus takes over within five seconds."""
        entries = [{"targets": [f"127.0.0.1:{each.port}"], "labels": each.labels} for each in targets]
        new = self._folder / "targets.new"
        new.write_text(json.dumps(entries))
        new.replace(self._folder / "targets.json")

    def query(self, expression: str) -> list[dict]:
        """Evaluate an expression to a vector, or to a matrix of raw samples if it ends with a range."""
        url = f"{self._url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def samples(self, selector: str, seconds: float) -> list[Series]:
        """The samples of the last seconds, as they were scraped."""
        return [Series.of(each) for each in self.query(f"{selector}[{seconds * 1000:.0f}ms]")]

    def active_alerts(self) -> list[dict]:
        """The pending and firing alerts, with their annotations."""
        with urllib.request.urlopen(f"{self._url}/api/v1/alerts", timeout=10) as answer:
            return json.load(answer)["data"]["alerts"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _configuration(self, interval: str) -> dict:
        discovery = [{"files": [str(self._folder / "targets.json")]}]
        scrape = {"job_name": "florence2", "file_sd_configs": discovery, "metric_relabel_configs": self._relabel}
        return {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(self._folder / "rules.yml")],
            "scrape_configs": [scrape],
        }
