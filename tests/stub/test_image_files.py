import errno
import hashlib
import os
import subprocess
import sys

import pytest
from florence2_adapter.image_files import ImageFiles, image_hash

LARGE = os.urandom(4 * 1024 * 1024)


@pytest.mark.usefixtures("no_collector")
def test_another_process_can_read_a_large_image_while_its_object_lives():
    file = ImageFiles().file(LARGE)
    read = [sys.executable, "-c", f"import sys; sys.stdout.buffer.write(open({str(file.path)!r}, 'rb').read())"]
    assert subprocess.run(read, capture_output=True, check=True, timeout=60).stdout == LARGE
    path = file.path
    assert path.readlink().name == "memfd:florence2-image (deleted)"
    del file
    assert not path.exists()


def test_a_small_image_needs_no_file():
    assert ImageFiles().file(LARGE[1:]) is None


def test_if_no_file_can_be_created_there_is_none(monkeypatch):
    def refuse(_: str) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert ImageFiles().file(LARGE) is None


def test_a_file_holds_the_image_and_its_size():
    file = ImageFiles().file(LARGE)
    assert file.size == len(LARGE)
    assert [file.read(), file.read()] == [LARGE, LARGE]
    assert image_hash(file.read()) == hashlib.sha256(LARGE).hexdigest()


def test_there_are_no_more_files_once_the_engine_could_not_read_one(caplog):
    files = ImageFiles()
    assert files.file(LARGE) is not None
    files.stop("permission denied")
    files.stop("permission denied")
    assert files.file(LARGE) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "permission denied" in caplog.text
