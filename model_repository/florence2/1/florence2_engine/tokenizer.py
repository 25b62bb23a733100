"""Prompt parts -> token ids, token ids -> text."""

import codecs
import itertools
import re
from collections.abc import Iterable
from typing import Any

from florence2.engine.v1.engine_pb2 import PromptPart
from florence2.errors import InvalidArgumentError
from florence2.locations import region_bins
from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from florence2_engine.limits import Limit

# Byte-level tokenizers write each byte as a printable character.
_CHARACTERS_OF_BYTES: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]
_BYTES_OF_CHARACTERS = {character: byte for byte, character in _CHARACTERS_OF_BYTES.items()}


class PromptTokenizer:
    """The checkpoint's tokenizer, safe against callers' words.

    A caller's text may contain anything, `<loc_5>`, `</s>` or `<image>` included, and must not turn into special
    tokens. So words are encoded by a copy of the tokenizer that knows no added token at all.

    Args:
        tokenizer: the checkpoint's Hugging Face tokenizer.
        longest_prompt: the most tokens of a prompt, start and end token included.
    """

    def __init__(self, tokenizer: Any, longest_prompt: Limit) -> None:
        self._tokenizer = tokenizer
        self._longest_prompt = longest_prompt
        self._plain = _without_added_tokens(tokenizer)
        self._added: frozenset[str] = frozenset(tokenizer.get_added_vocab())
        self._token_bytes: dict[int, bytes] = {}
        self._markup = _prompt_tokens(tokenizer)
        self._markup_pattern = re.compile("|".join(sorted(map(re.escape, self._markup), key=len, reverse=True)))
        self.bos_token_id: int = tokenizer.bos_token_id
        self.eos_token_id: int = tokenizer.eos_token_id

    def encode(self, parts: Iterable[PromptPart], image_size: tuple[int, int]) -> list[int]:
        """Token ids of a prompt about an image of `image_size` (width, height) pixels, start and end token included.

        Raises:
            InvalidArgumentError: the prompt is too long, or a region is not in the image.
        """
        ids = [self.bos_token_id]
        for part in parts:
            ids += self._encode_part(part, image_size)
        ids.append(self.eos_token_id)
        if len(ids) > self._longest_prompt.value:
            raise InvalidArgumentError.of_field(
                "prompt",
                f"{len(ids)} tokens",
                f"at most {self._longest_prompt.value} tokens, two for start and end ({self._longest_prompt.cause})",
            )
        return ids

    def decode(self, token_ids: Iterable[int]) -> tuple[str, list[int]]:
        """The text of generated tokens, special tokens kept, and where in it each token ends, in bytes of UTF-8.

        A character of several tokens belongs to the last of them. Bytes that make no character become U+FFFD.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces = [decoder.decode(self._bytes_of(token_id)) for token_id in token_ids]
        if pieces:
            pieces[-1] += decoder.decode(b"", final=True)
        return "".join(pieces), list(itertools.accumulate(len(piece.encode()) for piece in pieces))

    def _bytes_of(self, token_id: int) -> bytes:
        """What a token stands for; known from the second time on."""
        known = self._token_bytes.get(token_id)
        if known is None:
            token: str | None = self._tokenizer.convert_ids_to_tokens(token_id)
            if token is None:  # the model's vocabulary is padded beyond the tokenizer's; such a token says nothing
                known = b""
            elif token in self._added or not set(token) <= _BYTES_OF_CHARACTERS.keys():
                known = token.encode()
            else:
                known = bytes(_BYTES_OF_CHARACTERS[character] for character in token)
            self._token_bytes[token_id] = known
        return known

    def _encode_part(self, part: PromptPart, image_size: tuple[int, int]) -> list[int]:
        match part.WhichOneof("part"):
            case "text":
                return self._encode_words(part.text)
            case "markup":
                return self._encode_markup(part.markup)
            case "region":
                return [self._markup[f"<loc_{bin_}>"] for bin_ in region_bins(part.region, image_size)]
        raise InvalidArgumentError.of_field("prompt", None, "text, markup or region in each part")

    def _encode_words(self, text: str) -> list[int]:
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def _encode_markup(self, text: str) -> list[int]:
        ids: list[int] = []
        end = 0
        for token in self._markup_pattern.finditer(text):
            ids += self._encode_words(text[end : token.start()])
            ids.append(self._markup[token.group()])
            end = token.end()
        return ids + self._encode_words(text[end:])


def _without_added_tokens(tokenizer: Any) -> Tokenizer:
    """The same tokenizer but for added tokens and what puts start and end tokens around a text."""
    known = tokenizer.backend_tokenizer
    plain = Tokenizer(known.model)
    plain.pre_tokenizer = known.pre_tokenizer
    if known.normalizer is not None:
        plain.normalizer = known.normalizer
    return plain


def _prompt_tokens(tokenizer: Any) -> dict[str, int]:
    """The added tokens that prompts may use: all but those that steer generation or stand for the image."""
    control = {
        "bos_token",
        "eos_token",
        "pad_token",
        "unk_token",
        "cls_token",
        "sep_token",
        "mask_token",
        "image_token",
    }
    controls = {getattr(tokenizer, name, None) for name in control}
    added: dict[str, int] = tokenizer.get_added_vocab()
    return {token: token_id for token, token_id in added.items() if token not in controls}
