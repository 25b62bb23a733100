"""Streams of a real server, as callers without the florence2 client get them."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import numpy as np
import pytest
import tritonclient.grpc as triton
from florence2.v1 import StreamEvent, TaskRequest, TaskResponse
from google.protobuf.message import Message

from tests.server.conftest import CALL_SECONDS


def stream_tensors(image: bytes, request: bytes) -> list[triton.InferInput]:
    """The tensors IMAGE and REQUEST of florence2_stream, of shape (1,)."""
    inputs = []
    for name, element in (("IMAGE", image), ("REQUEST", request)):
        tensor = triton.InferInput(name, [1], "BYTES")
        tensor.set_data_from_numpy(np.array([element], dtype=np.object_))
        inputs.append(tensor)
    return inputs


class Stream:
    """A stream under way.

    Attributes:
        seconds: when each event that was read arrived, from the start of the stream.
    """

    def __init__(self, client: triton.InferenceServerClient, inputs: list[triton.InferInput], **options) -> None:
        self.seconds: list[float] = []
        self._client = client
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        self._started = time.monotonic()
        client.start_stream(lambda result, error: self._results.put((time.monotonic(), result, error)))
        client.async_stream_infer("florence2_stream", inputs, enable_empty_final_response=True, **options)

    def elements(self) -> Iterator[bytes]:
        """The RESPONSE of each event."""
        is_final = False
        while not is_final:
            arrived, result, error = self._results.get(timeout=CALL_SECONDS)
            if error is not None:
                raise error
            is_final = result.get_response().parameters["triton_final_response"].bool_param
            element = result.as_numpy("RESPONSE")
            if element is not None:
                self.seconds.append(arrived - self._started)
                yield element.item()

    def events(self) -> Iterator[StreamEvent]:
        """The events of a request in protobuf."""
        return map(StreamEvent.FromString, self.elements())

    def cancel(self) -> None:
        """Leave, as a caller does who cancels the gRPC call."""
        self._client.stop_stream(cancel_requests=True)


@contextmanager
def streaming(server, image: bytes, request: TaskRequest | bytes, **options) -> Iterator[Stream]:
    """A stream, which is cancelled at the end unless it is complete."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    with triton.InferenceServerClient(server.grpc_url) as client:
        stream = Stream(client, stream_tensors(image, data), **options)
        try:
            yield stream
        finally:
            stream.cancel()


def streamed(server, image: bytes, request: TaskRequest | bytes, **options) -> list[StreamEvent]:
    """All events of a stream."""
    with streaming(server, image, request, **options) as stream:
        return list(stream.events())


def text_of(events: list[StreamEvent]) -> str:
    return "".join(event.text_delta for event in events)


def items_of(events: list[StreamEvent]) -> list:
    """The detections and text regions, in order."""
    kinds = ((event, event.WhichOneof("event")) for event in events)
    return [getattr(event, kind) for event, kind in kinds if kind in ("detection", "text_region")]


def items_of_response(response: TaskResponse) -> list:
    return [*response.detections.detections, *response.text_regions.text_regions]


def by_step(events: list[StreamEvent]) -> dict[int, list[StreamEvent]]:
    """The events of each step, without the last event of the stream."""
    ordered = sorted(events[:-1], key=lambda event: event.step)
    return {step: list(group) for step, group in groupby(ordered, key=lambda event: event.step)}


def assert_same_answer(response: TaskResponse, expected: TaskResponse) -> None:
    """Check that two runs of a request gave the same answer.

    Times differ from run to run, and the last digits of a probability with what else is in the batch.
    """
    assert without_scores(response) == without_scores(expected)
    assert probabilities_of(response) == pytest.approx(probabilities_of(expected), rel=1e-3, abs=1e-4)


def without_scores(response: TaskResponse) -> TaskResponse:
    """A response without what differs from one run to the next: times and the digits of probabilities."""
    copy = TaskResponse()
    copy.CopyFrom(response)
    for field in ("queue_milliseconds", "encode_milliseconds", "decode_milliseconds", "image_embedding_cached"):
        copy.usage.ClearField(field)
    del copy.token_log_probabilities[:]
    del copy.token_masses[:]
    for item, field in score_fields(copy):
        item.ClearField(field)
    for step in copy.steps:
        if step.HasField("response"):
            step.response.CopyFrom(without_scores(step.response))
    return copy


def probabilities_of(response: TaskResponse) -> list[float]:
    """The scores, log-probabilities and masses of a response and its steps, in order."""
    found = [getattr(item, field) for item, field in score_fields(response)]
    found += [*response.token_log_probabilities, *response.token_masses]
    for step in response.steps:
        found += probabilities_of(step.response)
    return found


def score_fields(response: TaskResponse) -> Iterator[tuple[Message, str]]:
    """Each part of the result that has a score, with the name of that field."""
    results = (response.detections.detections, response.text_regions.text_regions, response.segmentation.segments)
    parts = [part for result in results for part in result]
    parts += [response.text_result] if response.HasField("text_result") else []
    for part in parts:
        yield from (
            (part, field.name) for field in part.DESCRIPTOR.fields if field.name.endswith(("score", "confidence"))
        )
