"""What the stub can be told, with defaults and limits."""

from dataclasses import dataclass, fields

from florence2.errors import InvalidArgumentError
from florence2_engine.config import EngineConfig, text_bytes
from florence2_engine.settings import ConfigError, require_at_least


@dataclass(frozen=True)
class RequestLimits:
    """What is refused before anything is done with it.

    Attributes:
        max_image_bytes: the engine's; here it spares it the copy of an image that cannot be within it.
        max_request_bytes: the largest TaskRequest, protobuf or JSON, in bytes. It bounds prompts before they are made
            into tokens, of which the checkpoint has a limit of its own.
    """

    max_image_bytes: int = EngineConfig.max_image_bytes
    max_request_bytes: int = 64 * 1024

    def __post_init__(self) -> None:
        require_at_least(1, self, *(field.name for field in fields(self)))

    def check(self, image: bytes, request: bytes) -> None:
        """Look at the sizes of a row's elements.

        Raises:
            InvalidArgumentError: one is over its limit.
        """
        if len(image) > text_bytes(self.max_image_bytes):
            raise InvalidArgumentError.of_field("IMAGE", f"{len(image)} bytes", f"at most {self.max_image_bytes} bytes")
        if len(request) > self.max_request_bytes:
            limit = f"at most {self.max_request_bytes} bytes"
            raise InvalidArgumentError.of_field("REQUEST", f"{len(request)} bytes", limit)


@dataclass(frozen=True)
class LogConfig:
    """What is logged.

    Attributes:
        log_requests: 1: a line of JSON for each question, without image and words; 0: none.
    """

    log_requests: int = 0

    def __post_init__(self) -> None:
        if self.log_requests not in (0, 1):
            raise ConfigError(f"log_requests: got {self.log_requests}, expected 0 or 1")


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
