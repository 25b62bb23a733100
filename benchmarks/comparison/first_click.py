"""From `pip install` to a result in a browser: `python -m benchmarks.comparison.first_click`.

The steps of a user with a clone and a laptop: a new virtual environment, the client with its extra `web` and the
server's package, `florence2 web` with the demo checkpoint in its own process, the page in Chromium, a click on the
sample, a click on Run. One run: full caches of pip and the file system would make a second one faster.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "model_repository/florence2/demo_checkpoint"
SAMPLE = "scene.png"
EXPECTED = "red circle"
_PACKAGES = (".[web]", "./server", "--constraint", "requirements/server.txt")
_MILLISECONDS = 120_000
_STOP_SECONDS = 60


class FirstClickError(Exception):
    """A step failed."""


class Watch:
    """Seconds by part, in order."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        started = time.perf_counter()
        yield
        self.parts[name] = time.perf_counter() - started


def main() -> None:
    """Measure; print the table."""
    arguments = _arguments()
    try:
        parts = measure(arguments.python, arguments.chromium)
    except FirstClickError as error:
        sys.exit(f"benchmark: {error}")
    table = Table("part", "seconds")
    for name, seconds in {**parts, "all": sum(parts.values())}.items():
        table.add_row(name, f"{seconds:.1f}")
    Console().print(table)


def measure(python: str, chromium: str) -> dict[str, float]:
    """Do all of it in a new folder, which is removed afterward.

    Args:
        python: the interpreter that makes the environment.
        chromium: the browser.

    Returns:
        Seconds by part.

    Raises:
        FirstClickError: a command failed, or the result is not what the sample shows.
    """
    watch = Watch()
    with TemporaryDirectory() as folder:
        binaries = Path(folder) / "venv/bin"
        with watch.part("install"):
            _run([python, "-m", "venv", str(binaries.parent)])
            _run([str(binaries / "python"), "requirements/install.py", *_PACKAGES])
        command = [str(binaries / "florence2"), "web", "--port", "0", "--checkpoint", str(CHECKPOINT)]
        started = time.perf_counter()
        with subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as web:
            try:
                url = _url(web.stderr)
                watch.parts["start"] = time.perf_counter() - started
                _click(url, chromium, watch)
            finally:
                web.terminate()
                web.wait(_STOP_SECONDS)
    return watch.parts


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise FirstClickError(f"{' '.join(command)} failed:\n{done.stdout}")


def _url(lines: IO[str] | None) -> str:
    seen = []
    for line in lines or ():
        seen.append(line)
        if found := re.search(r"http://\S+:\d+", line):
            return found[0]
    raise FirstClickError(f"florence2 web ended:\n{''.join(seen)}")


def _click(url: str, chromium: str, watch: Watch) -> None:
    from playwright.sync_api import sync_playwright  # in the environment of make test-web alone

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(_MILLISECONDS)
        with watch.part("page"):
            page.goto(url)
            page.click(f"[data-name='{SAMPLE}']")
            page.locator("#run:enabled").wait_for()
        with watch.part("first result"):
            page.click("#run")
            page.locator("#save-json:enabled").wait_for()
        shown = page.locator("#items").inner_text()
        browser.close()
    if EXPECTED not in shown:
        raise FirstClickError(f"no {EXPECTED} in the result: {shown}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="python3.11", help="makes the environment (default: %(default)s)")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
