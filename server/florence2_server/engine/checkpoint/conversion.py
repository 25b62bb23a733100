"""Conversion of a checkpoint to the native layout, which plain transformers reads."""

import json
import os
import sys
import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from florence2.options import MOST_BEAMS
from torch import Tensor
from torch.nn import Parameter
from transformers import BartTokenizerFast, Florence2Processor, GenerationConfig

from florence2_server.config import EngineConfig
from florence2_server.engine.checkpoint.loading import Checkpoint, load
from florence2_server.engine.errors import CheckpointError
from florence2_server.engine.generation_config import FIELDS, Effect

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
    """Convert the checkpoint that `config` names, so that plain transformers generates the same tokens as the engine.

    `Florence2ForConditionalGeneration.from_pretrained(folder)` and `Florence2Processor.from_pretrained(folder)` read
    the result. Weights keep the dtype in which they were saved, tokens keep their ids, and the generation defaults are
    those of the engine.

    Args:
        config: names the checkpoint, and says whether `.bin` weights may be read.
        folder: the destination, which must be new or empty; it is written completely or not at all.

    Raises:
        CheckpointError: the checkpoint cannot be served, or `folder` is not empty.
    """
    require_new(folder)
    save(load(replace(unlimited(config), device="cpu", dtype="float32")), folder)


def require_new(folder: Path) -> None:
    """Check that a destination does not exist, or is an empty folder.

    Raises:
        CheckpointError: it has content.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder} already exists and is not an empty folder; it is not overwritten")


def unlimited(config: EngineConfig) -> EngineConfig:
    """The settings without this server's limits, which do not belong in a saved checkpoint."""
    return replace(config, positions=sys.maxsize, max_new_tokens=0, max_beams=MOST_BEAMS, rows=0)


def save(checkpoint: Checkpoint, folder: Path) -> None:
    """Save a checkpoint that was loaded with `unlimited` settings in the native layout; see `convert`.

    Its model is converted to `saved_dtype`, and gets an embedding for the image token if it has none.

    Args:
        checkpoint: the checkpoint, on the CPU.
        folder: the destination, which must be new or empty; it is written completely or not at all.
    """
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
    image_processor.do_convert_rgb = True  # the engine accepts images of every mode
    vars(image_processor).pop("auto_map", None)  # refers to code that is never run
    if getattr(tokenizer, "image_token", None) is None:
        # A named special token can only be added by loading the tokenizer with it. It gets the next free id.
        tokenizer.save_pretrained(scratch)
        load_tokenizer: Any = BartTokenizerFast.from_pretrained
        tokenizer = load_tokenizer(scratch, extra_special_tokens={"image_token": IMAGE_TOKEN})
    post_processing: Any = checkpoint.files.json("processor_config.json").get("post_processor_config")
    return Florence2Processor(image_processor, tokenizer, post_processor_config=post_processing or _POST_PROCESSING)


def _save_model(checkpoint: Checkpoint, image_token_id: int, folder: Path) -> None:
    model = checkpoint.model
    if image_token_id >= len(model.get_input_embeddings().weight):
        _append_embeddings(model, image_token_id + 1, checkpoint.tokenizer.pad_token_id)
    model.config.image_token_id = image_token_id
    # The engine computes in float32 at most, so a wider dtype would be a waste.
    dtype = checkpoint.saved_dtype if checkpoint.saved_dtype.itemsize < torch.float32.itemsize else torch.float32
    model.to(dtype)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config.dtype = dtype
    make: Any = GenerationConfig
    model.generation_config = make()  # saved separately, because the library cannot save every config that it can load
    model.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.chmod(_READABLE_FILE)  # the library makes it readable by its owner only


def _append_embeddings(model: Any, count: int, pad_token_id: int) -> None:
    """Give tokens without an embedding a copy of that of `<pad>`.

    The image token's embedding is never read, but the token has a logit like any other. With an embedding of zeros the
    logit would be 0, which may be the largest; with that of `<pad>` it is as small as that of `<pad>`, which is never
    generated.
    """
    text = model.model.language_model
    tables = [layer.weight for layer in (text.shared, text.encoder.embed_tokens, text.decoder.embed_tokens)]
    longer = {id(table): _extended(table, count, pad_token_id) for table in (*tables, model.lm_head.weight)}
    for layer in model.modules():  # resize_token_embeddings would tie an untied output layer
        if id(getattr(layer, "weight", None)) in longer:
            layer.weight = longer[id(layer.weight)]
    model.config.text_config.vocab_size = count


def _extended(table: Tensor, count: int, repeated: int) -> Parameter:
    appended = table[repeated].expand(count - len(table), -1)
    return Parameter(torch.cat([table.detach(), appended.detach()]), requires_grad=False)


def _save_generation_config(checkpoint: Checkpoint, folder: Path) -> None:
    config = deepcopy(checkpoint.generation_config)
    config.pad_token_id = checkpoint.tokenizer.pad_token_id
    # The checkpoint's own limit, if it has one. Without any limit the library would stop after 20 tokens.
    config.max_length, config.max_new_tokens = None, checkpoint.generation.max_new_tokens
    for name, effect in FIELDS.items():
        if effect in (Effect.SAMPLING, Effect.LOGGED):  # the engine searches instead of sampling
            setattr(config, name, None)
    fields = {name: value for name, value in config.to_diff_dict().items() if value is not None}
    (folder / "generation_config.json").write_text(json.dumps(fields, indent=2) + "\n")
