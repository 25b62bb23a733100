"""Names of an adapter's tensors: which module of the model each belongs to, and what it is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from florence2_server.engine.checkpoint.original_layout import native_module_name
from florence2_server.engine.errors import AdapterError

SHARED = "model.language_model.shared"
DECODER = "model.language_model.decoder.embed_tokens"
ENCODER = "model.language_model.encoder.embed_tokens"
HEAD = "lm_head"
TABLES = (SHARED, ENCODER, DECODER, HEAD)
"""The modules with a row for each token."""

_PREFIX = "base_model.model."
_ADAPTER_NAME = re.compile(r"\.default(?=\.|$)")  # peft's own name for an adapter; it should not be in files


class Part(Enum):
    """What a tensor is to its module."""

    DOWN = "lora_A"
    UP = "lora_B"
    TABLE = "weight"
    """All rows of a module with a row for each token."""
    BASE_TABLE = "base_layer.weight"
    """Likewise, of the module that the adapter wraps."""
    SOME_ROWS = "trainable_tokens_delta"


_ENDINGS = {
    ".lora_A.weight": Part.DOWN,
    ".lora_B.weight": Part.UP,
    ".token_adapter.base_layer.weight": Part.BASE_TABLE,
    ".base_layer.weight": Part.BASE_TABLE,
    ".original_module.weight": Part.BASE_TABLE,
    ".modules_to_save.weight": Part.TABLE,
    ".token_adapter.trainable_tokens_delta": Part.SOME_ROWS,
    ".weight": Part.TABLE,
}
# Needed only to undo the adapter's changes.
_IGNORED_ENDING = ".token_adapter.trainable_tokens_original"
_UNSUPPORTED = (
    (".lora_embedding_", "factors of embeddings are not supported: train whole rows (trainable_token_indices)"),
    (".lora_magnitude_vector", "DoRA is not supported"),
    (".bias", "biases are not supported"),
)


@dataclass(frozen=True)
class TensorName:
    """A tensor of an adapter.

    Attributes:
        full: its name in the file.
        module: the module's name in transformers' native layout.
        saved_module: the module's name in the adapter's layout.
        part: what it is.
    """

    full: str
    module: str
    saved_module: str
    part: Part


def parse_names(names: Iterable[str]) -> dict[tuple[str, Part], TensorName]:
    """The tensors of an adapter by native module and part, in alphabetical order.

    Raises:
        AdapterError: a tensor is not part of a LoRA adapter of Florence-2, or there are two for the same part.
    """
    parsed: dict[tuple[str, Part], TensorName] = {}
    for name in sorted(names):
        plain = _ADAPTER_NAME.sub("", name)
        if plain.endswith(_IGNORED_ENDING):
            continue
        found = _parse(name, plain)
        if (other := parsed.setdefault((found.module, found.part), found)) is not found:
            raise AdapterError(f"{name}: got the same tensor as {other.full}, expected one of them")
    return dict(sorted(parsed.items(), key=lambda item: item[1].module))


def _parse(name: str, plain: str) -> TensorName:
    for mark, reason in _UNSUPPORTED:
        if mark in plain:
            raise AdapterError(f"{name}: {reason}")
    if not plain.startswith(_PREFIX):
        raise AdapterError(
            f"{name}: got a name without {_PREFIX}, expected the names that peft's save_pretrained writes"
        )
    for ending, part in _ENDINGS.items():
        if plain.endswith(ending):
            saved = plain.removeprefix(_PREFIX).removesuffix(ending)
            module = native_module_name(saved)
            if part in (Part.DOWN, Part.UP) or module in TABLES:
                return TensorName(name, module, saved, part)
            break
    expected = "low-rank factors, or rows of embed_tokens, shared or lm_head"
    raise AdapterError(f"{name}: got a tensor of another kind, expected {expected}")
