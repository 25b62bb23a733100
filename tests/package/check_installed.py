"""Run by `make test-package` in an environment with the client package and its dependencies only."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import florence2
import numpy as np
from florence2.v1 import TaskRequest

ALLOWED = {"numpy", "pillow", "protobuf", "grpcio", "tenacity", "tritonclient"}


def dependencies_of(package: str) -> set[str]:
    """Return the names of a package's direct dependencies, without those of its extras."""
    requirements = [each for each in importlib.metadata.requires(package) or [] if "extra ==" not in each]
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


def main() -> None:
    """Fail if the package has other dependencies than expected, or does not work with them."""
    assert dependencies_of("florence2-triton") == ALLOWED, dependencies_of("florence2-triton")
    for heavy in ("torch", "transformers", "pytriton"):
        assert importlib.util.find_spec(heavy) is None, heavy
    assert florence2.render_prompt(TaskRequest(object_detection={})) == "<OD>"
    found = florence2.decode("<OD>", "</s><s>cat<loc_100><loc_200><loc_300><loc_400></s>", (1000, 1000))
    assert found.labels == ["cat"]
    picture = np.zeros((100, 100, 3), dtype=np.uint8)
    assert florence2.draw(picture, found).size == (100, 100)
    with florence2.Client("localhost:1", timeout=0.5) as client:
        assert not client.is_ready()
    command = Path(sys.executable).with_name("florence2")
    assert subprocess.run([command, "health", "--url", "localhost:1"], check=False).returncode == 1
    without_extra = subprocess.run([command, "detect", "a.png"], capture_output=True, text=True, check=False)
    assert (without_extra.returncode, without_extra.stderr.count("\n")) == (2, 1), without_extra
    assert 'pip install "florence2-triton[cli]"' in without_extra.stderr
    print(f"florence2 works alone, with numpy {np.__version__}")  # noqa: T201 - what the command is for


if __name__ == "__main__":
    main()
