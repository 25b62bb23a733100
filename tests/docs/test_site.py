"""The documentation's site: it builds without a warning, and loads nothing from other hosts."""

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import ROOT

SPHINX = ROOT / "build" / "docs-environment" / "bin" / "sphinx-build"
LOADING = {
    "audio",
    "embed",
    "iframe",
    "image",
    "img",
    "input",
    "link",
    "object",
    "script",
    "source",
    "track",
    "use",
    "video",
}
# Of <link>: these name a page, and fetch nothing.
NAMED_ONLY = {"author", "canonical", "help", "index", "license", "next", "prev", "search", "top"}
BUILD_SECONDS = 300


class Loads(HTMLParser):
    """Collects what a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.found += re.findall(r"url\(\s*['\"]?([^)'\"]+)", given.get("style") or "")
        if tag in LOADING and not (tag == "link" and set((given.get("rel") or "").split()) <= NAMED_ONLY):
            self.found += [
                given[name] or "" for name in ("src", "href", "data", "poster", "xlink:href") if name in given
            ]
            self.found += [each.split()[0] for each in (given.get("srcset") or "").split(",") if each.strip()]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    if not SPHINX.exists():
        pytest.skip("make docs installs the generator")
    folder = tmp_path_factory.mktemp("site")
    command = [SPHINX, "-c", ROOT / "docs", "-d", folder / "cache", "-W", "--keep-going", "-q", ROOT, folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def is_elsewhere(address: str) -> bool:
    """Whether an address is on another host."""
    return bool(re.match(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", address, re.IGNORECASE))


def test_every_page_is_built(site):
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= {
        page.stem for page in (site / "docs").glob("*.html")
    }
    for page in ("index", "README", "CHANGELOG", "docker/RUNBOOK", "benchmarks/capacity/CAPACITY"):
        assert (site / f"{page}.html").is_file()


def test_no_page_loads_anything_from_another_host(site):
    pages = list(site.rglob("*.html"))
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text())
        assert [address for address in loads.found if is_elsewhere(address)] == [], page
    assert len(pages) > 15


def test_no_stylesheet_or_script_loads_anything_from_another_host(site):
    styles = [file.read_text() for file in site.rglob("*.css")]
    styles += [
        part for page in site.rglob("*.html") for part in re.findall(r"<style.*?</style>", page.read_text(), re.DOTALL)
    ]
    assert styles
    for style in styles:
        addresses = re.findall(r"(?:url\(\s*|@import\s+)['\"]?([^)'\";]+)", style)
        assert [address for address in addresses if is_elsewhere(address)] == []
    scripts = [file.read_text() for file in site.rglob("*.js")]
    assert not any(re.search(r"(?:fetch|import|importScripts)\(\s*['\"`]https?:", script) for script in scripts)


@pytest.mark.parametrize(
    ("markup", "elsewhere"),
    [
        ('<script src="//cdn.example/x.js"></script>', True),
        ('<link rel="preconnect stylesheet" href="https://fonts.example/css">', True),
        ('<img src="a.png" srcset="https://x.example/b.png 2x">', True),
        ('<p style="background: url(https://x.example/c.png)">', True),
        ('<a href="https://x.example">a link loads nothing</a>', False),
        ('<script src="_static/x.js"></script>', False),
        ('<link rel="canonical" href="https://x.example/page">', False),
    ],
)
def test_what_a_browser_would_fetch_is_found(markup, elsewhere):
    loads = Loads()
    loads.feed(markup)
    assert any(map(is_elsewhere, loads.found)) is elsewhere
