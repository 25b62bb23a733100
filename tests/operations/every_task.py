"""Sends every kind of request to a server with whichever client is installed, and prints a JSON object of the answers.

Usage: python every_task.py HOST:PORT IMAGE

It uses only what the clients of the older commit and of this one have in common, and imports nothing else of the tests.
An answer is the result's fields; an error is the names of its class and its base classes, with its message.
"""

import asyncio
import dataclasses
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import florence2
import numpy as np
from florence2.v1 import TaskRequest

BOX = (53.0, 60.0, 231.0, 240.0)  # the red circle of examples/scene.png
WORD = (58.0, 350.0, 300.0, 418.0)  # CAFE
SIMULTANEOUS = 40


def results(client: florence2.Client, image: bytes) -> dict[str, Callable[[], object]]:
    """Requests that a server has to answer, by name."""
    return {
        "caption": lambda: client.caption(image),
        "detailed caption": lambda: client.caption(image, "detailed"),
        "paragraph": lambda: client.caption(image, "paragraph"),
        "detect": lambda: client.detect(image),
        "describe regions": lambda: client.describe_regions(image),
        "propose regions": lambda: client.propose_regions(image),
        "ground": lambda: client.ground(image, "A red circle and a blue square."),
        "detect open vocabulary": lambda: client.detect_open_vocabulary(image, "a green triangle"),
        "segment": lambda: client.segment(image, "the red circle"),
        "segment region": lambda: client.segment_region(image, BOX),
        "classify region": lambda: client.classify_region(image, BOX),
        "describe region": lambda: client.describe_region(image, BOX),
        "read region": lambda: client.read_region(image, WORD),
        "read text": lambda: client.read_text(image),
        "read text regions": lambda: client.read_text_regions(image),
        "free prompt": lambda: client.generate(image, "What does the image describe?"),
        "priority, beams, request id": lambda: client.caption(image, priority=1, num_beams=2, request_id="a"),
        "as a message": lambda: client.run(image, TaskRequest(ocr={})).result,
        "truncated": lambda: client.run(image, TaskRequest(ocr={}, generation={"max_new_tokens": 3})).text,
        "pixels": lambda: client.detect(np.full((48, 64, 3), 255, np.uint8)),
        "asynchronous": lambda: asyncio.run(asynchronous(client.health()[0].url, image)),
        "ready": client.is_ready,
        "health": lambda: client.health()[0].engine,
        "simultaneous": lambda: sorted(simultaneous(client, image)),
    }


def errors(client: florence2.Client, image: bytes) -> dict[str, Callable[[], object]]:
    """Requests that fail, by name."""
    return {
        "not an image": lambda: client.caption(b"no image"),
        "box outside the image": lambda: client.read_region(image, (0, 0, 5000, 10)),
        "no prompt": lambda: client.generate(image, " "),
        "prompt too long": lambda: client.generate(image, "word " * 2000),
        "too many beams": lambda: client.caption(image, num_beams=99),
        "too many tokens": lambda: client.caption(image, max_new_tokens=100_000),
        "deadline": lambda: client.caption(image, timeout=0.001),
        "no task": lambda: client.run(image, TaskRequest()),
    }


def features(client: Any, image: bytes) -> dict[str, Callable[[], object]]:
    """Requests that only newer servers know or accept; empty if the client does not know them itself."""
    if not hasattr(client, "run_tasks"):
        return {}
    tasks = [TaskRequest(caption={}), TaskRequest(ocr={})]
    return {
        "task list": lambda: client.run_tasks(image, tasks),
        "caption, then grounding": lambda: client.ground_caption(image),
        "region analysis": lambda: client.analyze_regions(image),
        "stream": lambda: list(client.stream(image, TaskRequest(caption={})))[-1],
        "large array": lambda: client.caption(noise(3400)),
        "repetition penalty": lambda: client.run(image, greedy_caption(repetition_penalty=10)).text,
        "no repetition penalty": lambda: client.run(image, greedy_caption()).text,
        "server info": client.server_info,
    }


def greedy_caption(**options: Any) -> TaskRequest:
    return TaskRequest(caption={}, generation={"num_beams": 1, "max_new_tokens": 40, **options})


def noise(side: int) -> np.ndarray:
    """Pixels that no lossless format makes smaller."""
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


async def asynchronous(url: str, image: bytes) -> object:
    """The answer of the asynchronous client."""
    async with florence2.AsyncClient(url) as client:
        return await client.detect(image)


def simultaneous(client: florence2.Client, image: bytes) -> list[str]:
    """The distinct answers to many requests at once, more than the server's queue holds: the client retries."""
    with ThreadPoolExecutor(SIMULTANEOUS) as pool:
        return list({text.text for text in pool.map(lambda _: client.read_text(image), range(SIMULTANEOUS))})


def refusals(url: str, image: bytes) -> int:
    """How many of many requests at once are refused, if the client does not retry."""
    with florence2.Client(url, retry=None) as client, ThreadPoolExecutor(SIMULTANEOUS) as pool:
        kinds = pool.map(lambda _: outcome(lambda: client.read_text(image)), range(SIMULTANEOUS))
        return sum("UnavailableError" in kind.get("error", ()) for kind in kinds)


def outcome(call: Callable[[], object]) -> dict[str, Any]:
    """What a call returns, or the error that it raises."""
    try:
        return {"answer": plain(call())}
    except Exception as error:  # noqa: BLE001 - the test compares it
        return {"error": [kind.__name__ for kind in type(error).__mro__], "message": str(error)}


def plain(value: Any) -> Any:
    """A result as JSON."""
    if dataclasses.is_dataclass(value):
        return {name: plain(getattr(value, field)) for name, field in common_fields(value).items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if isinstance(value, str | float | int | None) else repr(value)


def common_fields(value: Any) -> dict[str, str]:
    """The fields of a dataclass by the names of the older client, whose scores are the likelihoods of the newer one."""
    fields = [field.name for field in dataclasses.fields(value)]
    renamed = {field.replace("likelihood", "score"): field for field in fields if "likelihood" in field}
    return {field: field for field in fields if "likelihood" not in field} | renamed


def main() -> None:
    """Print the outcomes."""
    url, image = sys.argv[1], Path(sys.argv[2]).read_bytes()
    retry = florence2.Retry(attempts=50, max_backoff=0.2)
    with (
        florence2.Client(url, timeout=30, retry=retry) as client,
        florence2.Client(url, model="absent", retry=None) as lost,
        florence2.Client("localhost:1", retry=None) as off,
    ):
        groups = {
            "results": results(client, image),
            "errors": {
                **errors(client, image),
                "unknown model": lambda: lost.caption(image),
                "no server": lambda: off.caption(image),
            },
            "features": features(client, image),
        }
        found = {name: {key: outcome(call) for key, call in calls.items()} for name, calls in groups.items()}
    json.dump({"client": florence2.__file__, "refusals": refusals(url, image), **found}, sys.stdout)


if __name__ == "__main__":
    main()
