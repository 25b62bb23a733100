"""The folder of a tritonserver's sockets, and what another user may have put in its place."""

import os
import stat
from pathlib import Path

import pytest
from florence2_server.errors import ConfigError
from florence2_server.stub import sockets
from florence2_server.stub.sockets import STATE, STREAM, FolderError, create_folder, served_sockets, socket_path
from florence2_server.supervision.socket_path import MOST_BYTES

pytestmark = pytest.mark.usefixtures("temporary_folder")


@pytest.fixture
def place() -> Path:
    """The path at which the folder will be created; nothing exists there yet."""
    folder = create_folder()
    folder.rmdir()
    return folder


def fault() -> str:
    with pytest.raises(FolderError) as raised:
        create_folder()
    return str(raised.value)


def test_the_folder_belongs_to_this_user_alone_and_is_created_once(place):
    assert create_folder() == create_folder() == place
    assert stat.S_IMODE(place.lstat().st_mode) == 0o700


def test_a_link_is_not_followed_even_to_a_folder_of_this_user(place, tmp_path):
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    (target / f"captions.0.{STATE}").touch()
    place.symlink_to(target)
    assert fault() == f"{place}: got a link, expected a folder"
    assert served_sockets("captions", STATE) == {}


def test_a_file_is_no_folder(place):
    place.touch()
    assert fault() == f"{place}: the folder for sockets cannot be created: File exists"


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o750, 0o500])
def test_a_folder_that_others_can_access_is_refused(place, mode):
    place.mkdir()
    place.chmod(mode)
    (place / f"captions.0.{STATE}").touch()
    assert fault() == f"{place}: got a folder of mode {mode:04o}, expected 0700"
    assert served_sockets("captions", STATE) == {}


def test_a_folder_of_another_user_is_refused(place, monkeypatch):
    place.mkdir(mode=0o700)
    user = os.getuid()
    monkeypatch.setattr(sockets, "folder_of", lambda _: place)
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert fault() == f"{place}: got a folder of user {user}, expected one of user {user + 1}"
    assert served_sockets("captions", STATE) == {}


def test_a_folder_may_inherit_the_group_of_the_one_around_it(place):
    place.parent.chmod(0o2777)  # as Kubernetes mounts a volume with an fsGroup
    assert create_folder().lstat().st_mode & stat.S_ISGID


def test_a_path_that_is_too_long_is_named_before_any_socket_is_created(place):
    room = MOST_BYTES - len(f"{place}/.0.{STREAM}".encode())
    assert socket_path("m" * room, "0", STATE).name.startswith("mmm")
    path = place / f"{'m' * (room + 1)}.0.{STREAM}"
    for kind in (STATE, STREAM):  # the shorter one, too, although it would fit
        with pytest.raises(ConfigError) as raised:
            socket_path("m" * (room + 1), "0", kind)
        assert str(raised.value) == (
            f"socket: got a path of 108 bytes, {path}, expected at most 107; use a shorter TMPDIR, or a shorter name "
            "for the model"
        )
