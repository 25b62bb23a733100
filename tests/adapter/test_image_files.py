import errno
import hashlib
import os
import subprocess
import sys

import pytest
from florence2.engine.v1.engine_pb2 import GenerateRequest
from florence2_adapter.image_files import image_file, image_hash

LARGE = os.urandom(4 * 1024 * 1024)


@pytest.mark.usefixtures("no_collector")
def test_another_process_can_read_a_large_image_while_its_object_lives():
    file = image_file(LARGE)
    read = [sys.executable, "-c", f"import sys; sys.stdout.buffer.write(open({str(file.path)!r}, 'rb').read())"]
    assert subprocess.run(read, capture_output=True, check=True, timeout=60).stdout == LARGE
    path = file.path
    assert path.readlink().name == "memfd:florence2-image (deleted)"
    del file
    assert not path.exists()


def test_a_small_image_needs_no_file():
    assert image_file(LARGE[1:]) is None


def test_if_no_file_can_be_created_there_is_none(monkeypatch):
    def refuse(_: str) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert image_file(LARGE) is None


def test_an_image_has_the_same_hash_either_way():
    file = image_file(LARGE)
    expected = hashlib.sha256(LARGE).hexdigest()
    assert image_hash(GenerateRequest(image=LARGE)) == expected
    assert image_hash(GenerateRequest(image_file=str(file.path))) == expected
