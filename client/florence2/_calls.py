"""One call: what is sent, and until when it is waited for."""

import time
from dataclasses import dataclass

from florence2 import v1
from florence2.errors import DeadlineExceededError


@dataclass(frozen=True)
class Call:
    """A checked request on its way."""

    request: v1.TaskRequest
    priority: int
    """1 to 3; 0 for the model's default."""
    timeout: float | None
    """Seconds for the whole call; None for no limit."""
    started: float
    """When the caller made it, on `time.monotonic`'s clock."""
    request_id: str = ""
    """Names it in the server's log."""

    def remaining(self) -> float | None:
        """Seconds left; None for no limit.

        Raises:
            DeadlineExceededError: none are left.
        """
        if self.timeout is None:
            return None
        remaining = self.started + self.timeout - time.monotonic()
        if remaining <= 0:
            raise DeadlineExceededError(f"{self.timeout} s passed before the request was sent")
        return remaining
