"""The playground's files, without a browser."""

import re

import pytest
from florence2.web.page import STATIC

NAMES = sorted(file.relative_to(STATIC).as_posix() for file in STATIC.rglob("*.*"))
TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".html": "text/html",
}


def test_browsers_revalidate_the_page(app_client):
    client = app_client()
    first = client.get("/")
    assert first.status_code == 200
    assert first.headers["Cache-Control"] == "no-cache"
    assert client.get("/", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_a_type_that_browsers_accept(app_client, name):
    response = app_client().get(f"/static/{name}")
    assert response.headers["Content-Type"].partition(";")[0] == TYPES[f".{name.rpartition('.')[2]}"]


def test_the_page_has_neither_inline_scripts_nor_styles_nor_other_origins():
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|https?://(?!www\.w3\.org/)", page)


def test_the_page_is_small():
    assert sum(file.stat().st_size for file in STATIC.rglob("*.*")) < 120_000
