"""What a server serves, in words."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from florence2.transports.protocol import EngineInfo, ServerInfo

_MOST_NAMES: Final = 3


def served(info: ServerInfo) -> str:
    """Describe what a server serves: "florence2-triton 0.1.0 serves owner/name (native layout) on cuda:0 in
    bfloat16 with 16 slots and 2 adapters (invoices, tags)". Of more than three adapters, only the number is shown.

    Engines that serve the same are described together. Those that do not run are named, if there are several.
    """
    loaded = [engine for engine in info.engines if engine.slots]
    kinds = [_described(list(engines)) for _, engines in groupby(loaded, _kind)] or ["nothing yet"]
    states = [f"engine {engine.name} {engine.state}" for engine in info.engines if engine.state != "running"]
    details = f" ({', '.join(states)})" if states and len(info.engines) > 1 else ""
    return f"florence2-triton {info.version} serves {', '.join(kinds)}{details}"


def _kind(engine: EngineInfo) -> tuple[object, ...]:
    return engine.checkpoint, engine.revision, engine.layout, engine.dtype, engine.slots, engine.adapters


def _described(engines: list[EngineInfo]) -> str:
    first = engines[0]
    checkpoint = f"{first.checkpoint}@{first.revision}" if first.revision else first.checkpoint
    what = f"{checkpoint} ({first.layout} layout)"
    devices = _joined(dict.fromkeys(engine.device for engine in engines))
    engine = f"{first.slots} slots{_and_adapters(first.adapters)}"
    number = "" if len(engines) == 1 else f"{len(engines)} engines of "
    return f"{what} on {devices} in {first.dtype} with {number}{engine}"


def _and_adapters(names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = f" ({', '.join(names)})" if len(names) <= _MOST_NAMES else ""
    return f" and {len(names)} {'adapter' if len(names) == 1 else 'adapters'}{shown}"


def _joined(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
