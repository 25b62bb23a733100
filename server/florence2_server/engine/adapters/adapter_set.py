"""The adapters that an engine serves, by name: loaded, lent to generations, and freed after the last one."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from florence2.errors import InvalidArgumentError

from florence2_server.engine.adapters.adapter_files import Adapter
from florence2_server.engine.adapters.loaded_adapter import LoadedAdapter
from florence2_server.engine.adapters.plan_adapters import PlanAdapters
from florence2_server.engine.errors import AdapterError
from florence2_server.engine.model.adapter_tensors import AdapterTensors
from florence2_server.engine.tokenizer import PromptTokenizer


class AdapterSource(NamedTuple):
    """Where an adapter is read from.

    Attributes:
        name: what requests call it.
        folder: what peft's `save_pretrained` wrote.
        version: differs if the files of the folder do.
    """

    name: str
    folder: str
    version: str


class Memory(Protocol):
    """Where adapters are loaded to: the engine."""

    def load_adapter(self, index: int, tensors: AdapterTensors) -> "Future[None]":
        """See `Engine`."""
        ...

    def unload_adapter(self, index: int) -> "Future[None]":
        """See `Engine`."""
        ...


class AdapterSet:
    """The adapters that an engine serves. Thread-safe.

    Args:
        memory: the engine.
        read: reads the adapter in a folder; raises AdapterError if it cannot be served.
        tokenizer: makes a tokenizer from a Hugging Face tokenizer; the checkpoint's from None.
        most: the most adapters.
    """

    def __init__(
        self,
        memory: Memory,
        read: Callable[[str], Adapter],
        tokenizer: Callable[[object | None], PromptTokenizer],
        most: int,
    ) -> None:
        self._memory = memory
        self._read = read
        self._tokenizer = tokenizer
        self._most = most
        self._changing = threading.Lock()  # held while adapters are read
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[AdapterSource, LoadedAdapter]] = {}
        self._users: Counter[LoadedAdapter] = Counter()
        self._leaving: set[LoadedAdapter] = set()
        self._plans = PlanAdapters()
        self._indices = itertools.count()

    @property
    def adapters(self) -> list[LoadedAdapter]:
        """Those that requests can name, by name."""
        with self._lock:
            return [adapter for _, (_, adapter) in sorted(self._loaded.items())]

    def serve(self, sources: Sequence[AdapterSource]) -> dict[str, AdapterError]:
        """Serve these adapters and no others. Those with the same source and version stay as they are.

        If an adapter cannot be read from its new source or in its new version, the former one goes on being served.

        Returns:
            why adapters cannot be served, by name.
        """
        with self._changing:
            errors = {source.name: self._too_many(len(sources)) for source in sources[self._most :]}
            wanted = {source.name: source for source in sources[: self._most]}
            for name in self._names() - wanted.keys():
                self._replace(name, None)
            for name, source in wanted.items():
                if self._source_of(name) == source:
                    continue
                try:
                    self._replace(name, (source, self._load(source)))
                except AdapterError as error:
                    errors[name] = error
            return errors

    def acquire(self, name: str, plan: str = "") -> LoadedAdapter:
        """The adapter of a generation, which stays loaded until it is released.

        Args:
            name: what the request calls it.
            plan: identifies the plan that the generation is a step of; empty if it is the only step. All steps of a
                plan get the same adapter, which stays loaded until `keep` ends the plan.

        Raises:
            InvalidArgumentError: there is none of this name; the message lists those that there are.
        """
        with self._lock:
            if (adapter := self._plans.of(plan, name)) is None:
                adapter = self._named(name)
                if plan:
                    self._plans.begin(plan, adapter)
                    self._users[adapter] += 1
            self._users[adapter] += 1
            return adapter

    def release(self, adapter: LoadedAdapter) -> None:
        """End a use; after the last one, an adapter that is not served any more is freed."""
        with self._lock:
            self._release(adapter)

    def keep(self, plans: Collection[str]) -> None:
        """End all plans but these, and those that have begun since the last call."""
        with self._lock:
            for adapter in self._plans.end_others(plans):
                self._release(adapter)

    def _named(self, name: str) -> LoadedAdapter:
        """The adapter that is served under a name. The lock is held."""
        if (found := self._loaded.get(name)) is None:
            known = ", ".join(sorted(self._loaded))
            requirement = f"one of {known}" if known else "no adapter, because none are served"
            raise InvalidArgumentError.of_field("adapter", name, requirement)
        return found[1]

    def _release(self, adapter: LoadedAdapter) -> None:
        self._users[adapter] -= 1
        if not self._users[adapter]:
            del self._users[adapter]
            if adapter in self._leaving:
                self._leaving.discard(adapter)
                self._memory.unload_adapter(adapter.index)

    def _names(self) -> set[str]:
        with self._lock:
            return set(self._loaded)

    def _source_of(self, name: str) -> AdapterSource | None:
        with self._lock:
            return self._loaded[name][0] if name in self._loaded else None

    def _replace(self, name: str, loaded: tuple[AdapterSource, LoadedAdapter] | None) -> None:
        """Have a name stand for another adapter, or for none. The former one is freed as soon as nobody uses it."""
        with self._lock:
            former = self._loaded.pop(name, None)
            if loaded is not None:
                self._loaded[name] = loaded
            if former is None:
                return
            _, adapter = former
            if self._users[adapter]:
                self._leaving.add(adapter)
            else:
                self._memory.unload_adapter(adapter.index)

    def _load(self, source: AdapterSource) -> LoadedAdapter:
        index = next(self._indices)
        try:
            adapter = self._read(source.folder)
            tokenizer = self._tokenizer(adapter.tokenizer)
            self._memory.load_adapter(index, adapter.tensors).result()
        except AdapterError:
            raise
        except Exception as error:  # whatever is wrong with it, the others are served
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise AdapterError(f"adapter {source.folder!r} cannot be loaded: {reason}") from error
        tensors = adapter.tensors
        return LoadedAdapter(
            name=source.name,
            index=index,
            tokenizer=tokenizer,
            changes_images=tensors.changes_images,
            rank=tensors.rank,
            size_in_bytes=tensors.size_in_bytes,
        )

    def _too_many(self, count: int) -> AdapterError:
        return AdapterError(f"max_adapters: got {count} adapters, expected at most {self._most}")
