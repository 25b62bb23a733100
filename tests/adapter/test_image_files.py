import hashlib
import os
import shutil

import pytest
from florence2.engine.v1.engine_pb2 import GenerateRequest
from florence2_adapter.image_files import image_file, image_hash

LARGE = os.urandom(4 * 1024 * 1024)


@pytest.mark.usefixtures("no_collector")
def test_a_large_image_is_in_a_private_file_for_as_long_as_it_is_wanted(tmp_path):
    file = image_file(LARGE, tmp_path)
    assert file.path.parent == tmp_path
    assert file.path.read_bytes() == LARGE
    assert file.path.stat().st_mode & 0o777 == 0o600
    del file
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_gone_already_is_no_error(tmp_path):
    file = image_file(LARGE, tmp_path)
    file.path.unlink()
    del file


def test_a_small_image_needs_no_file(tmp_path):
    assert image_file(LARGE[1:], tmp_path) is None


def test_without_room_there_is_no_file(tmp_path, monkeypatch):
    assert image_file(LARGE, tmp_path / "gone") is None
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * len(LARGE) - 1))
    assert image_file(LARGE, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_an_image_has_the_same_hash_either_way(tmp_path):
    file = image_file(LARGE, tmp_path)
    expected = hashlib.sha256(LARGE).hexdigest()
    assert image_hash(GenerateRequest(image=LARGE)) == expected
    assert image_hash(GenerateRequest(image_file=str(file.path))) == expected
