"""Florence-2 on a Triton server, a method for each task: `Client` blocks, `AsyncClient` is its awaited twin.

Their arguments and answers are here too, under the names that type annotations want.
"""

from types import TracebackType
from typing import Self, Unpack

from florence2 import _questions, v1
from florence2._answers import Answer, FinishReason, TruncatedAnswerError, read_answer
from florence2._arguments import check_seconds
from florence2._async_client import AsyncClient
from florence2._attempts import Retry
from florence2._base_client import BaseClient
from florence2._calls import Call
from florence2._destination import TLS, Destination, Keepalive
from florence2._health import Health
from florence2._images import ImageSource, encode_image
from florence2._options import CallOptions, TaskOptions, check_timeout
from florence2._questions import Answered, CaptionDetail, Phrases, Question, Region
from florence2._transport import Transport
from florence2.results import Detections, Segmentation, Text, TextRegions

__all__ = [
    "TLS",
    "Answer",
    "AsyncClient",
    "CallOptions",
    "CaptionDetail",
    "Client",
    "FinishReason",
    "Health",
    "ImageSource",
    "Keepalive",
    "Phrases",
    "Region",
    "Retry",
    "TaskOptions",
    "TruncatedAnswerError",
]


class Client(BaseClient):
    """A connection to a Triton server that serves Florence-2.

        with Client("localhost:8001") as client:
            for box, label, *_ in client.detect("street.jpg"):
                print(label, box)

    An image is anything that `ImageSource` lists: a path, `bytes`, a `bytearray` or `memoryview`, a binary file object,
    a PIL image, or a `uint8` array of shape (H, W), (H, W, 3) or (H, W, 4). Files are sent unchanged; PIL images and
    arrays are sent losslessly as what they show, transparency composited on white. URLs are not fetched.

    Coordinates, of regions given and of results, are pixels of the image as displayed (EXIF orientation
    applied): x to the right and y downwards from the top left corner, floats.

    Results have scores, 0 to 1: the geometric mean of the probabilities that the model gave the tokens of what it
    wrote. They tell how sure the model was and are not calibrated; see `florence2.scores`.

    Every task method takes the keywords of `TaskOptions`: generation options, `timeout` (seconds) and
    `priority`.

    Every method raises `TypeError` for an argument of the wrong type, `OSError` for a path that cannot be read, and the
    errors of `florence2.errors`: `InvalidArgumentError` if the request or the image is invalid, `UnavailableError` if
    retrying is safe, `DeadlineExceededError` after `timeout` seconds, `ModelNotFoundError`, `AccessDeniedError` and
    `MessageTooLargeError` if the configuration of client or server has to change, and `ServerError` for faults of the
    server.
    The task methods return the bare result of a whole answer; one that was cut at its
    length limit raises `TruncatedAnswerError`, which holds what there is of it. `run` returns both kinds,
    with everything else that the server says about an answer.

    A call that is answered with UNAVAILABLE is tried again within its timeout, see `Retry`; nothing else is. With
    several urls calls take turns among the servers, and a call that one refuses goes to the next at once.

    A client holds one gRPC channel to each server. Make it once and share it, also among threads. After a fork, make
    a new one: gRPC objects made before it hang in the child.

    Args:
        url: host and port of Triton's gRPC service, or several of servers alike; gRPC's other forms work too, e.g.
            `"dns:///triton:8001"`.
        model: the model's name in Triton's repository.
        model_version: its version there, e.g. `"1"`; empty for the one that the server prefers.
        timeout: seconds that a call may take unless it says otherwise; None for no limit.
        tls: how to encrypt; None sends in the clear.
        keepalive: how a dead connection is found out.
        channel_args: further gRPC channel arguments, which win over this client's own. Round robin over the
            addresses of a name: `[("grpc.lb_policy_name", "round_robin")]` with a `dns:///` url.
        headers: gRPC metadata that goes with each call, e.g. `{"triton-grpc-protocol-<key>": "<value>"}` for
            protocols that Triton is told to restrict.
        access_token: goes with each call as `authorization: Bearer ...`; a function is asked for the current one each
            time. Without `tls` it travels in the clear, to a proxy on the same machine at most.
        retry: how a call is tried again that finds no server with room; None tries each server once.

    Raises:
        TypeError: an argument has the wrong type.
        InvalidArgumentError: an argument is out of its range.
        OSError: a file of `tls` cannot be read.
    """

    def _connect(self, destination: Destination) -> None:
        self._transport = Transport(destination)

    def caption(self, image: ImageSource, detail: CaptionDetail = "brief", **options: Unpack[TaskOptions]) -> Text:
        """Describe the image.

        Args:
            image: a path, a file's bytes, a file object, a PIL image or an array; see the class.
            detail: `"brief"` for one sentence, `"detailed"` for a few, `"paragraph"` for a paragraph.
            **options: see `TaskOptions`.
        """
        return self._ask(image, _questions.caption(detail), options)

    def detect(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Find objects. The labels are category names, the boxes pixels."""
        return self._ask(image, _questions.detect(), options)

    def describe_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Find and describe regions (dense region caption). The labels are descriptions, the boxes pixels."""
        return self._ask(image, _questions.describe_regions(), options)

    def propose_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Find regions worth looking at. The labels are empty, the boxes pixels."""
        return self._ask(image, _questions.propose_regions(), options)

    def ground(self, image: ImageSource, caption: Phrases, **options: Unpack[TaskOptions]) -> Detections:
        """Find the phrases of a caption in the image. The labels are phrases, the boxes pixels.

            found = client.ground("street.jpg", ["a green car", "a dog"])

        Args:
            image: a path, a file's bytes, a file object, a PIL image or an array; see the class.
            caption: what the image shows, e.g. `"a dog beside a green car"`, or a sequence of phrases. Nothing may be
                blank; including the task's own words, at most 447 tokens (for official checkpoints). It is read as
                plain text, except for `<and>`, the model's own separator, which also joins the phrases of a sequence.
            **options: see `TaskOptions`.
        """
        return self._ask(image, _questions.ground(caption), options)

    def detect_open_vocabulary(self, image: ImageSource, query: Phrases, **options: Unpack[TaskOptions]) -> Detections:
        """Find what is named in free words. Boxes are pixels, and so are `polygons` where there are any.

            found = client.detect_open_vocabulary("street.jpg", ["a car", "a building"])

        Args:
            image: a path, a file's bytes, a file object, a PIL image or an array; see the class.
            query: what to look for, e.g. `"a green car"`, or a sequence of queries; limits and `<and>` as for the
                caption of `ground`.
            **options: see `TaskOptions`.
        """
        return self._ask(image, _questions.detect_open_vocabulary(query), options)

    def segment(self, image: ImageSource, expression: str, **options: Unpack[TaskOptions]) -> Segmentation:
        """Outline what an expression refers to, in polygons of pixels.

        Args:
            image: a path, a file's bytes, a file object, a PIL image or an array; see the class.
            expression: e.g. `"the dog on the left"`; limits as for the caption of `ground`.
            **options: see `TaskOptions`.
        """
        return self._ask(image, _questions.segment(expression), options)

    def segment_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Segmentation:
        """Outline the object in a region, in polygons of pixels.

        Args:
            image: a path, a file's bytes, a file object, a PIL image or an array; see the class.
            region: x_min, y_min, x_max, y_max in pixels, e.g. a row of `Detections.boxes` that is `usable`. It must be
                neither empty nor inverted; edges up to one pixel outside the image are clamped to it. The server
                checks this, because the image's displayed size is known only after decoding.
            **options: see `TaskOptions`.
        """
        return self._ask(image, _questions.segment_region(region), options)

    def classify_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Name the category of the object in a region, a box in pixels as for `segment_region`."""
        return self._ask(image, _questions.classify_region(region), options)

    def describe_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Describe a region, a box in pixels as for `segment_region`."""
        return self._ask(image, _questions.describe_region(region), options)

    def read_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Read the text in a region, a box in pixels as for `segment_region`."""
        return self._ask(image, _questions.read_region(region), options)

    def read_text(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Text:
        """Read the text in the image (OCR)."""
        return self._ask(image, _questions.read_text(), options)

    def read_text_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> TextRegions:
        """Read the text in the image, and outline each piece: a quad of four corners in pixels."""
        return self._ask(image, _questions.read_text_regions(), options)

    def generate(self, image: ImageSource, prompt: str, **options: Unpack[TaskOptions]) -> Text:
        """Answer any other prompt, for checkpoints that were fine-tuned with prompts of their own.

        Args:
            image: a path, a file's bytes, a file object, a PIL image or an array; see the class.
            prompt: as the model is to read it, e.g. `"<DocVQA>What is the total?"`. Not empty; not one of an
                official task whose answer is more than words, which have methods of their own.
            **options: see `TaskOptions`.
        """
        return self._ask(image, _questions.generate(prompt), options)

    def run(self, image: ImageSource, request: v1.TaskRequest, **options: Unpack[CallOptions]) -> Answer:
        """Send any request, and return all that the server says about its answer, truncated or not.

        Args:
            image: a path, a file's bytes, a file object, a PIL image or an array; see the class.
            request: a task or a prompt, and generation options. It is not changed; its `raw` does not matter,
                since the answer is always decoded here.
            **options: `timeout`, `priority` and `request_id`, see `CallOptions`.

        Returns:
            The result, the generated text, its tokens' log-probabilities, the image's size, why the answer ended, and
            what it cost.

        Raises:
            TypeError: an argument has the wrong type.
            InvalidArgumentError: the request or the image is wrong, now and ever after.
            UnavailableError: the server is full, starting or unreachable; trying again is safe.
            DeadlineExceededError: `timeout` seconds have passed.
            RequestCancelledError: the client was closed while the call was in flight.
            ServerError: a fault of the server, a model that it does not have, or an unreadable response.
            TypeError: `image` has a type that `ImageSource` does not list.
            OSError: `image` is a path that cannot be read.
            RuntimeError: the client is closed.
        """
        return self._answer(image, self._run_call(request, options))

    def is_ready(self, *, timeout: float | None = 5.0) -> bool:
        """Whether a server can be reached, each within `timeout` seconds, and says that the model is loaded.

        Raises:
            ServerError: the server answers with an error, e.g. that the caller is not permitted.
            RuntimeError: the client is closed.
        """
        self._require_open()
        return self._transport.is_ready(check_timeout(timeout))

    def health(self, *, timeout: float = 1.0) -> list[Health]:
        """How each server is, in the order of the urls: Triton, the model, and the engine behind it.

        Args:
            timeout: seconds that a server has for each of the three. A server that says nothing is `unreachable`.

        Raises:
            RuntimeError: the client is closed.
        """
        self._require_open()
        return self._transport.health(check_seconds("timeout", timeout))

    def close(self) -> None:
        """Close the connection; calls in flight end with `RequestCancelledError`. May be called again."""
        self._is_closed = True
        self._transport.close()

    def __enter__(self) -> Self:
        self._require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, image: ImageSource, question: Question[Answered], options: TaskOptions) -> Answered:
        return self._whole_result(self._answer(image, self._task_call(question, options)), question)

    def _answer(self, image: ImageSource, call: Call) -> Answer:
        encoded = encode_image(image)
        # Not before: encoding takes time, in which another thread may close the client.
        self._require_open()
        reply = self._transport.infer(encoded, call)
        return read_answer(call, reply.payload, reply.url)
