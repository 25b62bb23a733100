"""From prompt parts to token ids, and from token ids to text."""

import codecs
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from florence2.errors import InvalidArgumentError
from florence2.locations import location_tokens, region_bins
from florence2.options import Limit
from florence2.tasks import PHRASE_SEPARATOR
from tokenizers import AddedToken, Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from florence2_server.v1.engine_pb2 import PromptPart

# Byte-level tokenizers represent each byte by a printable character.
_CHARACTERS_OF_BYTES: dict[int, str] = bytes_to_unicode()
_BYTES_OF_CHARACTERS = {character: byte for byte, character in _CHARACTERS_OF_BYTES.items()}

_CONTROL_TOKENS = ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<image>")
_CONTROL_ATTRIBUTES = (
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
    "cls_token",
    "sep_token",
    "mask_token",
    "image_token",
)


class PromptTokenizer:
    """The checkpoint's tokenizer, safe for untrusted text.

    Markup gets the ids that the checkpoint's own tokenizer gives it, including added tokens, except that control tokens
    are plain text. A caller's text may contain anything, such as `<loc_5>`, `</s>` or
    `<image>`, without producing special tokens: only `<and>`, which separates phrases, and words that a fine-tune added
    to the vocabulary are recognized.

    Args:
        tokenizer: the checkpoint's Hugging Face tokenizer.
        longest_prompt: the maximum number of tokens of a prompt, including the start and end token.
    """

    def __init__(self, tokenizer: Any, longest_prompt: Limit) -> None:
        self._tokenizer = tokenizer
        self._longest_prompt = longest_prompt
        added: dict[int, AddedToken] = tokenizer.backend_tokenizer.get_added_tokens_decoder()
        self._added = frozenset(token.content for token in added.values())
        self._token_bytes: dict[int, bytes] = {}
        controls = _control_tokens(tokenizer)
        allowed = {token_id: token for token_id, token in added.items() if token.content not in controls}
        self._markup = _Encoder(tokenizer, allowed)
        words = {token_id: token for token_id, token in allowed.items() if _is_word(token)}
        self._text = _Encoder(tokenizer, words)
        self.bos_token_id: int = tokenizer.bos_token_id
        self.eos_token_id: int = tokenizer.eos_token_id

    def encode(self, parts: Sequence[PromptPart], image_size: tuple[int, int]) -> list[int]:
        """Token ids of a prompt, including the start and end token.

        Args:
            parts: the prompt.
            image_size: (width, height) of the image in pixels, for regions.

        Raises:
            InvalidArgumentError: the prompt is too long, or a region is outside the image.
        """
        ids = [self.bos_token_id]
        for is_text, group in itertools.groupby(parts, lambda part: part.WhichOneof("part") == "text"):
            # Encoded together: whether an added token matches, or absorbs white space, depends on its neighbors.
            text = "".join(_spelled(part, image_size) for part in group)
            ids += (self._text if is_text else self._markup).encode(text)
        ids.append(self.eos_token_id)
        if len(ids) > self._longest_prompt.value:
            raise InvalidArgumentError.of_field(
                next((part.field for part in parts if part.field), "prompt"),
                f"{len(ids)} tokens",
                f"at most {self._longest_prompt.value} tokens including the task's own words, start and end "
                f"({self._longest_prompt.cause})",
            )
        return ids

    def decode(self, token_ids: Iterable[int]) -> tuple[str, list[int]]:
        """Decode generated tokens, including special tokens.

        A character that spans several tokens belongs to the last of them. Invalid UTF-8 becomes U+FFFD.

        Returns:
            the text, and the offset at which each token ends, in bytes of UTF-8.
        """
        return self.start_decoding().decode(token_ids, is_last=True)

    def start_decoding(self) -> "TokenDecoder":
        """Decode tokens as they are generated, to the same text and offsets as `decode`."""
        return TokenDecoder(self._bytes_of)

    def _bytes_of(self, token_id: int) -> bytes:
        """The bytes of a token, cached."""
        known = self._token_bytes.get(token_id)
        if known is None:
            token: str | None = self._tokenizer.convert_ids_to_tokens(token_id)
            if token is None:  # the model's vocabulary is padded beyond the tokenizer's; such a token is empty
                known = b""
            elif token in self._added or not set(token) <= _BYTES_OF_CHARACTERS.keys():
                known = token.encode()
            else:
                known = bytes(_BYTES_OF_CHARACTERS[character] for character in token)
            self._token_bytes[token_id] = known
        return known


class TokenDecoder:
    """Decodes the tokens of one generation, a few at a time; see `PromptTokenizer.decode`.

    Args:
        bytes_of: the bytes of a token.
    """

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._end = 0

    def decode(self, token_ids: Iterable[int], is_last: bool = False) -> tuple[str, list[int]]:
        """Decode the next tokens.

        Args:
            token_ids: the next tokens.
            is_last: whether none follow: what is left of an incomplete character becomes U+FFFD, in the last of them.

        Returns:
            the next piece of the text, and the offset at which each token ends, in bytes of the whole text.
        """
        pieces = [self._decoder.decode(self._bytes_of(token_id)) for token_id in token_ids]
        if is_last and pieces:
            pieces[-1] += self._decoder.decode(b"", final=True)
        ends = list(itertools.accumulate((len(piece.encode()) for piece in pieces), initial=self._end))
        self._end = ends[-1]
        return "".join(pieces), ends[1:]


class _Encoder:
    """The checkpoint's tokenizer with some of its added tokens, which keep their ids and white space rules."""

    def __init__(self, tokenizer: Any, known: Mapping[int, AddedToken]) -> None:
        backend = tokenizer.backend_tokenizer
        self._tokenizer = Tokenizer(backend.model)
        if backend.normalizer is not None:
            self._tokenizer.normalizer = backend.normalizer
        self._tokenizer.pre_tokenizer = backend.pre_tokenizer
        self._tokenizer.encode_special_tokens = tokenizer.split_special_tokens
        self._tokenizer.add_tokens([known[token_id] for token_id in sorted(known)])
        # Leaving tokens out shifts the ids of those after them.
        own_ids = ((self._tokenizer.token_to_id(token.content), token_id) for token_id, token in known.items())
        self._ids = {own_id: token_id for own_id, token_id in own_ids if own_id != token_id}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without the start and end token."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self._ids.get(token_id, token_id) for token_id in ids]


def _spelled(part: PromptPart, image_size: tuple[int, int]) -> str:
    match part.WhichOneof("part"):
        case "text":
            return part.text
        case "markup":
            return part.markup
        case "region":
            return location_tokens(region_bins(part.region, image_size, part.field or "region"))
    raise InvalidArgumentError.of_field("prompt", None, "text, markup or region in each part")


def _is_word(token: AddedToken) -> bool:
    """Whether an added token is recognized in a caller's text: the separator, and words that a fine-tune added."""
    content = token.content.strip()
    is_markup = token.special or (content.startswith("<") and content.endswith(">"))
    return content == PHRASE_SEPARATOR or not is_markup


def _control_tokens(tokenizer: Any) -> set[str]:
    """Tokens that control generation or stand for the image: the standard ones and the checkpoint's own."""
    # The original layout has no image token.
    return {*_CONTROL_TOKENS, *(getattr(tokenizer, name, None) or "" for name in _CONTROL_ATTRIBUTES)}
