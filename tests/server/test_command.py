"""The command `florence2-server`: what it writes, prints and returns."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest
from florence2_server.__main__ import main
from florence2_server.repository import REPOSITORY
from florence2_server.startup import own_settings
from florence2_server.tritonserver import Ports

from tests.server.conftest import START_SECONDS, infer, port_options, wait_until_ready

COMMAND = [sys.executable, "-m", "florence2_server"]
STOP_SECONDS = 30
OF_REPOSITORY = f"--model-repository={REPOSITORY}"
IGNORED = "--model-repository: got {} too; models are set in the repository's config.pbtxt"


def files_under(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def printed_help(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@contextmanager
def serving(*arguments: str):
    """The gRPC address of a server that the command runs; it is stopped in the end, with exit status 0."""
    ports = Ports.free()
    with subprocess.Popen(
        [*COMMAND, "serve", *port_options(ports), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until_ready(ports.grpc)
            yield f"127.0.0.1:{ports.grpc}"
            process.terminate()
            assert process.wait(STOP_SECONDS) == 0
        finally:
            process.kill()


def test_a_written_repository_is_that_of_the_package_without_the_checkpoint_and_is_served(tmp_path, image_file):
    folder = tmp_path / "models"
    assert main(["repository", str(folder)]) == 0
    packaged = {name: file for name, file in files_under(REPOSITORY).items() if "demo_checkpoint" not in name}
    assert files_under(folder) == packaged
    models = ("florence2", "florence2_health", "florence2_stream")
    assert set(packaged) == {f"{model}/{file}" for model in models for file in ("config.pbtxt", "1/model.py")}
    with serving("--model-repository", str(folder)) as url, triton.InferenceServerClient(url) as client:
        request = TaskRequest(caption={}, generation={"max_new_tokens": 3})
        assert infer(client, image_file(), request).usage.generated_tokens == 3
        names = {model.name for model in client.get_model_repository_index().models}
        assert names == set(models)


def test_a_written_repository_has_the_models_and_their_settings(tmp_path, random_checkpoint, monkeypatch):
    monkeypatch.chdir(random_checkpoint.parent)
    models = [f"--model=captions={random_checkpoint.name}", "--model=docs-1=owner/name"]
    assert main(["repository", str(tmp_path / "models"), *models, "--set=captions.slots=8"]) == 0
    names = {folder.name for folder in (tmp_path / "models").iterdir()}
    assert names == {f"{model}{suffix}" for model in ("captions", "docs-1") for suffix in ("", "_stream", "_health")}
    for name in names:
        assert f'name: "{name}"' in (tmp_path / "models" / name / "config.pbtxt").read_text()
    assert own_settings(tmp_path / "models" / "captions") == {"checkpoint": str(random_checkpoint), "slots": "8"}
    assert own_settings(tmp_path / "models" / "docs-1") == {"checkpoint": "owner/name"}


def test_only_the_models_of_the_repository_are_served(tmp_path):
    folder = tmp_path / "models"
    main(["repository", str(folder)])
    (folder / "florence2" / "config.pbtxt").unlink()
    with serving("--model-repository", os.path.relpath(folder)) as url, triton.InferenceServerClient(url) as client:
        names = {model.name for model in client.get_model_repository_index().models}
    assert names == {"florence2_health", "florence2_stream"}


def test_a_repository_is_written_into_an_empty_folder_but_into_no_other(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for occupied in (tmp_path / "full", tmp_path / "full" / "file"):
        assert main(["repository", str(occupied)]) == 1
        assert capsys.readouterr().err == f"error: folder: got '{occupied}', expected a new or an empty folder\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]
    (tmp_path / "empty").mkdir()
    assert main(["repository", str(tmp_path / "empty")]) == 0
    assert (tmp_path / "empty" / "florence2" / "config.pbtxt").is_file()


def test_a_folder_without_models_cannot_be_served(tmp_path, capsys):
    assert main(["serve", "--model-repository", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"--model-repository: got '{tmp_path}', expected a folder with */config.pbtxt\n"


def test_the_help_of_serve_names_its_options_and_the_other_commands(capsys):
    text = printed_help(capsys, "serve")
    assert text == printed_help(capsys), "serve is the default command"
    ports = ("--http-port", "--grpc-port", "--metrics-port", "--health-port", "--grpc-health-port", "default: 8001")
    for word in ("--host", *ports, "--model-repository", "--model NAME=CHECKPOINT", "--set NAME.SETTING=VALUE"):
        assert word in text
    for command in ("health,", "repository", "check", "convert", "fetch"):
        assert f"{command} " in text
    assert "FLORENCE2_CHECKPOINT" in text


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("repository", ["folder"]),
        ("check", ["checkpoint"]),
        ("convert", ["checkpoint", "folder"]),
        ("fetch", ["checkpoint", "folder"]),
    ],
)
def test_every_other_command_has_help_with_its_arguments(capsys, command, arguments):
    text = printed_help(capsys, command)
    assert text.startswith(f"usage: florence2-server {command} [-h] ")
    assert f" {' '.join(arguments)} " in text


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["no-such-command"], ["repository"], ["check"]])
def test_a_wrong_command_line_has_exit_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: florence2-server" in capsys.readouterr().err


def test_a_rejected_checkpoint_has_exit_status_1():
    done = subprocess.run([*COMMAND, "check", "/nowhere"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no such folder" in done.stdout + done.stderr


def failed(*arguments: str, **environment: str) -> list[str]:
    """The lines on standard error of a command that fails; it prints nothing else."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_server_that_cannot_start_says_so_in_its_last_line(tmp_path):
    broken = tmp_path / "models" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.pbtxt").write_text('name: "broken" backend: "no-such-backend"')
    *_, last = failed("serve", f"--model-repository={tmp_path / 'models'}", *port_options(Ports.free()))
    assert last.endswith("tritonserver ended with exit status 1 before it was ready; the lines above say why")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {"FLORENCE2_SLOT": "4"}, "FLORENCE2_SLOT: no such variable, did you mean FLORENCE2_SLOTS?"),
        ([], {"FLORENCE2_SLOTS": "none"}, "slots: got 'none', expected a whole number"),
        (
            ["--set=florence2.slot=4"],
            {},
            "model 'florence2': slot: no such setting, did you mean slots?",
        ),
        (
            ["--set=captions.slots=4"],
            {},
            "model setting: got 'captions.slots=4', expected one of the models florence2",
        ),
        (
            ["--model=a=/nowhere"],
            {},
            "model 'a': checkpoint '/nowhere': no such folder, and not a hub id (owner/name or owner/name@revision)",
        ),
        ([OF_REPOSITORY, "--model=a=owner/a"], {}, IGNORED.format("--model or --set")),
        ([OF_REPOSITORY, "--set=florence2.slots=4"], {}, IGNORED.format("--model or --set")),
        ([OF_REPOSITORY], {"FLORENCE2_MODELS": "a=owner/a"}, IGNORED.format("FLORENCE2_MODELS")),
        ([OF_REPOSITORY], {"FLORENCE2_MODEL_SETTINGS": "a.slots=4"}, IGNORED.format("FLORENCE2_MODEL_SETTINGS")),
        (["--http-port=1", "--grpc-port=1"], {}, "FLORENCE2_GRPC_PORT: got 1, which is FLORENCE2_HTTP_PORT too"),
        (["--host=192.0.2.1"], {}, "address: got '192.0.2.1', which is not this machine's"),
        (
            [],
            {"FLORENCE2_GRPC_TLS_CERTIFICATE": "/nowhere", "FLORENCE2_GRPC_TLS_KEY": "/nowhere"},
            f"FLORENCE2_GRPC_TLS_CERTIFICATE: got '/nowhere', expected a file that user {os.getuid()} can read",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_what_can_be_checked_before_the_start_is_the_only_line(arguments, environment, message):
    ports = [] if any("port" in argument for argument in arguments) else port_options(Ports.free())
    assert failed("serve", *ports, *arguments, **environment) == [message]


def test_a_port_that_is_in_use_is_named():
    ports = Ports.free()
    with socket.create_server(("127.0.0.1", ports.metrics)):
        message = f"FLORENCE2_METRICS_PORT: 127.0.0.1:{ports.metrics} is already in use"
        assert failed("serve", *port_options(ports)) == [message]
