"""What a page names exists: links, anchors, make targets, paths."""

import re

import pytest

from tests.conftest import ROOT
from tests.docs.pages import PAGES, anchors, links, name, page, prose

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
# The changelog names what is gone.
HISTORICAL = {"CHANGELOG.md"}
# docs/internals.md names the last three, of an earlier layout; a training run makes the first.
ABSENT = (
    "training/runs/",
    "model_repository/florence2/1/florence2_",
    "model_repository/serve.py",
    "docker/entrypoint.py",
)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_link_leads_somewhere(path):
    for link in links(path):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_make_target_named_is_in_the_makefile(path):
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)", " ".join(re.findall(r"`[^`]+`", prose(path)))))
    assert named <= TARGETS, named - TARGETS


@pytest.mark.parametrize("path", [path for path in PAGES if name(path) not in HISTORICAL], ids=name)
def test_every_path_named_exists(path):
    roots = "client|server|model_repository|tests|examples|protos|docker|benchmarks|training|requirements|docs"
    for named in re.findall(rf"`((?:{roots})/[\w./-]+)`", path.read_text()):
        if named.startswith(ABSENT):
            continue
        assert (ROOT / named).exists() or (path.parent / named).exists(), named


def test_the_readme_is_short():
    assert len(page("README.md").splitlines()) <= 150
