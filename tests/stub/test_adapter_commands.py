"""The command `florence2-server adapters`, and the sockets through which it reaches servers; the engine is a fake."""

import os
import stat
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass

import pytest
from florence2_server.__main__ import main
from florence2_server.config import AdapterConfig
from florence2_server.stub.adapter_service import AdapterServer
from florence2_server.stub.adapter_sources import AdapterSources
from florence2_server.stub.sockets import create_folder, folder_of
from florence2_server.supervision.engine_adapters import EngineAdapters
from florence2_server.supervision.supervisor import EngineState

from tests.supervision.fleet import WAIT, FakeEngine, wait_for


@dataclass
class FakeSupervisor:
    state: EngineState = EngineState.RUNNING


class ServedEngine:
    """An engine's adapters, with a socket for commands."""

    def __init__(self, model: str, name: str, setting: str = "") -> None:
        self.engine = FakeEngine()
        self.supervisor = FakeSupervisor()
        self.sources = AdapterSources(AdapterConfig(setting), poll_seconds=0)
        self.adapters = EngineAdapters(self.sources.wanted, 60)
        self.adapters.start(self.engine, is_first=True)
        self._server = AdapterServer(model, name, self.supervisor, self.sources, self.adapters)
        self.close = self._server.close

    @property
    def served(self) -> list[str]:
        return [status.name for status in self.adapters.served]


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def serve():
    """`serve(name, model, setting)`: an engine, until the end of the test."""
    started = []

    def serve(name: str = "0", model: str = "florence2", setting: str = "") -> ServedEngine:
        started.append(ServedEngine(model, name, setting))
        return started[-1]

    yield serve
    for each in started:
        each.close()


@pytest.fixture
def command(capsys):
    """Runs `florence2-server adapters`; returns its exit status and what it printed."""

    def command(*arguments: str) -> tuple[int, str]:
        status = main(["adapters", *arguments])
        printed = capsys.readouterr()
        assert status == (1 if printed.err else 0)
        assert not printed.err or printed.err.startswith("error: ")
        assert printed.err.count("\n") <= 1
        return status, (printed.out + printed.err).strip()

    return command


def test_an_adapter_is_loaded_listed_and_unloaded(serve, command, tmp_path):
    engine = serve()
    assert command("load", f"invoices={tmp_path}") == (0, "invoices is served: rank 8, 1000 bytes")
    assert engine.served == ["invoices"]
    status, table = command("list")
    assert (status, [line.split() for line in table.splitlines()]) == (
        0,
        [["NAME", "RANK", "BYTES", "ORIGIN", "SOURCE"], ["invoices", "8", "1000", "command", str(tmp_path)]],
    )
    assert command("unload", "invoices") == (0, "")
    assert engine.served == []
    assert engine.engine.adapters == [["invoices"], []]


def test_a_relative_folder_is_relative_to_the_commands_working_directory(serve, command, tmp_path, monkeypatch):
    engine = serve()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    command("load", "a=here")
    command("load", "b=owner/name@main")
    assert [each.source for each in engine.sources.wanted()] == [str(tmp_path / "here"), "owner/name@main"]


def test_an_adapter_that_cannot_be_served_is_an_error_and_leaves_nothing_behind(serve, command, tmp_path):
    engine = serve()
    engine.engine.adapter_errors = {"bad": "adapter '/x': rank: got 65,\nexpected at most 64"}
    expected = "error: engine 0: adapter '/x': rank: got 65, expected at most 64"
    assert command("load", f"bad={tmp_path}") == (1, expected)
    assert engine.sources.wanted() == []
    assert engine.engine.adapters == [["bad"], []]


def test_a_failed_replacement_leaves_the_former_adapter(serve, command):
    engine = serve()
    command("load", "a=owner/first")
    engine.engine.adapter_errors = {"a": "no"}
    assert command("load", "a=owner/second") == (1, "error: engine 0: no")
    assert [each.source for each in engine.sources.wanted()] == ["owner/first"]


def test_what_the_setting_names_is_refused(serve, command, tmp_path):
    serve(setting="a=owner/name")
    reason = "adapter 'a' is set by FLORENCE2_ADAPTERS, which is read when the server starts"
    assert command("unload", "a") == (1, f"error: engine 0: {reason}")
    assert command("load", f"a={tmp_path}") == (1, f"error: engine 0: {reason}")


def test_what_the_folder_names_is_refused(serve, command, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").touch()
    engine = serve(setting=str(tmp_path))
    engine.adapters.update()
    reason = f"adapter 'a' comes from the folder of FLORENCE2_ADAPTERS: remove {tmp_path}/a"
    assert command("unload", "a") == (1, f"error: engine 0: {reason}")
    assert engine.served == ["a"]


def test_unloading_what_is_not_there_is_an_error(serve, command):
    serve()
    assert command("unload", "a") == (1, "error: engine 0: there is no adapter 'a'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("load", "a"), "adapters: got 'a', expected a folder of adapters, or NAME=FOLDER"),
        (("load", "a b=/x"), "adapters: got the name 'a b', expected 1 to 64 letters"),
        (("load", "a=/no\udcffname"), "adapters: got 'a=/no\\udcffname', expected UTF-8"),
        (("unload", "../a"), "name: got '../a', expected 1 to 64 letters"),
        (("list", "--model", "captions"), "--model: got 'captions', expected a model of the server: florence2"),
        (("list", "--tritonserver", "1"), "--tritonserver: got 1, expected the process id of a server"),
    ],
)
def test_a_wrong_argument_is_named(serve, command, arguments, message):
    engine = serve()
    status, printed = command(*arguments)
    assert (status, printed[: len(message) + 7]) == (1, f"error: {message}")
    assert engine.engine.adapters == []


def test_while_the_engine_restarts_nothing_is_loaded(serve, command, tmp_path):
    engine = serve()
    engine.supervisor.state = EngineState.STARTING
    assert command("load", f"a={tmp_path}") == (1, "error: engine 0: the engine is not running (starting)")
    assert engine.sources.wanted() == []


def test_an_engine_that_is_lost_while_it_loads_an_adapter_does_not_get_it_again(serve, command, tmp_path):
    engine = serve()
    engine.engine.kill()
    status, printed = command("load", f"a={tmp_path}")
    assert (status, printed.startswith("error: engine 0: the engine has not loaded the adapter")) == (1, True)
    assert engine.sources.wanted() == []


def test_all_engines_of_a_model_load_it_or_none_does(serve, command, tmp_path):
    first, second = serve("0"), serve("1")
    command("load", f"a={tmp_path}")
    assert first.served == second.served == ["a"]
    second.engine.adapter_errors = {"b": "no memory"}
    assert command("load", f"b={tmp_path}") == (1, "error: engine 1: no memory")
    assert first.served == second.served == ["a"]
    command("unload", "a")
    assert first.served == second.served == []


def test_if_an_engine_cannot_load_another_version_those_before_it_have_the_former_one(serve, command, tmp_path):
    first, second = serve("0"), serve("1")
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
    command("load", f"a={tmp_path / 'v1'}")
    second.engine.adapter_errors = {"a": "no memory"}
    assert command("load", f"a={tmp_path / 'v2'}") == (1, "error: engine 1: no memory")
    second.engine.adapter_errors = {}
    for engine in (first, second):
        assert [each.source for each in engine.sources.wanted()] == [str(tmp_path / "v1")]
    assert first.served == ["a"]


def test_a_source_that_is_too_long_for_a_path_is_an_error_of_the_engine(serve, command):
    engine = serve()
    engine.engine.adapter_errors = {"a": "no such folder"}
    for source in ("/" + "x" * 300, "x/" * 5000):
        assert command("load", f"a={source}") == (1, "error: engine 0: no such folder")


def test_engines_that_differ_are_listed_each(serve, command):
    serve("0", setting="a=owner/name")
    serve("1")
    _, table = command("list")
    assert [line.split()[:2] for line in table.splitlines()] == [
        ["engine", "0:"],
        ["NAME", "RANK"],
        ["a", "8"],
        ["engine", "1:"],
        ["NAME", "RANK"],
    ]


def test_an_adapter_that_is_not_served_is_listed_with_the_reason(serve, command, tmp_path):
    engine = serve(setting=str(tmp_path))
    engine.engine.adapter_errors = {"bad": "adapter_model.safetensors is missing"}
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "adapter_config.json").touch()
    command("list")  # the first of two polls
    assert command("list")[1].splitlines()[1].endswith(f"folder  {tmp_path}/bad (not served: not loaded yet)")
    engine.adapters.update()
    assert command("list")[1].endswith(f"folder  {tmp_path}/bad (not served: adapter_model.safetensors is missing)")


def test_while_an_adapter_is_loaded_the_others_can_be_listed(serve, command, tmp_path):
    engine = serve(setting="a=owner/name")
    engine.engine.may_load.clear()
    change = threading.Thread(target=main, args=(["adapters", "load", f"b={tmp_path}"],))
    change.start()
    wait_for(lambda: len(engine.sources.wanted()) == 2)
    assert [line.split()[:2] for line in command("list")[1].splitlines()[1:]] == [["a", "8"], ["b", "-"]]
    engine.engine.may_load.set()
    change.join(WAIT)
    assert engine.served == ["a", "b"]


def test_many_changes_that_wait_do_not_keep_the_others_from_being_listed(serve, command, tmp_path):
    engine = serve(setting="a=owner/name")
    engine.engine.may_load.clear()
    changes = [
        threading.Thread(target=main, args=(["adapters", "load", f"b{number}={tmp_path}"],)) for number in range(8)
    ]
    for change in changes:
        change.start()
    wait_for(lambda: len(engine.sources.wanted()) == 2)
    assert [line.split()[:2] for line in command("list")[1].splitlines()[1:2]] == [["a", "8"]]
    engine.engine.may_load.set()
    for change in changes:
        change.join(WAIT)
    assert engine.served == ["a", *(f"b{number}" for number in range(8))]


def test_of_several_models_one_is_chosen(serve, command, tmp_path):
    captions, documents = serve(model="captions"), serve(model="documents")
    expected = "error: the server has several models; choose one with --model: captions, documents"
    assert command("list") == (1, expected)
    command("load", f"a={tmp_path}", "--model", "documents")
    assert (captions.served, documents.served) == ([], ["a"])


def test_without_a_server_the_message_says_where_it_was_sought(command, temporary_folder):
    status, printed = command("list")
    assert status == 1
    assert f"no server of user {os.getuid()} runs here" in printed
    assert str(temporary_folder) in printed


def test_a_server_that_is_starting_has_no_model_yet(command):
    create_folder()
    assert command("list") == (1, "error: the server has no model that is ready")


def test_of_several_servers_one_is_chosen(serve, command):
    serve()
    other = folder_of(os.getpid())
    other.mkdir(mode=0o700)
    servers = ", ".join(map(str, sorted((os.getpid(), os.getppid()))))
    message = f"error: several servers run here; choose one with --tritonserver: {servers}"
    assert command("list") == (1, message)
    assert command("list", "--tritonserver", str(os.getppid()))[0] == 0


@pytest.mark.parametrize("kind", ["of a server that has ended", "open to others", "link"])
def test_other_folders_are_no_servers(serve, command, temporary_folder, kind):
    serve()
    trap = folder_of(os.getpid())
    match kind:
        case "of a server that has ended":
            trap.with_name(f"florence2-stubs-{os.getuid()}-{2**22 + 1}-1").mkdir(mode=0o700)
        case "open to others":
            trap.mkdir()
            trap.chmod(0o755)
        case "link":
            trap.symlink_to(temporary_folder)
    assert command("list")[0] == 0


def test_only_this_user_can_reach_the_sockets(serve):
    serve()
    folder = create_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (path,) = folder.glob("*.admin.sock")
    assert path.name == "florence2.0.admin.sock"


def test_a_stub_that_does_not_respond_is_an_error(command):
    (create_folder() / "florence2.0.admin.sock").touch()
    status, printed = command("list")
    assert (status, printed.startswith("error: engine 0: ")) == (1, True)


def test_the_command_imports_no_torch():
    code = "import sys, florence2_server.adapter_commands; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_after_it_is_closed_there_is_no_socket(serve):
    engine = serve()
    engine.close()
    assert not list(create_folder().glob("*.admin.sock"))
