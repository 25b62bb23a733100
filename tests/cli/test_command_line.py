"""What `florence2` does without a server: help, completion, errors in one line, exit statuses."""

import os
import signal
import socket
import subprocess
import time

import pytest
from florence2.cli.task_commands import COMMANDS

from tests.cli.commands import COMMAND, SECONDS, run, running, shell
from tests.conftest import EXAMPLE_SCENE

SCENE = str(EXAMPLE_SCENE)
REFUSED = "--url=127.0.0.1:1"


def test_the_help_fits_one_screen(florence2):
    done = florence2("--help")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in NAMES] == NAMES
    assert "..." not in done.out.partition("Commands:")[2], "a help text was cut"


NAMES = [*(command.name for command in COMMANDS), "server", "health"]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help(florence2, name):
    done = florence2(name, "--help")
    assert (done.status, done.err) == (0, "")
    assert "--url" in done.out


def test_no_command_at_all_shows_the_help(florence2):
    assert (florence2().status, florence2().out) == (2, florence2("--help").out)


def test_the_version_is_the_packages(florence2):
    assert florence2("--version").out == "florence2-triton 0.1.0\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["nosuch"], "No such command 'nosuch'. (see florence2 --help)"),
        (["detect"], "Missing argument 'IMAGE'. (see florence2 detect --help)"),
        (["detect", "--nosuch", "a.png"], "No such option: --nosuch (see florence2 detect --help)"),
        (["detect", "--max-items=0", "a.png"], "Invalid value for '--max-items': Input should be greater than or"),
        (["detect", "--beams=9", "a.png"], "generation.num_beams: got 9, expected 1 to 8"),
        (["detect", "--timeout=-1", "a.png"], "timeout: got -1.0, expected a finite number of seconds above 0"),
        (["detect", "--url=", "a.png"], "--url: got '', expected HOST:PORT"),
        (["detect", "--url=http://a", "a.png"], "url: got 'http://a', expected \"host:port\" of Triton's gRPC port"),
        (["detect", "--url=a", "--url=", "a.png"], "--url: got '', expected HOST:PORT"),
        (["detect", "--header=a b=secret", "a.png"], "headers: got a name that is none, expected letters"),
        (
            ["detect", "--header=a=secret\n", "a.png"],
            "headers['a']: got characters that are not printable ASCII, which",
        ),
        (["ground", "--phrase=\udce9", "a.png"], "phrase_grounding.phrases[0]: got '\\udce9', expected text"),
        (["bulk", SCENE, "--task=caption", "-o", "/dev/full"], "/dev/full is no regular file"),
        (["detect", "--header=secret", "a.png"], "--header: expected NAME=VALUE"),
        (["detect", "--tls-root-certificates=none.pem", "a.png"], "none.pem: No such file or directory"),
        (["detect", "--tls-private-key=a.pem", "a.png"], "tls: got one of private_key and certificate_chain, expected"),
        (["detect", "--device=cpu", "a.png"], "--device: only with --checkpoint; a server has devices of its own"),
        (["detect", "--checkpoint=none", "a.png"], "checkpoint 'none': no such folder, and not a hub id"),
        (["detect", "--checkpoint=none", "--url=a", "a.png"], "--url: not with --checkpoint, which needs no server"),
        (["detect", "--checkpoint=a", "--adapter=b", "a.png"], "--adapter: got 'b', expected NAME=FOLDER with --check"),
        (["detect", "--draw=a.abc", "a.png"], "--draw: got a.abc, expected the suffix of an image format, e.g. .png"),
        (["detect", "--draw=a.png", "b.png", "c.png"], "--draw: got a.png, expected a folder, because there are 2 ima"),
        (["detect", "--draw=/proc/a", "b.png", "c.png"], "--draw: /proc/a: No such file or directory"),
        (["detect", "-", "-"], "IMAGE: got - twice, but standard input can be read only once"),
        (["read", "--regions", "--region=1,2,3,4", "a.png"], "--region: not with --regions, which is about the whole"),
        (["classify", "--region=1,2,3", "a.png"], "--region: got '1,2,3', expected x_min,y_min,x_max,y_max in pixels"),
        (["classify", "--region=5,5,1,1", "a.png"], "region_to_category.region.x_max: got 1.0, expected more than x_m"),
        (["ground", "a.png"], "--caption: missing; give --caption or --phrase"),
        (["segment", "--expression=a", "--region=1,2,3,4", "a.png"], "--region: not with --expression; give one of th"),
        (["run", "a.png"], "--prompt: missing; `run` needs --prompt, --task, or both"),
        (["run", "--task=XX", "a.png"], "--task: got 'XX', expected one of CAPTION, "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(florence2, line, message):
    done = florence2(*line)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"florence2: {message}")


def test_a_checkpoint_needs_the_servers_package(florence2, monkeypatch):
    monkeypatch.setattr("florence2.transports.entry_points.entry_points", lambda **_: ())
    done = florence2("detect", SCENE, "--checkpoint=owner/name")
    assert (done.status, done.err) == (2, "florence2: --checkpoint: run pip install florence2-triton-server\n")


@pytest.mark.parametrize("url", ["127.0.0.1:1", "::::", "no such host", "dns:///", "localhost:99999"])
def test_an_unreachable_server_is_one_line_and_not_waited_for(url):
    started = time.monotonic()
    done = run("caption", SCENE, f"--url={url}")
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1), done.err
    assert done.err.startswith("florence2: no server can be reached: ")
    assert time.monotonic() - started < SECONDS / 2, "less than the request's timeout"


@pytest.mark.parametrize("line", [["health", "--url="], ["health", "--url=::::"], ["server", "--url=:"]])
def test_grpc_never_logs(line):
    done = run(*line)
    assert done.status in (1, 3)
    assert (done.out + done.err).count("\n") == 1


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("florence2 de", {"detect", "describe"}),
        ("florence2 hea", {"health"}),
        ("florence2 caption --detail ", {"brief", "detailed", "paragraph"}),
        ("florence2 run --task OCR", {"OCR", "OCR_WITH_REGION"}),
        ("florence2 detect --ch", {"--checkpoint"}),
        ("florence2 health --re", {"--ready"}),
    ],
)
def test_the_shell_completes(words, completions):
    count = len(words.split(" ")) - 1
    done = run(_FLORENCE2_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(count))
    assert (done.status, set(done.out.split()), done.err) == (0, completions, "")


def test_bash_completes_by_the_script_that_is_shown(tmp_path):
    command = tmp_path / "florence2"
    command.write_text(f"#!{COMMAND[0]}\n{COMMAND[2]}\n")
    command.chmod(0o755)
    script = f"""
        unset -f florence2
        PATH={tmp_path}:$PATH
        eval "$(florence2 --show-completion bash)"
        COMP_WORDS=(florence2 cap) COMP_CWORD=1
        $(complete -p florence2 | grep -o '_florence2[^ ]*') florence2
        echo "${{COMPREPLY[@]}}"
    """
    done = shell(script)
    assert (done.out, done.err) == ("caption\n", "")


def test_completion_is_installed(tmp_path):
    done = run("--install-completion", "bash", HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (done.status, done.err) == (0, "")
    assert "_florence2_completion" in (tmp_path / ".bash_completions" / "florence2.sh").read_text()


@pytest.mark.parametrize("line", ["--help", "detect --help", "health --help", "bulk --help"])
def test_a_reader_that_stops_early_is_no_error(line):
    done = shell(f"florence2 {line} | head -1; exit ${{PIPESTATUS[0]}}")
    assert done.status in (0, 141)
    assert (done.out.count("\n"), done.err) == (1, "")


def test_a_full_disk_is_one_line():
    done = shell("florence2 --help > /dev/full")
    assert (done.status, done.err) == (1, "florence2: standard output: No space left on device\n")


def test_bulk_is_the_same_command_as_a_module():
    done = shell(f"{COMMAND[0]} -m florence2.bulk --help | head -1; exit ${{PIPESTATUS[0]}}")
    assert (done.status in (0, 141), done.err) == (True, "")
    assert done.out == "Usage: florence2 bulk [OPTIONS] {SOURCE...}...\n"


def test_without_standard_error_a_command_has_its_status_and_output():
    done = shell(f"florence2 caption none.png {REFUSED} 2>&-")
    assert (done.status, done.out) == (3, "")


def test_names_do_not_change_the_terminal(florence2):
    done = florence2("detect", "--draw=\x1b[31m.abc\u202e", "a.png")
    assert "--draw: got \\x1b[31m.abc" in done.err


def test_ctrl_c_ends_a_pipe_that_nobody_writes_to(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with running("caption", tmp_path / "x.png", REFUSED) as process:
        # Opened for writing as soon as the command reads.
        writer = os.open(tmp_path / "x.png", os.O_WRONLY)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
        os.close(writer)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_ctrl_c_ends_the_command_quietly():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"--url=127.0.0.1:{silent.getsockname()[1]}"
        with running("caption", SCENE, url) as process:
            silent.settimeout(SECONDS)
            connection, _ = silent.accept()  # gRPC connects once the command waits for its server
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS)
            connection.close()
    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize(
    ("line", "status", "out", "err"),
    [
        (["--help"], 0, "\n  health  check", ""),
        ([], 2, "\n  health  check", ""),
        (["detect", "a.png"], 2, "", "florence2: `florence2 detect` needs typer and rich, run: pip install "),
    ],
)
def test_without_the_extra_there_is_health_and_what_to_install(florence2, monkeypatch, line, status, out, err):
    """tests/package looks at an environment that has no typer; here it is only not found."""
    monkeypatch.setattr("florence2.cli.find_spec", lambda _: None)
    done = florence2(*line)
    assert (done.status, out in done.out, done.err.startswith(err)) == (status, True, True)
    assert 'pip install "florence2-triton[cli]"' in done.out + done.err
    assert florence2("health", "--url=http://127.0.0.1:1").out.startswith("unhealthy: ")


def test_health_imports_neither_typer_nor_pillow():
    code = (
        "import sys; from florence2.cli import main\n"
        "try: main(['health', sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "print(sorted({'PIL', 'rich', 'typer', 'grpc'} & set(sys.modules)))"
    )
    for url, imported in (("--url=http://127.0.0.1:1", []), ("--url=127.0.0.1:1", ["grpc"])):
        done = subprocess.run([*COMMAND[:-1], code, url], capture_output=True, text=True, timeout=SECONDS, check=True)
        assert done.stdout.splitlines()[-1] == str(imported)
