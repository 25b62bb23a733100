"""An adapter in the engine's memory. Imports no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from florence2_server.engine.tokenizer import PromptTokenizer


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An adapter in the engine's memory.

    Attributes:
        name: what requests call it.
        index: what the model calls it; never used again, because image embeddings may outlive the adapter.
        tokenizer: the checkpoint's, or its own if its training added tokens.
        changes_images: whether image embeddings depend on it.
        rank: the highest of its factors.
        size_in_bytes: its memory on the device.
    """

    name: str
    index: int
    tokenizer: "PromptTokenizer"
    changes_images: bool
    rank: int
    size_in_bytes: int
