"""A report about an adapter, which is read as the engine would read it."""

from pathlib import Path
from typing import Any

from florence2_server.config import EngineConfig
from florence2_server.engine.adapters.adapter_files import Adapter, read_adapter
from florence2_server.engine.adapters.tensor_names import HEAD
from florence2_server.engine.checkpoint.inspection import collect_warnings
from florence2_server.engine.checkpoint.loading import Checkpoint
from florence2_server.engine.checkpoint.report import Report, listed, size
from florence2_server.engine.errors import AdapterError
from florence2_server.engine.model.adapter_tensors import AdapterTensors, TokenRows

_PARTS = {
    "text": ("model.language_model.",),
    "vision": ("model.vision_tower.", "model.multi_modal_projector."),
    "head": (HEAD,),
}


def inspect_adapter(folder: Path, checkpoint: Checkpoint, config: EngineConfig) -> Report:
    """Report what an adapter changes, or why it cannot be served with a checkpoint.

    Args:
        folder: what peft's `save_pretrained` wrote.
        checkpoint: the base model.
        config: the settings with which both would be served.
    """
    report = Report()
    report.add("adapter", str(folder))
    with collect_warnings(report.warnings):
        try:
            adapter = read_adapter(
                folder,
                checkpoint,
                max_rank=config.max_adapter_rank,
                safetensors_only=bool(config.safetensors_only),
            )
            _add_tensors(report, adapter.tensors)
            _add_tokens(report, adapter, checkpoint)
        except AdapterError as error:
            report.fail(error)
    return report


def _add_tensors(report: Report, tensors: AdapterTensors) -> None:
    ranks = sorted({len(factors.down) for factors in tensors.factors.values()})
    layers = {part: sum(name.startswith(prefixes) for name in tensors.factors) for part, prefixes in _PARTS.items()}
    images = "its own: each image is encoded anew for it" if tensors.changes_images else "the checkpoint's"
    report.add("rank", " to ".join(map(str, dict.fromkeys((ranks[0], ranks[-1])))) if ranks else "none")
    report.add("layers", ", ".join(f"{count} {part}" for part, count in layers.items()))
    report.add("image embeddings", images)
    report.add("memory", size(tensors.size_in_bytes))


def _add_tokens(report: Report, adapter: Adapter, checkpoint: Checkpoint) -> None:
    tensors, known = adapter.tensors, len(checkpoint.model.get_input_embeddings().weight)
    rows = {"embeddings": tensors.input_rows, "output layer": tensors.output_rows}
    changed = [f"{count} of the {name}" for name, table in rows.items() if (count := _changed(table, known))]
    report.add("changed tokens", ", ".join(changed) or "none")
    report.add("added tokens", _added(adapter.tokenizer, checkpoint.tokenizer, tensors.vocabulary - known))


def _changed(table: TokenRows | None, known: int) -> int:
    """The number of rows of tokens that the checkpoint has."""
    return 0 if table is None else int((table.ids < known).sum())


def _added(tokenizer: Any | None, own: Any, rows: int) -> str:
    """The tokens that the adapter adds, or their number if it comes without their tokenizer."""
    if tokenizer is None:
        return f"{rows}, and no tokenizer that has them" if rows else "none"
    return listed(sorted(tokenizer.get_vocab().keys() - own.get_vocab().keys()))
