"""The servers of the outages, as releases that Prometheus scrapes."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from florence2_server.repository import write_model
from florence2_server.served_model import DEFAULT_NAME, SUFFIXES, ServedModel
from florence2_server.tritonserver import TritonServer

from tests.operations import directed_engine
from tests.operations.prometheus import Target

START_SECONDS = 180
NAMESPACE = "default"
MODEL = DEFAULT_NAME
SECOND_MODEL = "captions"  # of the server with two engines

HEALTHY = "florence2-healthy"
SLUGGISH = "florence2-sluggish"
OVERLOADED = "florence2-overloaded"
STUCK = "florence2-stuck"
ENGINES = "florence2-engines"
# Not a server of its own, but the healthy one's page once more.
GONE = "florence2-gone"

# In seconds; far above what the demo checkpoint takes, so that only prompts that say so are slow.
SLUGGISH_OBJECTIVE = 3.0
OVERLOADED_OBJECTIVE = 1.0
QUEUE_REQUESTS = 12

SETTINGS: dict[str, dict[str, str]] = {
    HEALTHY: {},
    SLUGGISH: {"FLORENCE2_OBJECTIVE_LONG_SECONDS": str(SLUGGISH_OBJECTIVE)},
    OVERLOADED: {
        "FLORENCE2_OBJECTIVE_LONG_SECONDS": str(OVERLOADED_OBJECTIVE),
        "FLORENCE2_QUEUE_REQUESTS": str(QUEUE_REQUESTS),
        "FLORENCE2_SLOTS": "1",
        "FLORENCE2_AHEAD": "0",
    },
    STUCK: {},
    ENGINES: {},
}


class Releases:
    """Servers, each of them a release; a context manager that starts and stops all of them.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stay_away = folder / "stay-away"
        self.servers: dict[str, TritonServer] = {}

    def __enter__(self) -> "Releases":
        # A start takes a core for seconds: no more of them at once than machines of CI have cores.
        with ExitStack() as stack, ThreadPoolExecutor(2) as starts:
            list(starts.map(lambda job: self._start(stack, job), SETTINGS))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(TritonServer.stop, self.servers.values()))
        self._stack.close()

    def targets(self, *, without: str = "") -> list[Target]:
        """All targets but those of one release. The release of the engines has the healthy server as second replica."""
        pages = [(job, server) for job, server in self.servers.items()]
        pages += [(GONE, self.servers[HEALTHY]), (ENGINES, self.servers[HEALTHY])]
        targets, numbers = [], dict.fromkeys([job for job, _ in pages], 0)
        for job, server in pages:
            labels = {"namespace": NAMESPACE, "job": job, "instance": instance(job, numbers[job])}
            targets.append(Target(server.ports.metrics, labels))
            numbers[job] += 1
        return [each for each in targets if each.labels["job"] != without]

    def _start(self, stack: ExitStack, job: str) -> None:
        log = stack.enter_context((self._folder / f"{job}.log").open("wb"))
        self.servers[job] = stack.enter_context(self._server(job, log))
        self.servers[job].wait_until_ready(START_SECONDS)

    def _server(self, job: str, log: IO[bytes]) -> TritonServer:
        environment = {
            "FLORENCE2_ENGINE_MODULE": directed_engine.__file__,
            "FLORENCE2_THREADS": "1",
            directed_engine.STAYS_AWAY: str(self.stay_away),
            **SETTINGS[job],
        }
        if job != ENGINES:
            return TritonServer(environment=environment, log=log)
        folders = _with_two_engines(self._folder / "models")
        return TritonServer(environment=environment, log=log, models=[ServedModel(SECOND_MODEL)], folders=folders)


def instance(job: str, number: int = 0) -> str:
    """The label of a release's replica."""
    return f"{job}-{number}:8002"


def _with_two_engines(folder: Path) -> list[Path]:
    """The Triton models of a served model with two CPU engines in place of two GPUs."""
    write_model(folder, ServedModel(MODEL))
    config = folder / MODEL / "config.pbtxt"
    one = "instance_group [ { kind: KIND_AUTO count: 1 } ]"
    assert one in config.read_text()
    config.write_text(config.read_text().replace(one, "instance_group [ { kind: KIND_CPU count: 2 } ]"))
    return [folder / (MODEL + suffix) for suffix in SUFFIXES]
