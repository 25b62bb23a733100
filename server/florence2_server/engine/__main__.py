"""`python -m florence2_engine --socket PATH --config JSON`: one engine, started by Triton's stub.

Its first line on standard output is `ready`, or `error: ` and the reason why there will be no engine. Logs and progress
go to standard error. It stops at SIGTERM, and with its parent.
"""

import argparse
import ctypes
import logging
import os
import signal
import sys
import threading
import warnings
from typing import TextIO

import torch

from florence2_engine import warm_up
from florence2_engine.candidates import CandidateFinder
from florence2_engine.checkpoint.loading import load
from florence2_engine.config import EngineConfig
from florence2_engine.embeddings import EmbeddingCache
from florence2_engine.engine import Engine
from florence2_engine.errors import CheckpointError
from florence2_engine.image_file import ImageReader
from florence2_engine.images import ImageDecoder
from florence2_engine.normalisation import Normalisation
from florence2_engine.resizing import resizing_of
from florence2_engine.runner import Runner
from florence2_engine.scheduler import Scheduler
from florence2_engine.server import EngineService, serve
from florence2_engine.tokenizer import PromptTokenizer

_STOP_GRACE_SECONDS = 1.0
_ABORT_VARIABLE = "FLORENCE2_TEST_ABORT_ON_PROMPT"
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Load, serve, wait for SIGTERM, stop."""
    arguments = _arguments()
    report = _take_standard_output()
    _die_with_parent(arguments.parent)
    logging.basicConfig(level=logging.INFO, format="florence2_engine %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("httpx", "httpx2"):  # the hub client's HTTP library logs a line for each file
        logging.getLogger(name).setLevel(logging.WARNING)
    # What a damaged image is warned of, its caller is told; Python would keep every wording of it for ever.
    warnings.filterwarnings("ignore", module="PIL")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the stub stops us in order
    config = EngineConfig.from_json(arguments.config)
    try:
        engine, service = build(config)
    except CheckpointError as error:
        report.write(f"error: {error}\n")
        sys.exit(1)
    except Exception as error:
        logging.exception("the engine cannot start")
        report.write(f"error: {' '.join(f'{type(error).__name__}: {error}'.split())}\n")
        sys.exit(1)
    engine.start()
    server = serve(service, arguments.socket, calls=2 * config.slots)
    report.write("ready\n")
    stop.wait()
    engine.close()
    server.stop(_STOP_GRACE_SECONDS).wait()
    logging.shutdown()
    os._exit(0)  # taking Python and torch apart takes another second and more, and does nothing for anybody


def build(config: EngineConfig) -> tuple[Engine, EngineService]:
    """An engine and its service, warmed up.

    Raises:
        CheckpointError: the checkpoint cannot be served.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    checkpoint = load(config)
    generation = checkpoint.generation
    rows = config.rows_for(generation.num_beams)
    image_batch = config.image_batch or (1 if checkpoint.model.device.type == "cpu" else config.prefill_batch)
    tokenizer = PromptTokenizer(checkpoint.tokenizer, checkpoint.prompt_limit)
    runner = Runner(
        checkpoint.model,
        Normalisation.of(checkpoint.image_processor),
        config.slots,
        rows,
        generation.positions.value,
    )
    images = ImageDecoder(resizing_of(checkpoint.image_processor), ImageReader.of(config))
    scheduler = Scheduler(config.slots, rows, config.prefill_batch, image_batch)
    if checkpoint.model.device.type == "cpu":
        warm_up.run_once(runner, checkpoint)
    else:
        warm_up.record_ordinary_work(runner, checkpoint, scheduler)
    engine = Engine(
        runner,
        scheduler,
        CandidateFinder(generation.bos_token_id, generation.eos_token_id),
        EmbeddingCache(config.embedding_cache_bytes),
    )
    return engine, EngineService(engine, images, tokenizer, generation, os.environ.get(_ABORT_VARIABLE, ""))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="florence2_engine", description=__doc__)
    parser.add_argument("--socket", required=True, help="path of the unix socket to serve on")
    parser.add_argument("--config", required=True, help="an EngineConfig as JSON")
    parser.add_argument("--parent", type=int, required=True, help="process id of whom this engine must not outlive")
    return parser.parse_args()


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def _take_standard_output() -> TextIO:
    """The pipe to the stub, for our reports alone: what libraries print goes to standard error from now on."""
    report = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return report


if __name__ == "__main__":
    main()
