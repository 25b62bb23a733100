"""The rows of tokens that an adapter changes or adds.

Florence-2 has a row for each token in four tables: that of prompts (`shared`), that of answers (the decoder's
`embed_tokens`), the output layer (`lm_head`), and the encoder's `embed_tokens`, which it never reads. Usually all four
are one tensor. An adapter may have its own copy of a table (peft's `modules_to_save`), may change the tensor itself
(`save_embedding_layers`), or may have rows of some tokens (`trainable_token_indices`), which peft then ties as the base
model ties its tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from florence2_server.engine.adapters.adapter_config import AdapterConfig
from florence2_server.engine.adapters.conversion import Conversion
from florence2_server.engine.adapters.tensor_names import DECODER, HEAD, SHARED, TABLES, Part, TensorName
from florence2_server.engine.errors import AdapterError
from florence2_server.engine.model.adapter_tensors import TokenRows

_READ_TABLES = (SHARED, DECODER, HEAD)


@dataclass(frozen=True)
class TokenTables:
    """What an adapter changes of the tables.

    Attributes:
        input_rows: of prompts and of answers.
        output_rows: of the output layer.
        vocabulary: the number of tokens.
    """

    input_rows: TokenRows | None
    output_rows: TokenRows | None
    vocabulary: int


@dataclass(frozen=True)
class _Source:
    """Rows in a file. `ids`: their tokens; None: all rows of the table, from 0."""

    name: str
    rows: Tensor
    ids: tuple[int, ...] | None = None


def read_tables(
    names: Mapping[tuple[str, Part], TensorName],
    tensors: Mapping[str, Tensor],
    model: Any,
    config: AdapterConfig,
    conversion: Conversion,
) -> TokenTables:
    """The rows that differ from those of the base model.

    Raises:
        AdapterError: tables have wrong shapes or lack rows of added tokens, or prompts and answers have different rows.
    """
    sources = _sources(names, tensors, model, config)
    changed = {table: _changed(model.get_submodule(table), each, conversion) for table, each in sources.items()}
    base = len(model.get_submodule(SHARED).weight)
    vocabulary = max([base, *(int(rows.ids[-1]) + 1 for rows in changed.values() if rows is not None)])
    for table in _READ_TABLES:
        _require_added(table, changed[table], range(base, vocabulary))
    prompts, answers, outputs = (changed[table] for table in _READ_TABLES)
    if not _equal(prompts, answers):
        raise AdapterError(
            f"the token embeddings of prompts ({SHARED}) and those of answers ({DECODER}) differ, which is not "
            "supported: train rows that both share, with trainable_token_indices as a list"
        )
    return TokenTables(prompts, prompts if _equal(prompts, outputs) else outputs, vocabulary)


def _sources(
    names: Mapping[tuple[str, Part], TensorName], tensors: Mapping[str, Tensor], model: Any, config: AdapterConfig
) -> dict[str, list[_Source]]:
    """What changes each table; later ones replace rows of earlier ones."""
    shared: dict[str, list[_Source]] = {table: [] for table in TABLES}
    own: dict[str, list[_Source]] = {table: [] for table in TABLES}
    are_tied = _are_tied(names, model, config)
    for (module, part), name in names.items():
        if module not in TABLES or part in (Part.DOWN, Part.UP):
            continue
        source = _Source(name.full, tensors[name.full])
        if part is Part.SOME_ROWS:
            if module == SHARED or not are_tied:  # otherwise it repeats the rows of `shared`
                own[module].append(_with_ids(source, name, config))
        elif part is Part.TABLE and config.has_copy(name.saved_module):
            own[module].append(source)
        else:
            # peft loads it into the base model's tensor, which is that of all tied tables.
            tensor = model.get_submodule(module).weight
            for table in (table for table in TABLES if model.get_submodule(table).weight is tensor):
                shared[table].append(source)
    for table, each in shared.items():
        _require_same(table, each)
    return {table: shared[table] + own[SHARED if are_tied else table] for table in TABLES}


def _are_tied(names: Mapping[tuple[str, Part], TensorName], model: Any, config: AdapterConfig) -> bool:
    """Whether all tables get the token rows of the input embeddings: with peft, unless the config has several lists."""
    has_rows = (SHARED, Part.SOME_ROWS) in names
    return has_rows and model.config.tie_word_embeddings and len(set(config.token_indices.values())) == 1


def _with_ids(source: _Source, name: TensorName, config: AdapterConfig) -> _Source:
    if (ids := config.tokens_of(name.saved_module)) is None:
        raise AdapterError(f"{name.full}: got rows, expected {name.module} in trainable_token_indices")
    return replace(source, ids=ids)


def _require_same(table: str, sources: list[_Source]) -> None:
    for source in sources[1:]:
        if not torch.equal(source.rows, sources[0].rows):
            raise AdapterError(
                f"{source.name}: got other rows than {sources[0].name}, expected the same: {table} is tied"
            )


def _changed(layer: Any, sources: list[_Source], conversion: Conversion) -> TokenRows | None:
    """The rows that differ from the layer's, or that it lacks."""
    base: Tensor = layer.weight.detach().to(conversion.device)
    ids = torch.zeros(0, dtype=torch.int64, device=conversion.device)
    rows = base.new_zeros(0, base.shape[1])
    for source in sources:
        own_ids, own_rows = _checked(source, base, conversion)
        kept = torch.isin(ids, own_ids, invert=True)
        ids, rows = torch.cat([ids[kept], own_ids]), torch.cat([rows[kept], own_rows])
    order = ids.argsort()
    ids, rows = ids[order], rows[order]
    known = ids < len(base)
    differs = torch.ones_like(known)
    differs[known] = (rows[known] != base[ids[known]]).any(dim=1)
    return TokenRows(ids[differs], rows[differs]) if differs.any() else None


def _checked(source: _Source, base: Tensor, conversion: Conversion) -> tuple[Tensor, Tensor]:
    """The tokens and rows of a source."""
    shape, count = tuple(source.rows.shape), None if source.ids is None else len(source.ids)
    if len(shape) != 2 or shape[1] != base.shape[1] or (shape[0] < len(base) if count is None else shape[0] != count):
        expected = (f"at least {len(base)}" if count is None else count, base.shape[1])
        raise AdapterError(f"{source.name}: got shape {shape}, expected ({expected[0]}, {expected[1]})")
    ids = range(shape[0]) if source.ids is None else source.ids
    return torch.tensor(ids, device=conversion.device, dtype=torch.int64), conversion(source.name, source.rows)


def _require_added(table: str, rows: TokenRows | None, added: range) -> None:
    """Check that a table has rows of all added tokens."""
    found = set() if rows is None else set(rows.ids[rows.ids >= added.start].tolist())
    if missing := len(added) - len(found):
        first = next(token for token in added if token not in found)
        expected = f"expected rows of all tokens from {added.start} to {added[-1]}"
        raise AdapterError(f"{table}: got no row of the added token {first} ({missing} missing), {expected}")


def _equal(one: TokenRows | None, other: TokenRows | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one.ids, other.ids) and torch.equal(one.rows, other.rows)
