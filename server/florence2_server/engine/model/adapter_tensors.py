"""What an adapter changes of a model, as tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

_IMAGE_MODULES = ("model.vision_tower.", "model.multi_modal_projector.")


@dataclass(frozen=True)
class Factors:
    """A low-rank pair: the adapter adds the product of `up` and `down` to a layer's weight.

    Attributes:
        down: (rank, inputs); of a convolution, (rank, inputs / groups, height, width).
        up: (outputs, rank), with the adapter's scaling.
    """

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class TokenRows:
    """Rows of the token embeddings, or of the output layer, that an adapter replaces or adds.

    Attributes:
        ids: (n,) int64, ascending: the tokens.
        rows: (n, d_model): their rows.
    """

    ids: Tensor
    rows: Tensor


@dataclass(frozen=True)
class AdapterTensors:
    """What an adapter changes. Modules have their names in transformers' native layout.

    Attributes:
        factors: by module, for example `model.language_model.decoder.layers.0.self_attn.q_proj`, `lm_head`, or
            `model.vision_tower.convs.0.conv`.
        input_rows: of the token embeddings; None if they are the model's.
        output_rows: of the output layer; None if they are the model's.
        vocabulary: the number of tokens, including those that the adapter adds.
    """

    factors: Mapping[str, Factors]
    input_rows: TokenRows | None = None
    output_rows: TokenRows | None = None
    vocabulary: int = 0

    @property
    def rank(self) -> int:
        """The highest rank of its factors; 0 if it has none."""
        return max((len(factors.down) for factors in self.factors.values()), default=0)

    @property
    def size_in_bytes(self) -> int:
        """The memory that its tensors take."""
        return sum(tensor.nbytes for tensor in self._tensors())

    @property
    def changes_images(self) -> bool:
        """Whether the embedding of an image depends on it."""
        return any(name.startswith(_IMAGE_MODULES) for name in self.factors)

    def _tensors(self) -> Iterator[Tensor]:
        for factors in self.factors.values():
            yield from (factors.down, factors.up)
        # If the embeddings are tied, both are the same object.
        for table in {id(each): each for each in (self.input_rows, self.output_rows)}.values():
            if table is not None:
                yield from (table.ids, table.rows)
