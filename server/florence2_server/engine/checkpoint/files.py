"""The files that make up a checkpoint, in a folder or, downloaded from the hub, in its cache."""

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from florence2_server.engine.errors import CheckpointError

_logger = logging.getLogger(__name__)

# Read if present. Besides these, only tokenizer files and weights are ever downloaded.
CONFIG_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_TOKENIZER_FILE = "tokenizer.json"
_TOKENIZER_PARTS = ("vocab.json", "merges.txt")  # needed if there is no tokenizer.json, which is made from them
_SAFETENSORS = "model.safetensors"
_PICKLE = "pytorch_model.bin"
_ADAPTER_CONFIG = "adapter_config.json"
_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint's files on this machine.

    Attributes:
        name: the checkpoint, as in the setting.
        folder: the folder that holds its files.
        revision: the commit on the hub; None for a local folder.
        weights: names of the weight files, all of one format, in the order of their index.
        adapters: names of the adapter files next to the weights.
    """

    name: str
    folder: Path
    revision: str | None
    weights: tuple[str, ...]
    adapters: tuple[str, ...]

    @property
    def are_safetensors(self) -> bool:
        """Whether the weights are safetensors, not pickles."""
        return self.weights[0].endswith(".safetensors")

    def json(self, name: str) -> dict[str, object]:
        """The content of a JSON file; empty if there is no such file.

        Raises:
            CheckpointError: the file is not a JSON object.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{name} is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise CheckpointError(f"{name} is not a JSON object")
        return content


def find(name: str, *, safetensors_only: bool) -> CheckpointFiles:
    """The files of a checkpoint, downloaded first if `name` is a hub id.

    Args:
        name: a folder, `owner/name` or `owner/name@revision`; a revision is a branch, tag or commit.
        safetensors_only: reject `.bin` weights.

    Raises:
        CheckpointError: there is no such checkpoint, or a file that it needs is missing.
    """
    folder = Path(name)
    if folder.is_dir():
        return _described(name, folder, None, {path.name for path in folder.iterdir()}, safetensors_only)
    repository, revision = hub_id(name)
    from florence2_server.engine.checkpoint import hub  # the only place that uses the network

    snapshot = hub.download(
        repository, revision, lambda names, read: needed(names, read, safetensors_only), always=CONFIG_FILES
    )
    return _described(name, snapshot.folder, snapshot.revision, snapshot.names, safetensors_only)


def hub_id(name: str) -> tuple[str, str | None]:
    """The repository, `owner/name`, and the revision, None for the main branch.

    Raises:
        CheckpointError: `name` is not a hub id.
    """
    found = _HUB_NAME.fullmatch(name)
    if found is None or name.startswith("."):
        raise CheckpointError("no such folder, and not a hub id (owner/name or owner/name@revision)")
    return found["name"], found["revision"]


def _described(
    name: str, folder: Path, revision: str | None, names: Collection[str], safetensors_only: bool
) -> CheckpointFiles:
    texts = _text_files(names)
    weights = _weights(names, lambda file: folder / file, safetensors_only)
    adapters = sorted(file for file in names if file.startswith("adapter_model."))
    files = CheckpointFiles(name, folder, revision, tuple(weights), tuple(adapters))
    for file in (*texts, *weights):
        if not (folder / file).is_file():
            raise CheckpointError(f"{file} is missing")
    return files


def needed(names: Collection[str], read: Callable[[str], Path], safetensors_only: bool) -> list[str]:
    """The files to download from a repository with these file names. `read` downloads a file immediately.

    Raises:
        CheckpointError: a file that serving needs is missing.
    """
    texts = [*_text_files(names), *(file for file in CONFIG_FILES if file in names)]
    return [*texts, *_weights(names, read, safetensors_only)]


def _text_files(names: Collection[str]) -> list[str]:
    """The configuration and tokenizer files that serving needs."""
    if "config.json" not in names:
        if _ADAPTER_CONFIG in names:
            raise CheckpointError(
                "this is a peft adapter, not a whole checkpoint: serve it next to its base model, with "
                "FLORENCE2_ADAPTERS=NAME=FOLDER, or merge it into that (merge_and_unload, save_pretrained)"
            )
        raise CheckpointError("config.json is missing")
    if _TOKENIZER_FILE in names:
        return ["config.json", _TOKENIZER_FILE]
    if not set(_TOKENIZER_PARTS) <= set(names):
        raise CheckpointError(
            "tokenizer.json is missing, and so are vocab.json and merges.txt; if this is a fine-tune saved "
            "without its processor, add the tokenizer and preprocessor files of its base model"
        )
    return ["config.json", *_TOKENIZER_PARTS]


def _weights(names: Collection[str], read: Callable[[str], Path], safetensors_only: bool) -> list[str]:
    """The weight files, all of one format, preferably safetensors."""
    for single in (_SAFETENSORS,) if safetensors_only else (_SAFETENSORS, _PICKLE):
        if single in names:
            return [single]
        if (index := f"{single}.index.json") in names:
            return _shards(index, read(index))
    if safetensors_only and {_PICKLE, f"{_PICKLE}.index.json"} & set(names):
        raise CheckpointError("there are only .bin weights, which FLORENCE2_SAFETENSORS_ONLY rejects")
    expected = " or ".join((_SAFETENSORS,) if safetensors_only else (_SAFETENSORS, _PICKLE))
    others = _listed(file for file in names if file.endswith((".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")))
    raise CheckpointError(f"{expected}, single-file or sharded, is missing{others}")


def _shards(index: str, path: Path) -> list[str]:
    try:
        shards = list(dict.fromkeys(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not a weight index ({error!r})") from None
    suffix = Path(index.removesuffix(".index.json")).suffix
    for shard in shards:  # an index must not lead out of the folder, or to another format
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(suffix):
            raise CheckpointError(f"{index} lists {shard!r}, expected a {suffix} file next to it")
    if not shards:
        raise CheckpointError(f"{index} lists no file")
    return shards


def _listed(files: Iterable[str]) -> str:
    listed = ", ".join(sorted(files))
    return f" (found {listed})" if listed else ""
