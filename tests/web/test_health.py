"""Probes: `/live` and `/ready`."""

import logging
import threading
from dataclasses import replace

import httpx2
import pytest
from florence2.testing import MockTransport

from tests.web.conftest import STOP_SECONDS, respond

ADDRESS = "replica-7:8001"


class FailingTransport(MockTransport):
    """A mock of a server whose health tests choose."""

    def __init__(self):
        super().__init__(respond)
        self.state = {}
        self.calls = 0

    async def health_async(self, timeout):
        self.calls += 1
        (health,) = await super().health_async(timeout)
        return [replace(health, url=ADDRESS, **self.state)]


@pytest.fixture
def no_cache(monkeypatch):
    monkeypatch.setattr("florence2.web.health._CACHED_SECONDS", 0)


def test_a_process_in_front_of_a_server_is_live_and_ready(door_url):
    for path in ("/live", "/ready"):
        assert httpx2.get(door_url + path, timeout=STOP_SECONDS).status_code == 200


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"server_is_live": False, "model_is_ready": False, "engine": "unreachable"}, "does not respond"),
        ({"model_is_ready": False, "engine": "unreachable"}, "has not loaded the model"),
        ({"engine": "starting"}, "the engine is starting"),
        ({"engine": "failed"}, "the engine is failed"),
    ],
)
@pytest.mark.usefixtures("no_cache")
def test_ready_follows_the_engine_down_and_up_and_the_log_says_so_once(app_client, caplog, state, reason):
    transport = FailingTransport()
    client = app_client(transport=transport)
    with caplog.at_level(logging.INFO, "florence2.web"):
        assert client.get("/ready").status_code == 200
        transport.state = {**state, "reason": "connection refused"}
        for _ in range(3):
            answer = client.get("/ready")
            assert answer.status_code == 503
        assert client.get("/live").status_code == 200
        transport.state = {}
        assert client.get("/ready").status_code == 200
    assert reason in answer.json()["models"][0]["servers"][0]["reason"]
    assert ADDRESS not in answer.text
    changes = [record.getMessage() for record in caplog.records if record.name == "florence2.web"]
    assert len(changes) == 2
    assert ADDRESS in changes[0]
    assert "connection refused" in changes[0]


def test_many_probes_ask_the_servers_once(app_client, monkeypatch):
    monkeypatch.setattr("florence2.web.health._CACHED_SECONDS", 600)
    transport = FailingTransport()
    client = app_client(transport=transport)
    threads = [threading.Thread(target=client.get, args=("/ready",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert transport.calls == 1
