"""The commands of the documentation that build images."""

import itertools
import shlex
from dataclasses import dataclass

from tests.deploy.conftest import DOCKER

PAGES = (DOCKER / "README.md", DOCKER / "helm" / "florence2-triton" / "README.md")


@dataclass(frozen=True)
class Build:
    """A command that builds an image.

    Attributes:
        arguments: its build arguments, each as an option.
        tag: the image's name, without a registry.
    """

    arguments: tuple[str, ...]
    tag: str


def build_command(dockerfile: str) -> Build:
    """Return the command that builds a Dockerfile; all pages must have the same."""
    found = {_parsed(line) for page in PAGES for line in _lines(page.read_text(), dockerfile)}
    (build,) = found
    return build


def _lines(text: str, dockerfile: str) -> list[str]:
    start = f"docker build --file docker/{dockerfile} "
    return [line for line in text.replace("\\\n", "").splitlines() if line.startswith(start)]


def _parsed(command: str) -> Build:
    words = shlex.split(command)
    options = [(flag, value) for flag, value in itertools.pairwise(words) if flag.startswith("--")]
    arguments = tuple(f"--build-arg={value}" for flag, value in options if flag == "--build-arg")
    return Build(arguments, dict(options)["--tag"].rpartition("/")[2])
