"""Connections of `florence2 web`: uvicorn's, with a limit for the time in which a request's head arrives."""

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD_SECONDS: Final = 20.0


class Connection(H11Protocol):
    """Closes a connection that sends no complete head of a request in time.

    Uvicorn limits only the time without any byte between two requests. Connections that send nothing, or a byte now and
    then, would stay until this process has no file descriptors for others.
    """

    head_seconds = _HEAD_SECONDS
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._expect_head()

    def on_response_complete(self) -> None:
        """Wait for the next head."""
        self._expect_head()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.head_seconds, self._close_without_head)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_without_head(self) -> None:
        # During a request, the limits of bodies and requests apply.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
