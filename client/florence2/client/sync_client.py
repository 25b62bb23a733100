"""`Client`: Florence-2 with a method for each task, blocking."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Self, Unpack

from florence2 import v1
from florence2._arguments import check_seconds, check_timeout
from florence2.client import typed_plans
from florence2.client.answers import Answer
from florence2.client.docstrings import document
from florence2.client.event_reader import EventReader
from florence2.client.events import Event, EventStream
from florence2.client.mapping import ImageT, MapOutcome, MapRequests, MapTask, check_concurrency, check_images
from florence2.client.sync_map import map_in_threads
from florence2.client.sync_tasks import SyncTasks
from florence2.client.typed_plans import RegionDetector, RegionTask
from florence2.client.typed_requests import CaptionDetail, Phrases
from florence2.errors import Florence2Error
from florence2.images import ImageSource, encode_image
from florence2.options import CallOptions, RunOptions, TaskOptions, set_options
from florence2.plan_results import GroundedCaption, RegionAnalysis
from florence2.transports.destination import Destination
from florence2.transports.protocol import (
    Cancellation,
    Health,
    Reply,
    RequestContext,
    ServerInfo,
    ServerInfoTransport,
    StreamingTransport,
    Transport,
)
from florence2.transports.triton import TritonTransport


@document
class Client(SyncTasks):
    """A client of a Triton server that serves Florence-2.

        with Client("localhost:8001") as client:
            for box, label, *_ in client.detect("street.jpg"):
                print(label, box)

    An image is anything that `ImageSource` lists: a path, `bytes`, a `bytearray` or `memoryview`, a binary file object,
    a PIL image, or a `uint8` array of shape (H, W), (H, W, 3) or (H, W, 4). Files are sent unchanged; PIL images and
    arrays are sent losslessly as they are displayed, with transparency composited on white. URLs are not fetched.

    Coordinates of regions and results are float pixels of the image as displayed (EXIF orientation applied), with x
    increasing to the right and y downward from the top left corner.

    Scores of results, 0 to 1, are for thresholds: of the items with scores around 0.9, about nine in ten should be
    right. `florence2.scores` defines scores and likelihoods.

    Answers are only as good as the server's checkpoint. The demo checkpoint knows three drawn shapes and fourteen
    words; on other images its answers are wrong, even if their scores are high.

    All task methods take the options of `TaskOptions` as keywords, and return the bare result of a complete answer.
    `run` also returns truncated answers, with everything else that the server reports. `run_tasks`, `ground_caption`
    and `analyze_regions` do several things in one request; `stream` shows an answer while it is generated; `map` sends
    requests about many images at once.
    `florence2.errors` lists the errors; `help(Client.detect)` lists options and errors together.

    A request that fails with UNAVAILABLE is retried until its deadline, see `Retry`; nothing else is retried. So a
    client may be started before its server. With several urls, requests are distributed round robin; a request that
    fails with UNAVAILABLE goes to the next server at once, and the server that failed is avoided for a while.

    A client holds one gRPC channel to each server. Create it once and share it, also between threads. After a fork,
    create a new one: gRPC objects made before the fork hang in the child process.

    Args:
        url: host and port of Triton's gRPC service, or a sequence of them for several replicas. gRPC's other target
            names work too, e.g. `"dns:///triton:8001"`.
        transport: sends the requests, see `florence2.transports`. It replaces the settings of the connection, which are
            all other arguments except `timeout`. It is closed with the client.
        model: the model's name in Triton's repository. `stream` uses the one with `_stream` after that name.
        model_version: its version there, e.g. `"1"`; empty for the one that the server prefers. Not for `stream`.
        timeout: default timeout of a request in seconds; None for no limit.
        tls: encryption; None for an unencrypted connection.
        keepalive: detection of broken connections.
        channel_args: further gRPC channel arguments, which override this client's own. Round robin over the addresses
            of a name: `[("grpc.lb_policy_name", "round_robin")]` with a `dns:///` url.
        headers: gRPC metadata of each call, e.g. `{"triton-grpc-protocol-<key>": "<value>"}` for protocols that Triton
            is configured to restrict.
        access_token: sent with each call as `authorization: Bearer ...`; a function is called for the current token
            before each attempt. Without `tls` it is not encrypted: use it only with a proxy on the same machine then.
        retry: retries of requests that fail with UNAVAILABLE; None tries each server once.

    Raises:
        TypeError: an argument has the wrong type.
        InvalidArgumentError: an argument is out of range, or both a transport and settings of the connection are given.
        OSError: a file of `tls` cannot be read.
    """

    _protocol = Transport

    def _connect(self, destination: Destination) -> Transport:
        return TritonTransport(destination)

    def ground_caption(
        self, image: ImageSource, detail: CaptionDetail = "brief", **options: Unpack[TaskOptions]
    ) -> GroundedCaption:
        """Describe the image, then find the phrases of that description in it: one request of two steps.

        The result shows if the second step failed, or if either was truncated; neither raises an error.

        Args:
            image: an image, see `ImageSource`.
            detail: as for `caption`.
        """
        result = self._run_plan(image, typed_plans.ground_caption(detail), options).result
        assert isinstance(result, GroundedCaption)
        return result

    def analyze_regions(
        self,
        image: ImageSource,
        region_task: RegionTask = "description",
        *,
        detector: RegionDetector | None = None,
        caption: Phrases | None = None,
        query: Phrases | None = None,
        max_regions: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> RegionAnalysis:
        """Detect objects, then run a task about the region of each: one request, whose image is sent and encoded once.

        The result shows which regions failed and what was truncated; neither raises an error. A request has a limited
        number of steps, which is a setting of the server: regions beyond it have an error.

        Args:
            image: an image, see `ImageSource`.
            region_task: `"description"`, `"category"`, `"text"` or `"segmentation"`, which turns boxes into outlines.
            detector: `"objects"` as `detect`, which is the default; `"descriptions"` as `describe_regions`;
                `"proposals"` as `propose_regions`.
            caption: instead of a detector, find the phrases of a caption, as `ground`.
            query: instead of a detector, find what is described, as `detect_open_vocabulary`.
            max_regions: the maximum number of regions, the first ones of the detector; None for all.
        """
        request = typed_plans.analyze_regions(region_task, detector, caption, query, max_regions)
        result = self._run_plan(image, request, options).result
        assert isinstance(result, RegionAnalysis)
        return result

    def run_tasks(
        self, image: ImageSource, requests: Sequence[v1.TaskRequest], **options: Unpack[TaskOptions]
    ) -> list[Answer | Florence2Error]:
        """Send several requests about one image at once, which is sent, decoded and encoded once.

        Returns an answer, truncated or not, or an error for each request, in their order. An error is raised only if
        the request as a whole is invalid or not answered, or if none of its tasks succeeds.

        Args:
            image: an image, see `ImageSource`.
            requests: tasks, prompts or cascades. They are not changed; their `raw` does not matter. An adapter and
                generation options that are given as keywords apply to each request that does not set them itself. The
                server limits the number of requests by a setting, 16 unless configured otherwise.
        """
        answer = self._run_plan(image, typed_plans.run_tasks(requests), options)
        return [step.outcome for step in answer.steps]

    def run(self, image: ImageSource, request: v1.TaskRequest, **options: Unpack[RunOptions]) -> Answer:
        """Send any request, and return everything that the server reports about its answer, truncated or not.

        Args:
            image: an image, see `ImageSource`.
            request: a task, a prompt, a cascade or a task list, with its adapter and its generation options. It is not
                changed; its `raw` does not matter, because answers are always decoded by the client. Its priority and
                timeout apply unless the options set their own.
        """
        # A copy, because the request belongs to the caller.
        return self._send(image, self._copied(request, options, RunOptions.__optional_keys__), options)

    def stream(self, image: ImageSource, request: v1.TaskRequest, **options: Unpack[CallOptions]) -> EventStream:
        """Send any request, and receive events while it is answered: text, detections and text regions, steps.

            for event in client.stream("page.png", v1.TaskRequest(ocr_with_region={})):
                if isinstance(event, florence2.ItemFound):
                    print(event.item.label)

        The last event is `Finished`, with the answer that `run` would return. Iterating raises the errors of `run`. A
        request that fails with UNAVAILABLE is retried only before its first event. Leaving the stream early cancels the
        request; use it in a `with` block to do so at a definite time. `timeout` covers the stream as a whole.
        A `TypeError` is also raised if the client has a transport that does not stream.

        Args:
            image: an image, see `ImageSource`.
            request: as for `run`, except for `raw`: if it is set, the events contain no items and are smaller.
        """
        if not isinstance(self._transport, StreamingTransport):
            raise self._lacks_method("stream")
        copy = self._copied(request, options, CallOptions.__optional_keys__)
        return EventStream(self._events(self._transport, image, copy, self._prepare(copy, options)))

    def map(
        self,
        images: Iterable[ImageT],
        task: MapTask[ImageT],
        *,
        concurrency: int = 16,
        ordered: bool = True,
        **options: Unpack[TaskOptions],
    ) -> Generator[MapOutcome[ImageT], None, None]:
        """Send requests about many images, several at once, and yield a `MapOutcome` for each: an answer or an error.

            for outcome in client.map(Path("pictures").glob("*.jpg"), "caption"):
                print(outcome.image, outcome.error or outcome.result)

        An error of one image, such as a file that does not exist, is in its outcome and does not stop the others. An
        exception from `images` itself is raised and ends the iteration, as does any that is not listed below. Leaving
        the loop early cancels the requests in flight: at once with `contextlib.closing`, else when the iterator is
        freed. If the transport cannot cancel requests, leaving the loop waits for them.

        Images are taken lazily, in the thread that iterates. At most three times `concurrency` images, with their
        outcomes, are in memory at once, or twice if not `ordered`.

        The number of requests in flight is limited to 4 at first. The limit grows with each answer, up to
        `concurrency`, and is halved when the servers refuse a request because they are full. A refused request is
        retried until its deadline; its `timeout` starts when it is first sent.

        Args:
            images: any iterable, also a lazy one, see `ImageSource`.
            task: a `florence2.v1.TaskRequest`; the name of a method that needs nothing but an image (`"detect"`), or
                its official token (`"<OD>"`); or a function that returns an image's request, called in other threads.
            concurrency: the maximum number of requests in flight.
            ordered: whether outcomes are yielded in the order of the images, rather than as they arrive.
        """
        self._require_open()
        requests, limit = MapRequests(task, options), check_concurrency(concurrency)
        return map_in_threads(check_images(images), requests, self._send_mapped, limit, ordered=ordered)

    def is_ready(self, *, timeout: float | None = 5.0) -> bool:
        """Whether at least one server can be reached and has loaded the model.

        Args:
            timeout: seconds for each server; None for no limit.

        Raises:
            ServerError: a server responds with an error, e.g. that access is denied.
            RuntimeError: the client is closed.
        """
        self._require_open()
        return self._transport.is_ready(check_timeout(timeout))

    def health(self, *, timeout: float = 1.0) -> list[Health]:
        """The state of each server, in the order of the urls: Triton, the model, and the engine behind it.

        Args:
            timeout: seconds for each of these three. A server that does not respond is `unreachable`.

        Raises:
            RuntimeError: the client is closed.
        """
        self._require_open()
        return list(self._transport.health(check_seconds("timeout", timeout)))

    def server_info(self, *, timeout: float = 1.0) -> list[ServerInfo]:
        """What each server serves, in the order of the urls: checkpoint, revision, device, slots and adapters.

        Args:
            timeout: seconds for each server. Nothing is retried.

        Raises:
            DeadlineExceededError: a server did not respond in time.
            UnavailableError: a server cannot be reached.
            ServerError: a server does not report it, because it is older than this method.
            TypeError: the client's transport does not know what is served.
            RuntimeError: the client is closed.
        """
        self._require_open()
        if not isinstance(self._transport, ServerInfoTransport):
            raise self._lacks_method("server_info")
        return list(self._transport.server_info(check_seconds("timeout", timeout)))

    def close(self) -> None:
        """Close the transport; requests in flight end with `RequestCancelledError`. May be called again."""
        self._is_closed = True
        self._transport.close()

    def __enter__(self) -> Self:
        self._require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run_plan(self, image: ImageSource, request: v1.TaskRequest, options: TaskOptions) -> Answer:
        set_options(request, options)
        return self._send(image, request, options)

    def _send_mapped(
        self,
        encoded: bytes,
        request: v1.TaskRequest,
        options: RunOptions,
        cancellation: Cancellation,
        on_refusal: Callable[[float], None],
    ) -> Answer:
        context = replace(self._prepare(request, options), cancellation=cancellation, on_refusal=on_refusal)
        filters = self._filters(request, options)
        return filters.apply(self._answer(encoded, request, context, self._infer_mapped))

    def _infer_mapped(self, encoded: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        if self._map_attempts is None:
            return self._transport.infer(encoded, request, context)
        assert context.cancellation is not None, "as every request of `map`"
        sleep = context.cancellation.wait
        return self._map_attempts.run(context, sleep, lambda _: self._transport.infer(encoded, request, context))

    def _events(
        self, transport: StreamingTransport, image: ImageSource, request: v1.TaskRequest, context: RequestContext
    ) -> Generator[Event, None, None]:
        encoded = encode_image(image)
        self._require_open()
        reader = EventReader(request, context)
        with (
            self._streaming(request, context) as traced,
            closing(transport.stream(encoded, request, traced)) as replies,
        ):
            for reply in replies:
                yield from reader.read(reply)
            reader.check_finished()
