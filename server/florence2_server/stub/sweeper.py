"""Watches unanswered requests for passed deadlines and cancellations, and updates the gauges of the queue."""

import itertools
import logging
import threading

from florence2_server.stub.dispatcher import Dispatcher
from florence2_server.stub.pending_request import PendingRequest

_logger = logging.getLogger(__name__)

# How soon the slot of a cancelled request is free, and how old the gauges are.
_INTERVAL_SECONDS = 0.1
# Each check for cancellation is a round-trip to tritonserver. Waiting requests hold no slot: they are checked in turn,
# and once more before their first generation is submitted.
_WAITING_CHECKS = 16


class Sweeper:
    """Ends requests that are no longer needed, on a thread of its own.

    Args:
        dispatcher: knows the requests.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, after a last update of the gauges."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_INTERVAL_SECONDS):
            try:
                self._sweep()
            except Exception:
                _logger.exception("a sweep of the unanswered requests failed; the next one follows")
        self._dispatcher.show()

    def _sweep(self) -> None:
        pending = self._dispatcher.pending()
        turns = {id(each) for each in _longest_unchecked([each for each, is_waiting in pending if is_waiting])}
        for each, is_waiting in pending:
            ask_caller = not is_waiting or id(each) in turns
            self._dispatcher.end_if_over(each, is_waiting=is_waiting, ask_caller=ask_caller)
        self._dispatcher.show()


def _longest_unchecked(waiting: list[PendingRequest]) -> list[PendingRequest]:
    return list(itertools.islice(sorted(waiting, key=lambda each: each.checked), _WAITING_CHECKS))
