"""The token embeddings and the output layer, with the rows that adapters replace or add."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.adapter_tensors import TokenRows
from florence2_server.engine.model.linear import Linear
from florence2_server.engine.model.low_rank import RowAdapters


class TokenEmbeddings:
    """The embeddings of tokens.

    Args:
        embedding: the module with the model's own table.
    """

    def __init__(self, embedding: Any) -> None:
        self._embedding = embedding
        self._last = embedding.num_embeddings - 1
        self.rows: dict[int, TokenRows] = {}

    def of_prompt(self, token_ids: Tensor, adapter: int = BASE) -> Tensor:
        """(tokens,) of one adapter -> (tokens, d_model)."""
        if (rows := self.rows.get(adapter)) is None:
            embedded: Tensor = self._embedding(token_ids)
            return embedded
        return _replaced(self._of_model(token_ids), token_ids, rows)

    def of_rows(self, token_ids: Tensor, adapters: RowAdapters | None) -> Tensor:
        """(rows,) of a decode step -> (rows, d_model)."""
        changed = [] if adapters is None else sorted(adapters.active & self.rows.keys())
        if adapters is None or not changed:
            embedded: Tensor = self._embedding(token_ids)
            return embedded
        embedded = self._of_model(token_ids)
        for adapter in changed:
            replaced = _replaced(embedded, token_ids, self.rows[adapter])
            embedded = torch.where((adapters.indices == adapter)[:, None], replaced, embedded)
        return embedded

    def _of_model(self, token_ids: Tensor) -> Tensor:
        """The model's own embeddings; any row for a token that an adapter has added."""
        embedded: Tensor = self._embedding(token_ids.clamp(max=self._last))
        return embedded


class OutputLayer:
    """The output layer: hidden states to logits.

    Args:
        linear: the model's own.
    """

    def __init__(self, linear: Linear) -> None:
        self._linear = linear
        self._vocabulary = len(linear.weight)
        self.rows: dict[int, TokenRows] = {}
        self.vocabularies: dict[int, int] = {}

    def __call__(self, hidden: Tensor, adapters: RowAdapters | None) -> Tensor:
        """Compute the logits of a decode step.

        Args:
            hidden: (rows, d_model).
            adapters: of the rows; None if no row has one.

        Returns:
            (rows, vocabulary) float32. With an adapter that adds tokens, the others' rows have -inf for these.
        """
        logits = self._linear(hidden)
        if adapters is None:
            return logits.float()
        longest = max((self.vocabularies[adapter] for adapter in adapters.active), default=0)
        logits = functional.pad(logits, (0, max(longest - self._vocabulary, 0)), value=-torch.inf)
        for adapter in sorted(adapters.active & self.rows.keys()):
            ids, rows = self.rows[adapter].ids, self.rows[adapter].rows
            is_own = (adapters.indices == adapter)[:, None]
            logits[:, ids] = torch.where(is_own, hidden @ rows.t(), logits[:, ids])
        for low_rank in self._linear.low_ranks:  # after the rows, which they are added to
            adapters.add_products(logits, hidden, low_rank)
        return logits.float()


def _replaced(embedded: Tensor, token_ids: Tensor, rows: TokenRows) -> Tensor:
    """The embeddings, with an adapter's own rows for its tokens."""
    places = torch.searchsorted(rows.ids, token_ids).clamp(max=len(rows.ids) - 1)
    return torch.where((rows.ids[places] == token_ids)[:, None], rows.rows[places], embedded)
