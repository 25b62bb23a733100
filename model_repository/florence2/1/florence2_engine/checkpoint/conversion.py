"""A checkpoint of either layout, written in the native one: for plain transformers, and for whatever reads it."""

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
# What Florence2Processor.post_process_generation reads an answer with, and how; None is its own pattern.
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
    it. Weights keep the type of numbers that they are saved in, every token keeps its id, and generation defaults are
    those that the engine goes by.

    Args:
        config: which checkpoint, and whether `.bin` weights are read.
        folder: where to; it is made, whole or not at all.

    Raises:
        CheckpointError: the checkpoint cannot be served, or `folder` is not empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder}: there is something already, and it is not overwritten")
    # What this server would allow is nothing that the checkpoint says.
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
        os.rename(whole, folder)  # noqa: PTH104 - unlike Path.rename's, its wording: onto an empty folder is allowed


def _processor(checkpoint: Checkpoint, scratch: Path) -> Any:
    """The checkpoint's processor, with a token that takes the image's place in a prompt."""
    tokenizer, image_processor = checkpoint.tokenizer, deepcopy(checkpoint.image_processor)
    image_processor.image_seq_length = checkpoint.image_tokens
    image_processor.do_convert_rgb = True  # the engine reads pictures of every mode
    vars(image_processor).pop("auto_map", None)  # the name of code that nobody runs
    if getattr(tokenizer, "image_token", None) is None:
        # Only a tokenizer that is loaded takes a special token of a name of its own. It goes behind all others.
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
    # The engine has nothing wider than float32, and so has nobody who reads what is written here.
    dtype = checkpoint.saved_dtype if checkpoint.saved_dtype.itemsize < torch.float32.itemsize else torch.float32
    model.to(dtype)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config.dtype = dtype
    make: Any = GenerationConfig
    model.generation_config = make()  # saved by itself: the library refuses to save some that it loads
    model.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.chmod(_READABLE_FILE)  # the library makes it readable to its owner alone


def _append_rows(model: Any, count: int, pad_token_id: int) -> None:
    """Give tokens without embeddings that of `<pad>`.

    The image token's own is never read, but it has a logit like every token. Rows of zeros would have the logit 0,
    which may be the largest one; a repeated `<pad>` is chosen where `<pad>` would be, which is nowhere.
    """
    text = model.model.language_model
    tables = [layer.weight for layer in (text.shared, text.encoder.embed_tokens, text.decoder.embed_tokens)]
    longer = {id(table): _with_rows(table, count, pad_token_id) for table in (*tables, model.lm_head.weight)}
    for layer in model.modules():  # not resize_token_embeddings, which would tie an output layer that is not
        if id(getattr(layer, "weight", None)) in longer:
            layer.weight = longer[id(layer.weight)]
    model.config.text_config.vocab_size = count


def _with_rows(table: Tensor, count: int, repeated: int) -> Parameter:
    rows = table[repeated].expand(count - len(table), -1)
    return Parameter(torch.cat([table.detach(), rows.detach()]), requires_grad=False)


def _save_generation_config(checkpoint: Checkpoint, folder: Path) -> None:
    own = deepcopy(checkpoint.generation_config)
    own.pad_token_id = checkpoint.tokenizer.pad_token_id
    # Without a length of the checkpoint's own, which this is otherwise, the library stops at 20 tokens.
    own.max_length, own.max_new_tokens = None, checkpoint.generation.max_new_tokens
    for name, effect in FIELDS.items():
        if effect in (Effect.SAMPLING, Effect.LOGGED):  # the engine searches
            setattr(own, name, None)
    fields = {name: value for name, value in own.to_diff_dict().items() if value is not None}
    (folder / "generation_config.json").write_text(json.dumps(fields, indent=2) + "\n")
