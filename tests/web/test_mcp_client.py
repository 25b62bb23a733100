"""`florence2 mcp` as a real process in front of the real server, with the SDK's own client."""

import asyncio
import base64
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import httpx2
import PIL.Image
import pytest
from florence2.v1 import GenerationOptions, TaskRequest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.cli.commands import COMMAND
from tests.cli.commands import run as run_command
from tests.conftest import DEMO_CHECKPOINT, ROOT
from tests.server.observation import metric, seconds_until
from tests.server.streams import streaming

pytestmark = pytest.mark.web

SECONDS = 300
KEY = "0123456789abcdef"
SCENE = {"path": "scene.png"}
BOX = [50, 60, 230, 240]
INITIALIZE = {
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
LONG = GenerationOptions(min_new_tokens=900, no_repeat_ngram_size=0)


def arguments(*more: object) -> list[str]:
    return [*COMMAND[1:], "mcp", "--root", str(ROOT / "examples"), *map(str, more)]


@asynccontextmanager
async def over_stdio(*more: object, mode: str = "auto"):
    """The SDK's client of a server that it starts."""
    parameters = StdioServerParameters(command=sys.executable, args=arguments(*more))
    async with asyncio.timeout(SECONDS), Client(stdio_client(parameters), mode=mode) as client:
        yield client


@contextmanager
def bounded_reading(process: subprocess.Popen):
    """Kill a process after `SECONDS`, so that reading from it ends."""
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def http_process(*more: object):
    """`florence2 mcp --http` on a free port. Yields the URL and the process."""
    command = [sys.executable, *arguments("--http", "--port", 0, *more)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            with bounded_reading(process):
                line = process.stderr.readline()
            found = re.search(r"http://\S+/mcp", line)
            assert found is not None, line
            yield found[0], process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url(server):
    """The URL of `florence2 mcp --http`."""
    with http_process("--url", server.grpc_url) as (url, _):
        yield url


@asynccontextmanager
async def over_http(url: str, mode: str = "auto", **headers: str):
    async with httpx2.AsyncClient(headers=headers, timeout=SECONDS) as http:
        transport = streamable_http_client(url, http_client=http)
        async with asyncio.timeout(SECONDS), Client(transport, mode=mode) as client:
            yield client


async def seen(client: Client) -> None:
    """Call each tool about the scene, and check what it says."""
    assert client.server_info.name == "florence2"
    caption = await client.call_tool("caption", SCENE)
    assert "red circle" in caption.content[0].text
    found = await client.call_tool("detect", SCENE)
    assert {item["label"] for item in found.structured_content["items"]} == {
        "red circle",
        "green triangle",
        "blue square",
    }
    with PIL.Image.open(io.BytesIO(base64.b64decode(found.content[1].data))) as drawn:
        assert drawn.size == (640, 480)
    text = await client.call_tool("read", SCENE)
    assert text.structured_content["text"] == "CAFE OPEN"
    pieces = await client.call_tool("read", {**SCENE, "with_regions": True})
    assert [item["text"] for item in pieces.structured_content["items"]] == ["CAFE", "OPEN"]
    place = await client.call_tool("ground", {**SCENE, "phrases": ["red circle"]})
    assert place.structured_content["items"][0]["box"] == pytest.approx(BOX, abs=5)
    outline = await client.call_tool("segment", {**SCENE, "expression": "red circle"})
    assert outline.structured_content["items"][0]["polygons"]
    described = await client.call_tool("describe_region", {**SCENE, "region": BOX})
    assert "red circle" in described.structured_content["text"]
    refused = await client.call_tool("caption", {"path": "/etc/passwd"})
    assert refused.is_error


def test_all_tools_answer_over_stdio(server):
    async def run() -> None:
        async with over_stdio("--url", server.grpc_url) as client:
            await seen(client)

    asyncio.run(run())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_all_tools_answer_over_http(url, mode):
    async def run() -> None:
        async with over_http(url, mode) as client:
            await seen(client)

    asyncio.run(run())


def test_a_checkpoint_in_the_same_process_answers_a_client_of_the_older_protocol():
    async def run() -> None:
        async with over_stdio("--checkpoint", DEMO_CHECKPOINT, mode="legacy") as client:
            await seen(client)

    asyncio.run(run())


@contextmanager
def stdio_process(*more: object):
    """`florence2 mcp` as a process whose pipes are read and written without the SDK."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, *arguments(*more)], text=True, **pipes) as process:
        try:
            with bounded_reading(process):
                yield process
        finally:
            process.kill()


def send(process: subprocess.Popen, *messages: dict) -> None:
    process.stdin.write("".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages))
    process.stdin.flush()


def test_a_client_that_has_gone_is_no_error():
    with stdio_process("--url", "localhost:1") as process:
        send(process, INITIALIZE)
        assert json.loads(process.stdout.readline())["id"] == INITIALIZE["id"]
        process.stdout.close()
        send(process, {"id": 2, "method": "ping"})
        process.stdin.close()
        log = process.stderr.read()
        assert process.wait(SECONDS) == 0
    assert "the client has closed standard output" in log
    assert "Traceback" not in log


def test_standard_output_has_nothing_but_messages_also_if_a_checkpoint_fails_to_load(tmp_path):
    messages = [
        INITIALIZE,
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "caption", "arguments": SCENE}},
    ]
    with stdio_process("--checkpoint", tmp_path) as process:
        send(process, *messages)
        replies = {reply["id"]: reply["result"] for reply in (json.loads(process.stdout.readline()) for _ in range(2))}
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(SECONDS) == 0
        log = process.stderr.read()
    assert replies[1]["serverInfo"]["name"] == "florence2"
    assert replies[2]["isError"]
    assert str(tmp_path) in replies[2]["content"][0]["text"]
    assert "no call can be answered" in log
    assert "Traceback" not in log


def test_a_call_waits_for_a_server_that_starts_later(server):
    host, port = server.grpc_url.rsplit(":", 1)
    with socket.socket() as listener:
        listener.bind(("localhost", 0))  # which refuses connections until it listens
        address = listener.getsockname()[:2]

        async def run() -> str:
            async with over_stdio("--url", "{}:{}".format(*address), "--timeout", SECONDS) as client:
                reports = asyncio.Queue()
                call = asyncio.create_task(
                    client.call_tool("read", SCENE, progress_callback=lambda *report: reports.put(report))
                )
                while (await reports.get())[2] != "waiting for the answer":
                    pass
                async with await asyncio.start_server(forward, sock=listener):
                    return (await call).structured_content["text"]

        async def forward(reader, writer) -> None:
            there = await asyncio.open_connection(host, int(port))
            await asyncio.gather(copied(reader, there[1]), copied(there[0], writer))

        assert asyncio.run(run()) == "CAFE OPEN"


async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what arrives on."""
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.mark.parametrize(("transport", "mode"), [("stdio", "legacy"), ("http", "auto"), ("http", "legacy")])
def test_cancelling_a_call_cancels_its_request_on_the_server(one_slot, scene, transport, mode):
    one_slot_server, one_slot_url = one_slot

    async def run() -> None:
        if transport == "stdio":
            connection = over_stdio("--url", one_slot_server.grpc_url, mode=mode)
        else:
            connection = over_http(one_slot_url, mode)
        # The only slot is taken by a stream, so that the call waits.
        stream = streaming(one_slot_server, scene, TaskRequest(ocr={}, generation=LONG))
        async with connection as client:
            with stream as running:
                await asyncio.to_thread(next, running.events())
                call = asyncio.create_task(client.call_tool("caption", SCENE))
                await waiting(one_slot_server, 1)
                call.cancel()
                await waiting(one_slot_server, 0)
                assert metric(one_slot_server, "florence2_slots_in_use") == 1, "the call has left the queue unanswered"

    asyncio.run(run())


async def waiting(server, count: int) -> None:
    """Wait until so many requests wait in the server's queue."""
    await asyncio.to_thread(seconds_until, lambda: metric(server, "florence2_waiting_requests") == count)


@pytest.fixture(scope="module")
def one_slot(start_server):
    """A server that answers one request at a time, and the URL of an MCP server in front of it."""
    server = start_server(FLORENCE2_SLOTS="1", FLORENCE2_AHEAD="0")
    with http_process("--url", server.grpc_url) as (url, _):
        yield server, url


def test_the_configurations_of_the_page_start_the_command(tmp_path):
    """Those of several hosts, which differ only in their folders; without input, the command ends."""
    page = (ROOT / "docs" / "mcp.md").read_text()
    found = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    found += [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)]
    servers = [server for each in found for entries in each.values() for server in entries.values()]
    started = [server for server in servers if "command" in server]
    assert len(started) == 3
    calls = {
        tuple(str(tmp_path) if word.startswith(("/home", "$")) else word for word in server["args"])
        for server in started
        if server["command"] == "florence2"
    }
    for words in calls:
        ended = run_command(*words)
        assert (ended.status, ended.out, ended.err) == (0, "", "")


def status(url: str, **headers: str) -> int:
    """The status of a request of the protocol with these headers."""
    call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    plain = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    try:
        with urlopen(Request(url, call, {**plain, **headers}), timeout=SECONDS) as response:
            return response.status
    except HTTPError as error:
        return error.code


def test_a_website_can_neither_use_its_own_name_nor_its_origin(url):
    assert status(url, Host="example.com") == 421
    assert status(url, Origin="https://example.com") == 403


def test_with_a_file_of_keys_a_key_is_required(server, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"ann:{KEY}\n")

    async def run(url: str) -> None:
        async with over_http(url, Authorization=f"Bearer {KEY}") as client:
            assert (await client.call_tool("read", SCENE)).structured_content["text"] == "CAFE OPEN"

    with http_process("--url", server.grpc_url, "--api-keys", keys) as (url, process):
        assert status(url) == 401
        assert status(url, Authorization="Bearer wrong") == 401
        asyncio.run(run(url))
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line.get("key") for line in lines} == {None, "ann"}
    assert KEY not in out
