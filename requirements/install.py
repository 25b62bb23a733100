"""Install the project's packages with pip; on a machine without an NVIDIA GPU, take PyTorch's CPU build.

PyPI's PyTorch for Linux includes CUDA: gigabytes that such a machine has no use for. The CPU build is on PyTorch's own
index. Only PyTorch is installed from there; everything else comes from wherever pip is configured to look. The index is
skipped if it cannot be reached, or if pip is configured to use another one instead of PyPI.

Usage: python requirements/install.py [arguments for `pip install`; default: --requirement requirements/development.txt]

TORCH_INDEX in the environment names a mirror of PyTorch's CPU index.
"""

import http.client
import importlib.metadata
import os
import re
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
REACH_SECONDS = 5.0

_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
_CPU_SIZE = "about 0.5 GB to download, 2.1 GB installed"
_CUDA_SIZE = "about 3 GB to download, 5.9 GB installed"


@dataclass(frozen=True)
class Source:
    """Where PyTorch comes from.

    Attributes:
        index: the index to install it from; None: wherever pip is configured to look.
        notice: what to tell the user before anything is downloaded.
    """

    index: str | None
    notice: str


def main(arguments: list[str]) -> int:
    """Install. Returns pip's exit status."""
    version = pinned_torch()
    if not is_installed(version):
        source = choose_source(version, os.environ.get("TORCH_INDEX") or CPU_INDEX, has_gpu(), pip_replaces_pypi())
        print(source.notice, flush=True)  # noqa: T201 - a command's output
        if source.index and (status := pip_install("--no-deps", "--index-url", source.index, f"torch=={version}")):
            return status
    return pip_install(*(arguments or ["--requirement", os.fspath(HERE / "development.txt")]))


def pinned_torch() -> str:
    """Return the version of PyTorch that requirements/server.txt pins."""
    (version,) = re.findall(r"^torch==(\S+)$", (HERE / "server.txt").read_text(), flags=re.MULTILINE)
    return str(version)


def is_installed(version: str) -> bool:
    """Whether this environment has a build of that version of PyTorch."""
    try:
        return importlib.metadata.version("torch").partition("+")[0] == version
    except importlib.metadata.PackageNotFoundError:
        return False


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is visible."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def pip_replaces_pypi() -> bool:
    """Whether pip's configuration names an index of its own, or none at all, instead of PyPI."""
    listing = subprocess.run([*_PIP, "config", "list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return re.search(r"^\S+\.(index-url|no-index)='[^']", listing, flags=re.MULTILINE) is not None


def choose_source(version: str, index: str, gpu: bool, replaces_pypi: bool) -> Source:
    """Choose where PyTorch comes from.

    Args:
        version: of PyTorch.
        index: PyTorch's CPU index, or a mirror of it.
        gpu: whether this machine has an NVIDIA GPU.
        replaces_pypi: whether pip is configured to use another index instead of PyPI.
    """
    if gpu:
        return Source(None, f"Installing PyTorch {version} with CUDA and the project's other packages: {_CUDA_SIZE}.")
    if replaces_pypi:
        sizes = f"with its CPU build {_CPU_SIZE}, with CUDA {_CUDA_SIZE}"
        return Source(
            None, f"Installing PyTorch {version} and the rest from the index that pip is set to use: {sizes}."
        )
    if offers_cpu_build(index, version):
        return Source(index, f"Installing PyTorch {version} for CPU from {index}, and the rest: {_CPU_SIZE}.")
    return Source(
        None,
        f"No GPU here, but PyTorch's CPU index ({index}) cannot be reached. Installing PyTorch {version} from pip's "
        f"default sources instead. PyPI's build includes CUDA: {_CUDA_SIZE}.",
    )


def offers_cpu_build(index: str, version: str) -> bool:
    """Whether the index can be reached and has a CPU build of that version of PyTorch."""
    try:
        with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=REACH_SECONDS) as page:  # noqa: S310
            listing = page.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return False
    return re.search(rf"torch-{re.escape(version)}(%2B|\+)cpu-", listing) is not None


def pip_install(*arguments: str) -> int:
    """Run `pip install` in this environment. Returns its exit status."""
    return subprocess.run([*_PIP, "install", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
