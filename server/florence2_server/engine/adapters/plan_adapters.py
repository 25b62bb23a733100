"""The adapters that plans have begun with: later steps use them even if they are changed or removed meanwhile."""

from collections.abc import Collection

from florence2_server.engine.adapters.loaded_adapter import LoadedAdapter


class PlanAdapters:
    """Remembers the adapters of plans that are under way. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._adapters: dict[tuple[str, str], LoadedAdapter] = {}  # by plan and name
        self._recent: set[str] = set()  # plans that have begun since the last `end_others`

    def of(self, plan: str, name: str) -> LoadedAdapter | None:
        """What a name stands for in a plan; None if no step of it has named it."""
        return self._adapters.get((plan, name))

    def begin(self, plan: str, adapter: LoadedAdapter) -> None:
        """Have the name of an adapter stand for it in all further steps of a plan."""
        self._adapters[plan, adapter.name] = adapter
        self._recent.add(plan)

    def end_others(self, plans: Collection[str]) -> list[LoadedAdapter]:
        """Forget all plans but these, and those that have begun since the last time.

        Returns:
            the adapters of the plans that are forgotten, once for each plan.
        """
        kept = self._recent.union(plans)
        self._recent = set()
        ended = [key for key in self._adapters if key[0] not in kept]
        return [self._adapters.pop(key) for key in ended]
