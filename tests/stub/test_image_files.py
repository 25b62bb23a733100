import errno
import hashlib
import os
import subprocess
import sys

import pytest
from florence2_server.stub.image_files import ElementImage, ImageFiles
from florence2_server.v1.engine_pb2 import GenerateRequest

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


def test_a_small_image_goes_in_the_message_unless_several_generations_are_about_it():
    assert ImageFiles().file(LARGE[1:]) is None
    assert ImageFiles().file(b"small", is_shared=True).read() == b"small"


def test_without_memory_for_a_file_the_image_goes_in_the_message(monkeypatch):
    def refuse(_: str) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert ImageFiles().file(LARGE) is None


def test_a_file_holds_the_image_and_its_size():
    file = ImageFiles().file(LARGE)
    assert file.size == len(LARGE)
    assert [file.read(), file.read()] == [LARGE, LARGE]


def test_no_more_files_are_created_once_the_engine_could_not_read_one(caplog):
    files = ImageFiles()
    assert files.file(LARGE) is not None
    files.stop("permission denied")
    files.stop("permission denied")
    assert files.file(LARGE) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "permission denied" in caplog.text


def test_an_image_that_cannot_be_read_from_its_file_moves_into_the_messages():
    image = ElementImage(LARGE, ImageFiles(), is_shared=False)
    in_file, in_message = GenerateRequest(), GenerateRequest()
    image.write_to(in_file)
    assert (in_file.image, in_file.image_file_bytes) == (b"", len(LARGE))
    assert image.hash() == hashlib.sha256(LARGE).hexdigest()
    image.leave_file()
    image.write_to(in_message)
    assert (in_message.image, in_message.image_file) == (LARGE, "")
    assert image.hash() == hashlib.sha256(LARGE).hexdigest()
