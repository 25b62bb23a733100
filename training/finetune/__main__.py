"""The command line: `python -m training.finetune`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from training.finetune.errors import FinetuneError, SettingError
from training.finetune.settings import parse

_INTERRUPTED = 128 + signal.SIGINT
# Of libraries to each other; an adapted output layer is untied before it is merged.
_NOT_FOR_USERS = ("`is_gradient_checkpointing` is deprecated", "Model has `tie_word_embeddings=True`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fine-tune according to the command line. Returns the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    # `accelerate launch` numbers its processes; one of them reports.
    is_reporting = os.environ.get("RANK", "0") == "0"
    for name in ("training", "florence2_server.engine.checkpoint.hub"):  # the latter downloads
        logging.getLogger(name).setLevel(logging.INFO if is_reporting else logging.WARNING)
    for message in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message)
    # The weights that the best checkpoint of a full training lacks are tied to others.
    logging.getLogger("transformers.trainer").addFilter(lambda record: "missing keys" not in record.getMessage())
    try:
        settings = parse(arguments)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    # Torch and transformers take seconds to import, which an error in a setting need not wait for.
    from florence2_server.engine.errors import CheckpointError
    from transformers.utils import logging as library_logging

    from training.finetune.run import finetune

    library_logging.disable_progress_bar()
    try:
        finetune(settings)
    except (FinetuneError, CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command with --resume continues", file=sys.stderr)  # noqa: T201
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
