"""A checkpoint's image processor and tokenizer, and checks that the engine can reproduce them exactly."""

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, BartTokenizerFast, Florence2Processor

from florence2_server.engine.checkpoint.files import CheckpointFiles
from florence2_server.engine.checkpoint.original_layout import ADDED_TOKENS
from florence2_server.engine.errors import CheckpointError

_IMAGE_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_CHANNELS = 3
_LOCATION_TOKENS = [f"<loc_{bin_}>" for bin_ in range(1000)]


def load_processors(files: CheckpointFiles, *, is_original: bool) -> tuple[Any, Any]:
    """The Hugging Face image processor and tokenizer.

    Args:
        files: the checkpoint's files.
        is_original: whether the tokenizer is plain BART's, to which Florence-2's tokens have to be added, as the
            original processor does when it loads. Tokens that a fine-tune has added to its tokenizer keep their ids.

    Raises:
        CheckpointError: the image processor is missing, or one of its fields has an unsupported value.
    """
    if not any((files.folder / name).is_file() for name in _IMAGE_PROCESSOR_FILES):
        raise CheckpointError(
            "preprocessor_config.json is missing; if this is a fine-tune saved without its processor, add the "
            "tokenizer and preprocessor files of its base model"
        )
    if is_original:
        tokenizer = load_original_tokenizer(files.folder)
        load_image_processor: Any = AutoImageProcessor.from_pretrained  # untyped
        image_processor = load_image_processor(files.folder, local_files_only=True, trust_remote_code=False)
    else:
        processor = Florence2Processor.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
        tokenizer, image_processor = processor.tokenizer, processor.image_processor
    _complete_image_processor(image_processor)
    return image_processor, tokenizer


def load_original_tokenizer(folder: Path) -> Any:
    """The tokenizer of an original checkpoint, with the tokens that the original processor adds when it loads."""
    tokenizer: Any = BartTokenizerFast.from_pretrained(folder, local_files_only=True)
    tokenizer.add_tokens(list(ADDED_TOKENS), special_tokens=True)
    return tokenizer


def image_size(image_processor: Any) -> tuple[int, int]:
    """Height and width of the vision tower's input, in pixels."""
    return image_processor.size["height"], image_processor.size["width"]


def check_tokenizer(tokenizer: Any, vocabulary: int) -> None:
    """Check that all tokens that a prompt can contain exist and have embeddings.

    Raises:
        CheckpointError: the tokenizer lacks location tokens, or has tokens without an embedding.
    """
    added = tokenizer.get_added_vocab()
    if missing := [token for token in _LOCATION_TOKENS if token not in added]:
        raise CheckpointError(
            f"the tokenizer has no token {missing[0]} ({len(missing)} of 1000 location tokens are missing)"
        )
    if beyond := sorted((token_id, token) for token, token_id in added.items() if token_id >= vocabulary):
        token_id, token = beyond[-1]
        raise CheckpointError(
            f"the tokenizer has {token!r} at id {token_id}, but the model has {vocabulary} embeddings: "
            "tokenizer and weights are not from the same checkpoint"
        )


def _complete_image_processor(processor: Any) -> None:
    """Check the fields, and expand a single mean or deviation to one per channel."""
    for field, served in (("do_resize", True), ("do_center_crop", False), ("do_pad", False)):
        value = getattr(processor, field, served)
        if bool(value) is not served:
            raise CheckpointError(f"image processor: {field}: got {value!r}, expected {served}")
    size = dict(processor.size or {})
    if {name for name, value in size.items() if value} != {"height", "width"}:
        raise CheckpointError(f"image processor: size: got {size}, expected height and width in pixels")
    for field in ("image_mean", "image_std"):
        value = getattr(processor, field)
        if isinstance(value, int | float):
            setattr(processor, field, [float(value)] * _CHANNELS)
        elif not isinstance(value, list | tuple) or len(value) != _CHANNELS:
            raise CheckpointError(f"image processor: {field}: got {value!r}, expected a number for each of 3 channels")
