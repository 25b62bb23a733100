"""Loading a checkpoint into a ready engine: one model in both layouts, and as `.bin` weights. `make bench-layouts`.

Each load runs in a process of its own, alternating between layouts, with a warm page cache. Memory is the peak of
anonymous memory above that of the process after its imports: pages of mapped files, which the system can drop at any
time, do not count.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.arguments import add_arguments
from benchmarks.harness.checkpoints import make_checkpoint
from benchmarks.kernels.original_layout import original_config, original_tensors

_NATIVE = "native, safetensors"
_ORIGINAL = "original, safetensors"
_PICKLED = "original, .bin"
_MEMORY_TARGET, _TIME_TARGET = 1.1, 1.5
_SAMPLE_SECONDS = 0.002
_MEBIBYTE = 1 << 20


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)  # run by each measured process
    arguments = parser.parse_args()
    if arguments.load is not None:
        print(json.dumps(_measure_load(arguments.load)))  # noqa: T201 - for the parent process
        return
    base = make_checkpoint("base", arguments.configs, arguments.output)
    folders = _make_layouts(base, arguments.output / "layouts")
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
    for number in range(arguments.rounds + 1):
        for name, folder in folders.items():
            figures = _load_in_a_process(folder)
            if number:  # the first round warms the page cache
                measured[name].append(figures)
            print(f"round {number}/{arguments.rounds}  {name}: {figures['seconds']:.2f} s", file=sys.stderr)  # noqa: T201
    print(_table(measured))  # noqa: T201 - the command's output


def _make_layouts(base: Path, folder: Path) -> dict[str, Path]:
    """Write the base-size model in half precision, as checkpoints are published."""
    folders = {name: folder / name.replace(", ", "-").replace(".", "") for name in (_NATIVE, _ORIGINAL, _PICKLED)}
    if all((each / "done").is_file() for each in folders.values()):
        return folders
    from safetensors.torch import save_file
    from transformers import Florence2ForConditionalGeneration, GenerationConfig

    shutil.rmtree(folder, ignore_errors=True)
    load: Any = Florence2ForConditionalGeneration.from_pretrained
    model = load(base, dtype=torch.float16)
    tensors = original_tensors(model)
    savers: dict[str, Callable[[Path], object]] = {
        _NATIVE: model.save_pretrained,
        _ORIGINAL: lambda path: save_file(tensors, path / "model.safetensors", {"format": "pt"}),
        _PICKLED: lambda path: torch.save(tensors, path / "pytorch_model.bin"),
    }
    model.generation_config = GenerationConfig.from_pretrained(base)
    for name, path in folders.items():
        shutil.copytree(base, path, ignore=shutil.ignore_patterns("*.safetensors"))
        savers[name](path)
        if name != _NATIVE:
            (path / "config.json").write_text(json.dumps(original_config(model)))
            image_processor = json.loads((base / "processor_config.json").read_text())["image_processor"]
            (path / "preprocessor_config.json").write_text(json.dumps(image_processor))
        (path / "done").touch()
    return folders


def _load_in_a_process(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.kernels.checkpoint_layouts", "--load", os.fspath(folder.resolve())]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=600)
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


def _measure_load(folder: Path) -> dict[str, float]:
    from florence2_server.config import EngineConfig
    from florence2_server.engine.build import build

    before = peak = _anonymous_bytes()
    ended = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(_SAMPLE_SECONDS):
            peak = max(peak, _anonymous_bytes())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    begin = time.monotonic()
    built = build(EngineConfig(checkpoint=os.fspath(folder), device="cpu", dtype="float32"))
    seconds = time.monotonic() - begin
    ended.set()
    sampler.join()
    del built
    return {"seconds": seconds, "bytes": float(peak - before)}


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon: Linux 4.5 or newer is needed")


def _table(measured: dict[str, list[dict[str, float]]]) -> str:
    lines = [f"{'layout and format':24}{'s, median (spread)':>24}{'x':>7}{'MiB, peak':>12}{'x':>7}"]
    for name, rounds in measured.items():
        seconds, sizes = ([each[figure] for each in rounds] for figure in ("seconds", "bytes"))
        ratios = {figure: _ratio(rounds, measured[_NATIVE], figure) for figure in ("seconds", "bytes")}
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        peak = statistics.median(sizes) / _MEBIBYTE
        lines.append(f"{name:24}{spread:>24}{ratios['seconds']:7.2f}{peak:12.0f}{ratios['bytes']:7.2f}")
    return "\n".join(
        [*lines, f"targets: time at most {_TIME_TARGET}, memory at most {_MEMORY_TARGET} of the native layout's"]
    )


def _ratio(rounds: Sequence[dict[str, float]], native: Sequence[dict[str, float]], figure: str) -> float:
    """The median, over the rounds, of the ratio to the native layout's figure."""
    return statistics.median(one[figure] / other[figure] for one, other in zip(rounds, native, strict=True))


if __name__ == "__main__":
    main()
