"""`/v1/models`, and what is known of the servers behind them, over a mock of the server."""

import asyncio
import math

import pytest
from florence2 import AsyncClient
from florence2.errors import AccessDeniedError
from florence2.testing import MockTransport
from florence2.transports.protocol import EngineInfo, ServerInfo
from florence2.web.models import Models
from florence2.web.openai.served_models import ServedModels

from tests.web.chats import PATH, chat, content, error
from tests.web.conftest import respond


class Serving(MockTransport):
    """A server with an adapter, on a checkpoint of the hub."""

    def __init__(self) -> None:
        super().__init__(respond)
        self.asked = 0

    async def health_async(self, timeout):
        self.asked += 1
        engine = EngineInfo("0", "running", "owner/name", "0123abc", slots=4, adapters=("invoices",))
        (health,) = await super().health_async(timeout)
        info = ServerInfo(url="", version="0.1.0", model="florence2", engines=(engine,))
        return [type(health)(**{**vars(health), "info": info})]


def test_models_are_listed_with_their_tasks_and_adapters(app_client):
    listed = app_client(transport=Serving()).get("/v1/models").json()["data"]
    ids = [each["id"] for each in listed]
    assert ids[0] == "florence2"
    assert {"florence2:detect", "florence2:ground-caption", "florence2@invoices"} <= set(ids)
    assert len(set(ids)) == len(ids)
    assert {(each["object"], each["owned_by"]) for each in listed} == {("model", "florence2-triton")}


@pytest.mark.parametrize(("cached_seconds", "times"), [(math.inf, 1), (0.0, 3)])
def test_what_is_served_is_cached(cached_seconds, times):
    async def ask_thrice() -> int:
        transport = Serving()
        served = ServedModels(Models({"florence2": AsyncClient(transport=transport)}), cached_seconds)
        for _ in range(3):
            await served.info()
        return transport.asked

    assert asyncio.run(ask_thrice()) == times


def test_models_are_listed_without_adapters_if_nothing_is_known_of_the_servers(app_client):
    class Denying(Serving):
        async def health_async(self, timeout):  # noqa: ARG002
            raise AccessDeniedError("no token")

    ids = [each["id"] for each in app_client(transport=Denying()).get("/v1/models").json()["data"]]
    assert "florence2:detect" in ids
    assert not [each for each in ids if "@" in each]


def test_every_listed_model_answers_and_can_be_retrieved(app_client):
    client = app_client(transport=Serving())
    region = "1,2,30,40"
    for entry in client.get("/v1/models").json()["data"]:
        assert client.get(f"/v1/models/{entry['id']}").json() == entry
        text = region if "region" in entry["id"] else "a dog"
        assert content(client.post(PATH, json=chat(text, entry["id"])))


def test_an_id_of_task_and_adapter_can_be_retrieved_if_the_adapter_exists(app_client):
    client = app_client(transport=Serving())
    assert client.get("/v1/models/florence2:detect@invoices").json()["id"] == "florence2:detect@invoices"
    assert error(client.get("/v1/models/florence2@tags"))[:2] == (404, "model")
    assert error(client.get("/v1/models/gpt-4o"))[:2] == (404, "model")


def test_the_fingerprint_is_the_checkpoint_s_revision(app_client):
    client = app_client(transport=Serving())
    client.get("/v1/models")
    assert client.post(PATH, json=chat("<CAPTION>")).json()["system_fingerprint"] == "0123abc"
