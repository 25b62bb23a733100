"""The tokenizer of an adapter whose training added tokens."""

from pathlib import Path
from typing import Any

from florence2_server.engine.adapters.adapter_config import shortened
from florence2_server.engine.checkpoint.loading import Checkpoint
from florence2_server.engine.checkpoint.original_layout import has_original_config
from florence2_server.engine.checkpoint.processors import check_tokenizer, load_original_tokenizer
from florence2_server.engine.errors import AdapterError

# Of a processor in the native layout, which marks the place of the image with it; here no prompt contains it.
_IMAGE_PLACE = "<image>"
_FILES = ({"tokenizer.json"}, {"vocab.json", "merges.txt"})


def load_adapter_tokenizer(folder: Path, checkpoint: Checkpoint, vocabulary: int) -> Any | None:
    """The Hugging Face tokenizer in an adapter's folder; None if there is none, or if it adds nothing to the base's.

    Raises:
        AdapterError: a token has another id than in the base's, or is missing; or an added one has no embedding.
    """
    if not any(all((folder / name).is_file() for name in names) for names in _FILES):
        return None
    tokenizer = _load(folder, checkpoint)
    own, base = tokenizer.get_vocab(), checkpoint.tokenizer.get_vocab()
    tokens = {token_id: token for token, token_id in base.items()}
    for token, token_id in own.items():
        expected = tokens.get(token_id, token)
        if expected != token:
            raise AdapterError(f"tokenizer: token {token_id}: got {shortened(token)}, expected {shortened(expected)}")
    if own.keys() - {_IMAGE_PLACE} <= base.keys():
        return None
    if missing := base.keys() - own.keys():
        first = shortened(min(missing))
        raise AdapterError(f"tokenizer: got no token {first} ({len(missing)} missing), expected all of the base's")
    check_tokenizer(tokenizer, vocabulary)
    return tokenizer


def _load(folder: Path, checkpoint: Checkpoint) -> Any:
    try:
        if has_original_config(checkpoint.files.json("config.json")):
            return load_original_tokenizer(folder)
        return type(checkpoint.tokenizer).from_pretrained(folder, local_files_only=True)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        # The library's Rust code cannot go on with this file. Its error is no `Exception`, which nothing would catch.
        raise AdapterError(f"tokenizer: it cannot be read: {' '.join(str(error).split())}") from None
