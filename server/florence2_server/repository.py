"""The model repository that comes with this package, and repositories that are made from it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from florence2_server.served_model import DEFAULT_NAME, SUFFIXES, ServedModel
from florence2_server.served_model import HEALTH_SUFFIX as HEALTH_SUFFIX
from florence2_server.served_model import STREAM_SUFFIX as STREAM_SUFFIX

REPOSITORY = Path(__file__).resolve().parent / "model_repository"
# The folders of its Triton models.
MODELS = tuple(REPOSITORY / (DEFAULT_NAME + suffix) for suffix in SUFFIXES)
DEMO_CHECKPOINT = REPOSITORY / DEFAULT_NAME / "demo_checkpoint"
_CONFIG = "config.pbtxt"
_CODE = "1/model.py"


def write_model(folder: Path, model: ServedModel) -> None:
    """Write the three Triton models of a served model.

    Args:
        folder: the model repository; created if it is missing.
        model: its name becomes theirs, and its settings the `parameters` of the first.
    """
    for packaged, suffix in zip(MODELS, SUFFIXES, strict=True):
        written = folder / (model.name + suffix)
        (written / _CODE).parent.mkdir(parents=True)
        (written / _CODE).write_text((packaged / _CODE).read_text())
        config = re.sub(rf'"{DEFAULT_NAME}(_\w+)?"', rf'"{model.name}\1"', (packaged / _CONFIG).read_text())
        (written / _CONFIG).write_text(config if suffix else config + _parameters(model.settings))


def _parameters(settings: Mapping[str, str]) -> str:
    """The text of a model's own settings in its configuration."""
    if not settings:
        return ""
    lines = [
        f"parameters {{ key: {_quoted(name)} value {{ string_value: {_quoted(value)} }} }}\n"
        for name, value in settings.items()
    ]
    return "".join(["\n# This model's own settings, which take precedence over the environment's.\n", *lines])


def _quoted(text: str) -> str:
    """A string of protobuf's text format."""
    return json.dumps(text, ensure_ascii=False)
