"""The folder of an adapter, downloaded first if it is named by its id on the hub."""

from collections.abc import Callable, Collection
from pathlib import Path

from florence2_server.adapter_settings import is_folder
from florence2_server.engine.adapters.adapter_config import CONFIG_FILE
from florence2_server.engine.adapters.adapter_files import PICKLE, SAFETENSORS
from florence2_server.engine.adapters.missing_config import explain_names
from florence2_server.engine.checkpoint.files import hub_id
from florence2_server.engine.errors import AdapterError, CheckpointError

# Read if an adapter has them, because its training may have added tokens.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def find_adapter(source: str, *, safetensors_only: bool) -> Path:
    """The folder of an adapter.

    Args:
        source: a folder, `owner/name` or `owner/name@revision`; a revision is a branch, tag or commit.
        safetensors_only: reject `.bin` weights.

    Raises:
        AdapterError: there is no such adapter.
    """
    if is_folder(source):
        return Path(source)
    try:
        repository, revision = hub_id(source)
        from florence2_server.engine.checkpoint import hub  # the only place that uses the network

        def needed(names: Collection[str], _: Callable[[str], Path]) -> list[str]:
            return _needed(names, safetensors_only)

        return hub.download(repository, revision, needed, always=(CONFIG_FILE,)).folder
    except CheckpointError as error:
        raise AdapterError(f"adapter {source!r}: {error}") from error


def _needed(names: Collection[str], safetensors_only: bool) -> list[str]:
    """The files to download from a repository with these file names. Missing weights are noticed when they are read.

    Raises:
        CheckpointError: the repository is no adapter's.
    """
    if CONFIG_FILE not in names:
        raise CheckpointError(explain_names(names))
    weights = (SAFETENSORS,) if safetensors_only or SAFETENSORS in names else (PICKLE,)
    return [name for name in (CONFIG_FILE, *weights, *_TOKENIZER_FILES) if name in names]
