"""The servers beside ours: the conventional one, and a model that does nothing."""

from pathlib import Path

from benchmarks.harness.callers import Response, TritonCaller, tensor
from benchmarks.harness.requests import Request
from benchmarks.harness.servers import OURS, Side

_MODELS = Path(__file__).parent / "models"
EMPTY_MODEL = _MODELS / "empty"


class ConventionalCaller(TritonCaller):
    """A connection to the conventional server."""

    def send(self, request: Request, num_beams: int) -> Response:
        """Send a request and wait for its response."""
        inputs = [
            tensor("IMAGE", request.image, "BYTES"),
            tensor("PROMPT", request.prompt.encode(), "BYTES"),
            tensor("ANSWER_TOKENS", request.answer_tokens, "INT32"),
            tensor("NUM_BEAMS", num_beams, "INT32"),
        ]
        return Response(self.infer("florence2_conventional", inputs, "TEXT").decode())


class EmptyCaller(TritonCaller):
    """A connection to the model that does nothing."""

    def send(self, request: Request, num_beams: int) -> Response:  # noqa: ARG002 - the model ignores them
        """Send a request and wait for the empty response."""
        return Response(self.infer("empty", [tensor("IMAGE", request.image, "BYTES")], "RESPONSE").decode())


CONVENTIONAL = Side("conventional", _MODELS / "florence2_conventional", "CONVENTIONAL", ConventionalCaller)
SIDES = (OURS, CONVENTIONAL)
