"""What the watch over the engine can be told, with defaults and limits."""

from dataclasses import dataclass, fields

from florence2_engine.settings import require_at_least


@dataclass(frozen=True)
class SupervisionConfig:
    """When an engine counts as lost, and how often another is started.

    Attributes:
        start_seconds: an engine that takes longer to load its checkpoint, a download included, is ended.
        heartbeat_seconds: an engine that says nothing for so long is replaced.
        stuck_seconds: an engine is replaced whose prefill or decode step takes longer.
        max_restarts: after so many without an answer in between, callers are refused at once until one works again.
        max_backoff_seconds: the most seconds between two starts.
    """

    start_seconds: int = 1800
    heartbeat_seconds: int = 10
    stuck_seconds: int = 120
    max_restarts: int = 5
    max_backoff_seconds: int = 30

    def __post_init__(self) -> None:
        require_at_least(1, self, *(field.name for field in fields(self)))
