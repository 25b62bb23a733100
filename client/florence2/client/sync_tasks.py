"""The methods of `Client` for a single task."""

from collections.abc import Callable
from typing import TypeAlias, Unpack

from florence2 import v1
from florence2.client import typed_requests
from florence2.client.answers import Answer
from florence2.client.base_client import BaseClient
from florence2.client.docstrings import document
from florence2.client.reading import Origin, read_answer
from florence2.client.typed_requests import CaptionDetail, Phrases, Region, ResultT, TypedRequest
from florence2.images import ImageSource, encode_image
from florence2.options import RunOptions, TaskOptions, set_options
from florence2.results import Detections, Segmentation, Text, TextRegions
from florence2.transports.protocol import Reply, RequestContext, Transport

Infer: TypeAlias = Callable[[bytes, v1.TaskRequest, RequestContext], Reply]
"""The method `infer` of a transport, or a function that also retries."""


@document
class SyncTasks(BaseClient[Transport]):
    """A method for each task, blocking, which returns the bare result of a complete answer."""

    def caption(self, image: ImageSource, detail: CaptionDetail = "brief", **options: Unpack[TaskOptions]) -> Text:
        """Describe the image.

        Args:
            image: an image, see `ImageSource`.
            detail: `"brief"` for one sentence, `"detailed"` for a few, `"paragraph"` for a paragraph.
        """
        return self._run_task(image, typed_requests.caption(detail), options)

    def detect(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Detect objects: boxes in pixels, with category names as labels.

        Args:
            image: an image, see `ImageSource`.
        """
        return self._run_task(image, typed_requests.detect(), options)

    def describe_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Find and describe regions (dense region caption): boxes in pixels, with descriptions as labels.

        Args:
            image: an image, see `ImageSource`.
        """
        return self._run_task(image, typed_requests.describe_regions(), options)

    def propose_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Propose regions of interest: boxes in pixels, with empty labels.

        Args:
            image: an image, see `ImageSource`.
        """
        return self._run_task(image, typed_requests.propose_regions(), options)

    def ground(self, image: ImageSource, caption: Phrases, **options: Unpack[TaskOptions]) -> Detections:
        """Find the phrases of a caption in the image: boxes in pixels, with the phrases as labels.

        Args:
            image: an image, see `ImageSource`.
            caption: what the image shows, e.g. `"a dog beside a green car"`, or a sequence of phrases, e.g.
                `["a green car", "a dog"]`. Neither may be blank; at most 447 tokens (with official checkpoints),
                including the task's own words. Special tokens in it are plain text, except `<and>`, the model's own
                separator, which also joins the phrases of a sequence.
        """
        return self._run_task(image, typed_requests.ground(caption), options)

    def detect_open_vocabulary(self, image: ImageSource, query: Phrases, **options: Unpack[TaskOptions]) -> Detections:
        """Detect objects by free descriptions: boxes in pixels, and `polygons` if the model gives any.

        Args:
            image: an image, see `ImageSource`.
            query: what to look for, e.g. `"a green car"`, or a sequence of queries, e.g. `["a car", "a building"]`.
                Limits and `<and>` as for the caption of `ground`.
        """
        return self._run_task(image, typed_requests.detect_open_vocabulary(query), options)

    def segment(self, image: ImageSource, expression: str, **options: Unpack[TaskOptions]) -> Segmentation:
        """Outline what an expression refers to, as polygons in pixels.

        Args:
            image: an image, see `ImageSource`.
            expression: e.g. `"the dog on the left"`; limits as for the caption of `ground`.
        """
        return self._run_task(image, typed_requests.segment(expression), options)

    def segment_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Segmentation:
        """Outline the object in a region, as polygons in pixels.

        Args:
            image: an image, see `ImageSource`.
            region: x_min, y_min, x_max, y_max in pixels, e.g. one of `Detections.boxes` that is `usable`. It must be
                neither empty nor inverted; edges up to one pixel outside the image are clamped to it. The server
                checks this, because the image's displayed size is known only after decoding.
        """
        return self._run_task(image, typed_requests.segment_region(region), options)

    def classify_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Name the category of the object in a region.

        Args:
            image: an image, see `ImageSource`.
            region: a box in pixels, see `segment_region`.
        """
        return self._run_task(image, typed_requests.classify_region(region), options)

    def describe_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Describe a region.

        Args:
            image: an image, see `ImageSource`.
            region: a box in pixels, see `segment_region`.
        """
        return self._run_task(image, typed_requests.describe_region(region), options)

    def read_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Read the text in a region.

        Args:
            image: an image, see `ImageSource`.
            region: a box in pixels, see `segment_region`.
        """
        return self._run_task(image, typed_requests.read_region(region), options)

    def read_text(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Text:
        """Read the text in the image (OCR).

        Args:
            image: an image, see `ImageSource`.
        """
        return self._run_task(image, typed_requests.read_text(), options)

    def read_text_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> TextRegions:
        """Read the text in the image, and outline each piece as a quad of four corners in pixels.

        Args:
            image: an image, see `ImageSource`.
        """
        return self._run_task(image, typed_requests.read_text_regions(), options)

    def generate(self, image: ImageSource, prompt: str, **options: Unpack[TaskOptions]) -> Text:
        """Answer a prompt, for checkpoints that were fine-tuned with prompts of their own.

        Args:
            image: an image, see `ImageSource`.
            prompt: passed to the model unchanged, e.g. `"<DocVQA>What is the total?"`. Not empty, and not the prompt of
                an official task whose answer has locations; those have methods of their own.
        """
        return self._run_task(image, typed_requests.generate(prompt), options)

    def _run_task(self, image: ImageSource, typed: TypedRequest[ResultT], options: TaskOptions) -> ResultT:
        set_options(typed.request, options)
        return self._whole_result(self._send(image, typed.request, options), typed.result_type)

    def _send(self, image: ImageSource, request: v1.TaskRequest, options: RunOptions) -> Answer:
        context = self._prepare(request, options)
        filters = self._filters(request, options)
        encoded = encode_image(image)
        return filters.apply(self._answer(encoded, request, context, self._transport.infer))

    def _answer(self, encoded: bytes, request: v1.TaskRequest, context: RequestContext, infer: Infer) -> Answer:
        # Answers are decoded here: the server need not do it, and responses stay small.
        request.raw = True
        # Not before: another thread may close the client while the image is encoded.
        self._require_open()
        with self._sending(request, context) as traced:
            reply = infer(encoded, request, traced)
        return read_answer(request, reply.response, Origin(context.request_id, reply.url, context.timeout))
