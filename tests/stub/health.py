"""Reports about models, and a caller of the ports for health."""

import urllib.error
import urllib.request

from florence2.v1 import EngineInfo, ServerInfo
from florence2_server.stub.health_report import Report

WAIT_SECONDS = 5


def report(**states: str) -> Report:
    engines = {name: [EngineInfo(name="0", state=state, slots=4)] for name, state in states.items()}
    return Report(tuple(ServerInfo(model=name, engines=engines[name]) for name in states))


READY = report(captions="running", documents="running")
HALF = report(captions="running", documents="failed")
STARTING = report(captions="running", documents="starting")


def fetch(port: int, path: str, host: str = "127.0.0.1", method: str = "GET") -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://{host}:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
