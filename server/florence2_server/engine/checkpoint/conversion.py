"""Writes a checkpoint of either layout in the native one, for plain transformers and whatever else reads that."""

import json
import os
import sys
import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import BartTokenizerFast, Florence2Processor, GenerationConfig

from florence2_engine.checkpoint.loading import Checkpoint, load
from florence2_engine.config import MOST_BEAMS, EngineConfig
from florence2_engine.errors import CheckpointError
from florence2_engine.generation_config import FIELDS, Effect

IMAGE_TOKEN = "<image>"  # noqa: S105 - no password
_READABLE_FOLDER, _READABLE_FILE = 0o755, 0o644
# How Florence2Processor.post_process_generation parses an answer; None selects its own pattern.
_POST_PROCESSING: dict[str, dict[str, Any]] = {
    "bboxes": {},
    "description_with_bboxes": {},
    "description_with_bboxes_or_polygons": {},
    "description_with_polygons": {},
    "ocr": {"AREA_THRESHOLD": 0.0, "PATTERN": None},
    "phrase_grounding": {"banned_grounding_tokens": []},
    "polygons": {},
    "pure_text": {},
}


def convert(config: EngineConfig, folder: Path) -> None:
    """Write the checkpoint that `config` names to `folder`, so that plain transformers answers as the engine does.

    `Florence2ForConditionalGeneration.from_pretrained(folder)` and `Florence2Processor.from_pretrained(folder)` read
    it. Weights keep the dtype that they are saved in, every token keeps its id, and the generation defaults are
    those that the engine uses.

    Args:
        config: which checkpoint, and whether `.bin` weights are read.
        folder: the destination; it is created completely or not at all.

    Raises:
        CheckpointError: the checkpoint cannot be served, or `folder` is not empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder} already exists and is not an empty folder; it is not overwritten")
    # This server's limits do not belong in the checkpoint.
    unlimited = replace(config, positions=sys.maxsize, max_new_tokens=0, max_beams=MOST_BEAMS, rows=0)
    checkpoint = load(replace(unlimited, device="cpu", dtype="float32"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        whole = Path(scratch, "whole")
        whole.mkdir(_READABLE_FOLDER)
        processor = _processor(checkpoint, Path(scratch, "tokenizer"))
        processor.save_pretrained(whole)
        _save_model(checkpoint, processor.tokenizer.image_token_id, whole)
        _save_generation_config(checkpoint, whole)
        os.rename(whole, folder)  # noqa: PTH104 - documented, unlike Path.rename, to replace an empty folder


def _processor(checkpoint: Checkpoint, scratch: Path) -> Any:
    """The checkpoint's processor, with a placeholder token for the image in a prompt."""
    tokenizer, image_processor = checkpoint.tokenizer, deepcopy(checkpoint.image_processor)
    image_processor.image_seq_length = checkpoint.image_tokens
    image_processor.do_convert_rgb = True  # the engine reads pictures of every mode
    vars(image_processor).pop("auto_map", None)  # names code that is never run
    if getattr(tokenizer, "image_token", None) is None:
        # A named special token can only be added while loading a tokenizer. It gets the last id.
        tokenizer.save_pretrained(scratch)
        load_tokenizer: Any = BartTokenizerFast.from_pretrained
        tokenizer = load_tokenizer(scratch, extra_special_tokens={"image_token": IMAGE_TOKEN})
    own: Any = checkpoint.files.json("processor_config.json").get("post_processor_config")
    return Florence2Processor(image_processor, tokenizer, post_processor_config=own or _POST_PROCESSING)


def _save_model(checkpoint: Checkpoint, image_token_id: int, folder: Path) -> None:
    model = checkpoint.model
    if image_token_id >= len(model.get_input_embeddings().weight):
        _append_rows(model, image_token_id + 1, checkpoint.tokenizer.pad_token_id)
    model.config.image_token_id = image_token_id
    # The engine computes in float32 at most, so nothing wider is written.
    dtype = checkpoint.saved_dtype if checkpoint.saved_dtype.itemsize < torch.float32.itemsize else torch.float32
    model.to(dtype)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config.dtype = dtype
    make: Any = GenerationConfig
    model.generation_config = make()  # saved separately: the library refuses to save some configs that it loads
    model.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.chmod(_READABLE_FILE)  # the library makes it readable only by its owner


def _append_rows(model: Any, count: int, pad_token_id: int) -> None:
    """Give tokens without an embedding that of `<pad>`.

    The image token's embedding is never read, but the token has a logit like any other. A row of zeros would give the
    logit 0, which may be the largest; a copy of `<pad>` is chosen only where `<pad>` would be, that is, never.
    """
    text = model.model.language_model
    tables = [layer.weight for layer in (text.shared, text.encoder.embed_tokens, text.decoder.embed_tokens)]
    longer = {id(table): _with_rows(table, count, pad_token_id) for table in (*tables, model.lm_head.weight)}
    for layer in model.modules():  # not resize_token_embeddings, which would tie an untied output layer
        if id(getattr(layer, "weight", None)) in longer:
            layer.weight = longer[id(layer.weight)]
    model.config.text_config.vocab_size = count


def _with_rows(table: Tensor, count: int, repeated: int) -> Parameter:
    rows = table[repeated].expand(count - len(table), -1)
    return Parameter(torch.cat([table.detach(), rows.detach()]), requires_grad=False)


def _save_generation_config(checkpoint: Checkpoint, folder: Path) -> None:
    own = deepcopy(checkpoint.generation_config)
    own.pad_token_id = checkpoint.tokenizer.pad_token_id
    # This is the checkpoint's own limit if it has one. Without any, the library would stop at 20 tokens.
    own.max_length, own.max_new_tokens = None, checkpoint.generation.max_new_tokens
    for name, effect in FIELDS.items():
        if effect in (Effect.SAMPLING, Effect.LOGGED):  # the engine searches instead of sampling
            setattr(own, name, None)
    fields = {name: value for name, value in own.to_diff_dict().items() if value is not None}
    (folder / "generation_config.json").write_text(json.dumps(fields, indent=2) + "\n")
