"""The Triton model for streams: forwards requests to the stubs of the served model, and events back.

A model that is not decoupled answers once, and Triton refuses unary requests to a decoupled one. So there are two.
"""

from typing import Any

from florence2_server.log_format import set_up_logging
from florence2_server.repository import STREAM_SUFFIX
from florence2_server.stub.admission_metrics import StreamRefusals
from florence2_server.stub.forwarding import Forwarder
from florence2_server.stub.triton import Triton, load_errors
from florence2_server.supervision.watchdog import Watchdog


class TritonPythonModel:
    """The interface of Triton's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the watchdog and the forwarder; the other model loads the checkpoint.

        Raises:
            TritonModelException: they cannot be started, which the message explains in one line.
        """
        set_up_logging()
        with load_errors():
            model = args["model_name"].removesuffix(STREAM_SUFFIX)
            self._triton = Triton({"model": model})
            self._watchdog = Watchdog()
            self._forwarder = Forwarder(model, on_refusal=StreamRefusals(self._triton).count)

    def execute(self, requests: list[Any]) -> None:
        """Forward requests; each is answered later, by its own response sender."""
        for request in requests:
            self._forwarder.forward(self._triton.stream(request))

    def finalize(self) -> None:
        """End what is still open."""
        self._forwarder.close()
        self._watchdog.stop()
