"""What the published files hold."""

import tarfile
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.package


def sources(folder: Path, package: str) -> dict[str, bytes]:
    """The files of a package in the checkout, links followed, by their names in a wheel."""
    pattern = [*(folder / package).rglob("*"), *(folder / package / "model_repository").glob("**/*")]
    files = {path for path in pattern if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def wheel_files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packaged(files: dict[str, bytes]) -> dict[str, bytes]:
    """A wheel's files without its metadata."""
    return {name: content for name, content in files.items() if ".dist-info/" not in name}


def of_metadata(files: dict[str, bytes], name: str) -> bytes:
    (content,) = (content for path, content in files.items() if path.endswith(f".dist-info/{name}"))
    return content


def metadata(wheel: Path) -> Message:
    return BytesParser().parsebytes(of_metadata(wheel_files(wheel), "METADATA"))


def test_the_client_wheel_has_the_client_and_nothing_else(client_distribution):
    files = packaged(wheel_files(client_distribution.wheel))
    assert files == sources(ROOT / "client", "florence2")
    assert {"florence2/py.typed", "florence2/v1/tasks_pb2.py", "florence2/v1/tasks_pb2.pyi"} <= set(files)
    assert {Path(name).parts[0] for name in files} == {"florence2"}
    assert [name for name in files if "engine" in name] == []


def test_the_server_wheel_has_the_whole_package_and_the_model_repository(server_distribution):
    files = packaged(wheel_files(server_distribution.wheel))
    assert files == sources(ROOT / "server", "florence2_server")
    repository = "florence2_server/model_repository"
    assert {name for name in files if name.startswith(repository)} == {
        f"{repository}/{name}" for name in sources(ROOT / "model_repository", ".")
    }
    for name in ("config.pbtxt", "1/model.py", "demo_checkpoint/model.safetensors", "demo_checkpoint/tokenizer.json"):
        assert files[f"{repository}/florence2/{name}"] == (ROOT / "model_repository" / "florence2" / name).read_bytes()
    assert {"florence2_server/py.typed", "florence2_server/v1/engine_pb2_grpc.py"} <= set(files)


def test_source_distributions_have_files_and_no_links(client_distribution, server_distribution):
    for distribution in (client_distribution, server_distribution):
        with tarfile.open(distribution.sdist) as archive:
            members = [member for member in archive if not member.isdir()]
        assert [member.name for member in members if not member.isreg()] == []
        assert [member.name for member in members if "__pycache__" in member.name] == []


def test_both_wheels_carry_the_license_and_their_readme(client_distribution, server_distribution):
    license_text = (ROOT / "LICENSE").read_bytes()
    for distribution, folder in ((client_distribution, ROOT), (server_distribution, ROOT / "server")):
        assert of_metadata(wheel_files(distribution.wheel), "licenses/LICENSE") == license_text
        published = metadata(distribution.wheel)
        assert published["License-Expression"] == "Apache-2.0"
        assert published["Description-Content-Type"] == "text/markdown"
        assert published.get_payload() == (folder / "README.md").read_text()


def test_the_server_needs_the_client_of_its_own_version(client_distribution, server_distribution):
    client, server = metadata(client_distribution.wheel), metadata(server_distribution.wheel)
    assert client["Version"] == server["Version"]
    assert f"florence2-triton=={client['Version']}" in server.get_all("Requires-Dist")


def test_the_commands_are_installed(client_distribution, server_distribution):
    for distribution, command in ((client_distribution, b"florence2 ="), (server_distribution, b"florence2-server =")):
        assert command in of_metadata(wheel_files(distribution.wheel), "entry_points.txt")
