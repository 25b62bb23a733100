"""Parses and checks the batch elements of a request."""

from dataclasses import dataclass

import numpy as np
from florence2.errors import InvalidArgumentError
from florence2.plans import PlanLimits, check_plan, is_single_step, plan_name
from florence2.v1 import TaskRequest
from numpy.typing import NDArray

from florence2_server.config import RequestLimits, text_bytes
from florence2_server.stub.image_files import ElementImage, ImageFiles
from florence2_server.stub.prompts import prompt_parts
from florence2_server.stub.wire import Encoding, parse_request
from florence2_server.v1.engine_pb2 import GenerateRequest

_SHOWN_HASH = 16  # hexadecimal digits of an image's SHA-256
_DEFAULT_PRIORITY = 2


@dataclass(frozen=True, eq=False)
class BatchElement:
    """An element of Triton's batch dimension: one `TaskRequest` with its image, parsed and checked.

    Attributes:
        index: its place in the batch.
        label: names the element in error messages; empty if it is the only one.
        request: what the caller sent.
        encoding: of the request, and so of its response.
        image: shared by all of the request's generations.
    """

    index: int
    label: str
    request: TaskRequest
    encoding: Encoding
    image: ElementImage

    @property
    def priority(self) -> int:
        """1 (first) to 3 (last)."""
        return self.request.priority or _DEFAULT_PRIORITY

    def generate_request(self, step: TaskRequest, plan: str = "") -> GenerateRequest:
        """What is sent to the engine for a step, without the image.

        Args:
            step: the step.
            plan: identifies the plan if it has other steps.

        Raises:
            InvalidArgumentError: a rendered prompt has text after a task without input.
        """
        return GenerateRequest(
            prompt=prompt_parts(step),
            generation=step.generation,
            adapter=step.adapter,
            plan=plan if step.adapter else "",
        )

    def describe(self, request_id: str) -> str:
        """Identify the request in the log and to its caller, in case it crashes the engine."""
        image = self.image.hash()[:_SHOWN_HASH]
        return f"request id {request_id!r}, {self.label}image {image}, task {plan_name(self.request)}"


@dataclass(frozen=True)
class ElementLimits:
    """The limits of a batch element.

    Attributes:
        sizes: of its tensors.
        plan: of what it asks for.
    """

    sizes: RequestLimits
    plan: PlanLimits


def check_shapes(images: NDArray[np.object_], requests: NDArray[np.object_]) -> None:
    """Check the shapes of the tensors IMAGE and REQUEST.

    Raises:
        InvalidArgumentError: a tensor has the wrong shape.
    """
    for name, tensor in (("IMAGE", images), ("REQUEST", requests)):
        if tensor.size == 0 or tensor.shape != images.shape:
            expected = "(batch elements, 1), alike for IMAGE and REQUEST"
            raise InvalidArgumentError.of_field(f"{name} shape", tensor.shape, expected)


def batch_elements(
    images: NDArray[np.object_], requests: NDArray[np.object_], limits: ElementLimits, files: ImageFiles
) -> list[BatchElement]:
    """The batch elements of the tensors IMAGE and REQUEST, whose shapes are right.

    Raises:
        InvalidArgumentError: an element is invalid.
    """
    pairs = zip(images.ravel(), requests.ravel(), strict=True)
    return [
        _batch_element(index, f"batch element {index}: " if len(images) > 1 else "", image, request, limits, files)
        for index, (image, request) in enumerate(pairs)
    ]


def check_sizes(image: bytes, request: bytes, limits: RequestLimits) -> None:
    """Check the sizes of a batch element before it is parsed.

    Raises:
        InvalidArgumentError: the image or the request is over its limit.
    """
    if len(image) > text_bytes(limits.max_image_bytes):
        raise InvalidArgumentError.of_field("IMAGE", f"{len(image)} bytes", f"at most {limits.max_image_bytes} bytes")
    if len(request) > limits.max_request_bytes:
        limit = f"at most {limits.max_request_bytes} bytes"
        raise InvalidArgumentError.of_field("REQUEST", f"{len(request)} bytes", limit)


def _batch_element(
    index: int, label: str, image: bytes, data: bytes, limits: ElementLimits, files: ImageFiles
) -> BatchElement:
    try:
        check_sizes(image, data, limits.sizes)
        request, encoding = parse_request(data)
        check_plan(request, limits.plan)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{label}{error}") from None
    shared = not is_single_step(request)
    return BatchElement(index, label, request, encoding, ElementImage(image, files, is_shared=shared))
