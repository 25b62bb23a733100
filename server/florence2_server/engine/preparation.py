"""From a message to a generation, and from its completion to a response."""

import time

from florence2.v1 import FinishReason as FinishReasonMessage
from florence2.v1 import ImageSize, Usage

from florence2_server.engine.adapters.adapter_set import AdapterSet
from florence2_server.engine.adapters.loaded_adapter import LoadedAdapter
from florence2_server.engine.completion import Completion, FinishReason
from florence2_server.engine.generation import Generation
from florence2_server.engine.images.decoding import ImageDecoder
from florence2_server.engine.images.encoded_image import encoded_image
from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.options import GenerationDefaults
from florence2_server.engine.search_options import SearchOptions
from florence2_server.engine.searches import start_search
from florence2_server.engine.token_stream import TokenStream
from florence2_server.engine.tokenizer import PromptTokenizer
from florence2_server.v1.engine_pb2 import GenerateRequest, GenerateResponse

_FINISH_REASONS = {
    FinishReason.STOP: FinishReasonMessage.FINISH_REASON_STOP,
    FinishReason.LENGTH: FinishReasonMessage.FINISH_REASON_LENGTH,
}
_MILLISECONDS = 1000


class Preparation:
    """Translates between messages and the engine. Safe to use from several threads.

    Args:
        images: decodes images.
        tokenizer: encodes prompts and decodes completions.
        defaults: the checkpoint's generation options.
        adapters: those that requests can name.
    """

    def __init__(
        self, images: ImageDecoder, tokenizer: PromptTokenizer, defaults: GenerationDefaults, adapters: AdapterSet
    ) -> None:
        self._images = images
        self._tokenizer = tokenizer
        self._defaults = defaults
        self.adapters = adapters

    def prepare(self, message: GenerateRequest) -> Generation:
        """Check the options, decode the image, and tokenize the prompt.

        Raises:
            InvalidArgumentError: the request is wrong; the message names the field, the value and the limit.
            ImageFileError: the image was passed in a file that cannot be read.
        """
        received = time.monotonic()
        options = self._defaults.complete(message.generation)
        if not message.adapter:
            return self._generation(message, options, received, None)
        adapter = self.adapters.acquire(message.adapter, message.plan)
        try:
            generation = self._generation(message, options, received, adapter)
        except BaseException:
            self.adapters.release(adapter)
            raise
        generation.future.add_done_callback(lambda _: self.adapters.release(adapter))
        return generation

    def _generation(
        self, message: GenerateRequest, options: SearchOptions, received: float, adapter: LoadedAdapter | None
    ) -> Generation:
        vision = adapter.index if adapter is not None and adapter.changes_images else BASE
        image = self._images.decode(encoded_image(message), vision)
        prompt_ids = self._tokenizer_of(adapter).encode(message.prompt, image.size)
        return Generation(image, prompt_ids, start_search(options, prompt_ids), received, adapter=adapter)

    def _tokenizer_of(self, adapter: LoadedAdapter | None) -> PromptTokenizer:
        return self._tokenizer if adapter is None else adapter.tokenizer

    def stream(self, generation: Generation) -> TokenStream:
        """The tokens of a generation that is yet to be submitted, as they become certain."""
        return TokenStream(generation, self._tokenizer_of(generation.adapter).start_decoding())

    def response(self, generation: Generation, completion: Completion) -> GenerateResponse:
        """The response to the message that `generation` was prepared from."""
        width, height = generation.image.size
        text, token_ends = self._tokenizer_of(generation.adapter).decode(completion.token_ids)
        return GenerateResponse(
            text=text,
            token_log_probabilities=completion.log_probabilities,
            token_masses=completion.masses,
            token_ends=token_ends[1:],  # the first token is the decoder start token, which is not generated
            image_size=ImageSize(width=width, height=height),
            finish_reason=_FINISH_REASONS[completion.finish_reason],
            usage=_usage(generation, completion),
            first_token_milliseconds=generation.first_token_seconds * _MILLISECONDS,
        )


def _usage(generation: Generation, completion: Completion) -> Usage:
    return Usage(
        prompt_tokens=len(generation.prompt_ids),
        generated_tokens=len(completion.log_probabilities),
        queue_milliseconds=generation.queue_seconds * _MILLISECONDS,
        encode_milliseconds=generation.encode_seconds * _MILLISECONDS,
        decode_milliseconds=generation.decode_seconds * _MILLISECONDS,
        image_embedding_cached=generation.image_embedding_cached,
    )
