"""The gRPC face of the engine, on a unix socket."""

import logging
import os
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import NoReturn

import grpc
from florence2.engine.v1.engine_pb2 import GenerateRequest, GenerateResponse, HeartbeatRequest, HeartbeatResponse
from florence2.engine.v1.engine_pb2_grpc import EngineServiceServicer, add_EngineServiceServicer_to_server
from florence2.errors import InvalidArgumentError
from florence2.v1 import FinishReason as FinishReasonMessage
from florence2.v1 import ImageSize, Usage

from florence2_engine.engine import Engine
from florence2_engine.errors import EngineClosedError, ImageFileError
from florence2_engine.images import ImageDecoder
from florence2_engine.memory import reserved_device_bytes, resident_bytes
from florence2_engine.options import GenerationDefaults
from florence2_engine.request import Answer, FinishReason, Request
from florence2_engine.search import start_search
from florence2_engine.sent_image import sent_image
from florence2_engine.tokenizer import PromptTokenizer

_logger = logging.getLogger(__name__)

_FINISH_REASONS = {
    FinishReason.STOP: FinishReasonMessage.FINISH_REASON_STOP,
    FinishReason.LENGTH: FinishReasonMessage.FINISH_REASON_LENGTH,
}
_MILLISECONDS = 1000


class EngineService(EngineServiceServicer):
    """Checks and decodes on the call's own thread, then waits for the engine.

    Args:
        engine: who answers.
        images: decodes them.
        tokenizer: of prompts and answers.
        defaults: of the generation options.
        abort_on: a prompt that kills the process, for tests of what survives that; empty: none does.
    """

    def __init__(
        self,
        engine: Engine,
        images: ImageDecoder,
        tokenizer: PromptTokenizer,
        defaults: GenerationDefaults,
        abort_on: str = "",
    ) -> None:
        self._engine = engine
        self._images = images
        self._tokenizer = tokenizer
        self._defaults = defaults
        self._abort_on = abort_on

    def Generate(self, request: GenerateRequest, context: grpc.ServicerContext) -> GenerateResponse:  # noqa: N802
        """Answer one prompt about one image."""
        try:
            work = self.prepare(request)
        except InvalidArgumentError as error:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ImageFileError as error:  # not CANCELLED, which means a lost engine unless the caller left
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        if context.add_callback(lambda: _cancel(work)):  # false: the caller has left already
            self._engine.submit(work)
        else:
            work.future.cancel()
        return self._response(work, self._wait(work, context))

    def Heartbeat(self, request: HeartbeatRequest, context: grpc.ServicerContext) -> HeartbeatResponse:  # noqa: ARG002, N802
        """Say how long the engine's loop has not come around, and what it is at."""
        figures = self._engine.figures
        return HeartbeatResponse(
            seconds_without_progress=self._engine.seconds_without_progress,
            waiting_requests=figures.waiting,
            running_requests=figures.running,
            decode_steps=figures.decode_steps,
            decode_rows=figures.decode_rows,
            image_embedding_cache_bytes=self._engine.embeddings.bytes,
            host_memory_bytes=resident_bytes(),
            device_memory_bytes=reserved_device_bytes(),
        )

    def prepare(self, request: GenerateRequest) -> Request:
        """What the engine is asked: the image decoded, the prompt in tokens, the options complete.

        Raises:
            InvalidArgumentError: it names the field, the value and the limit.
            ImageFileError: the image is in a file that cannot be read.
        """
        received = time.monotonic()
        if self._abort_on and any(self._abort_on in (part.text, part.markup) for part in request.prompt):
            os.abort()
        options = self._defaults.complete(request.generation)
        image = self._images.decode(sent_image(request))
        prompt_ids = self._tokenizer.encode(request.prompt, image.size)
        return Request(image, prompt_ids, start_search(options, prompt_ids), received=received)

    def _wait(self, work: Request, context: grpc.ServicerContext) -> Answer:
        try:
            return work.future.result()
        except CancelledError:
            _abort(context, grpc.StatusCode.CANCELLED, "the caller left")
        except EngineClosedError as error:
            _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))
        except Exception as error:  # noqa: BLE001 - logged with its trace by the engine; the caller gets the line
            _abort(context, grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    def _response(self, work: Request, answer: Answer) -> GenerateResponse:
        width, height = work.image.size
        hypothesis = answer.hypothesis
        text, token_ends = self._tokenizer.decode(hypothesis.token_ids)
        return GenerateResponse(
            text=text,
            token_log_probabilities=hypothesis.log_probabilities,
            token_ends=token_ends[1:],  # the first token is the decoder start token, which is not generated
            image_size=ImageSize(width=width, height=height),
            finish_reason=_FINISH_REASONS[hypothesis.finish_reason],
            usage=Usage(
                prompt_tokens=len(work.prompt_ids),
                generated_tokens=len(hypothesis.log_probabilities),
                queue_milliseconds=answer.queue_seconds * _MILLISECONDS,
                encode_milliseconds=answer.encode_seconds * _MILLISECONDS,
                decode_milliseconds=answer.decode_seconds * _MILLISECONDS,
                image_embedding_cached=answer.image_embedding_cached,
            ),
            first_token_milliseconds=answer.first_token_seconds * _MILLISECONDS,
        )


def _cancel(work: Request) -> None:
    work.future.cancel()


def _abort(context: grpc.ServicerContext, status: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(status, message)
    raise AssertionError("abort raises")  # said for the type checker: grpc has no types


def serve(service: EngineService, socket: str, calls: int) -> grpc.Server:
    """Start serving.

    Args:
        service: who answers.
        socket: path of the unix socket; its folder decides who may connect.
        calls: the most calls at once.
    """
    # The default limit of 4 MiB is smaller than a photograph; what is too large is the image decoder's to say.
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(calls, thread_name_prefix="call"), options=unlimited)
    add_EngineServiceServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    return server
