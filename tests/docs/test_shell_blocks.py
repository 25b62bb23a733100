"""Every shell block runs: against a real server, or with stand-ins for what needs Docker, a cluster or a hub."""

import json
import re
import subprocess

import pytest

from tests.conftest import ROOT
from tests.docs.pages import PAGES, Block, blocks, name
from tests.docs.programs import is_same
from tests.docs.stand_ins import STAND_INS, Call, check, run_shell
from tests.server.conftest import CALL_SECONDS

# The other pages' blocks train a checkpoint, measure for hours or need a cluster, and only their syntax is checked;
# tests/package runs the commands of server/README.md in an environment of their own, tests/operations the runbook's.
RUN = ("README.md", "CONTRIBUTING.md", "docs/", "docker/README.md")
PLACEHOLDERS = {"<commit>": "c" * 40, "<commit of the checkpoint>": "c" * 40, "POD": "florence2-0"}
BLOCKS = [block for page in PAGES for block in blocks(page, "sh", "bash")]
SERVED = re.compile(r"curl|health|^(?:.*\| )?florence2 ", re.MULTILINE)
ON_A_SERVER = [block for block in BLOCKS if name(block.page).startswith(RUN) and SERVED.search(block.text)]
WITHOUT = [block for block in BLOCKS if name(block.page).startswith(RUN) and block not in ON_A_SERVER]


def filled(text: str, values: dict[str, str]) -> str:
    """A block with values for what the page leaves to the reader."""
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


def check_calls(block: Block, calls: list[Call]) -> None:
    """Fail unless the block called the stand-ins that it names, with files and values that exist."""
    commands = re.findall(rf"(?:^|&& )(?:\w+=\S+ )?({'|'.join(STAND_INS)}) ", block.text, re.MULTILINE)
    assert [call.command for call in calls] == commands
    for call in calls:
        check(call)


def shown_output(block: Block) -> str | None:
    """The output that the page shows below a block; None if it shows none."""
    lines = block.page.read_text().splitlines()
    after = block.line + block.text.count("\n") + 2  # its last fence, and an empty line
    following = [each for each in blocks(block.page, "text") if each.line == after + 1]
    return following[0].text if following and lines[after - 1] == "```text" else None


def decimals(output: str) -> str:
    """An output whose pixels and percents have a decimal point, so that those of another machine may be close."""
    return re.sub(r"\d+", r"\g<0>.0", output)


def check_response(response: dict) -> None:
    """Fail unless a TaskResponse in JSON has a result for all that was requested."""
    if steps := response.get("steps"):
        assert len(steps) > 1
        assert all("response" in step for step in steps)
    else:
        assert response["detections"]["detections"]


def check_events(output: str) -> None:
    """Fail unless server-sent events have the detections one by one, and then all of them in the response."""
    lines = [line.removeprefix("data: ") for line in output.splitlines() if line]
    events = [json.loads(json.loads(line)["RESPONSE"]) for line in lines]
    response = events[-1]["response"]
    assert response["detections"]["detections"] == [each["detection"] for each in events if "detection" in each]
    assert response["text"] == "".join(each.get("textDelta", "") for each in events)
    check_response(response)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_valid_shell(block):
    subprocess.run(["bash", "-n", "-c", filled(block.text, PLACEHOLDERS)], check=True, timeout=CALL_SECONDS)


@pytest.mark.parametrize("block", WITHOUT, ids=str)
def test_a_block_runs_with_stand_ins(block, tmp_path):
    calls, _ = run_shell(filled(block.text, PLACEHOLDERS), tmp_path)
    check_calls(block, calls)


@pytest.mark.parametrize("block", ON_A_SERVER, ids=str)
def test_a_block_runs_against_a_server(block, server, tmp_path, request):
    web = request.getfixturevalue("door_url") if "localhost:8080" in block.text else ""
    values = {
        "localhost:8080": web.removeprefix("http://"),
        "florence2 web": "florence2 web --help",  # which also checks the names of the options after it
        "localhost:8000": server.http_url,
        "localhost:8003": f"{server.host}:{server.ports.health}",
        "REPLICA:8001": server.grpc_url,
        "REPLICA:8002": f"{server.host}:{server.ports.metrics}",
        "florence2 health": f"florence2 health --url {server.grpc_url} --timeout 30",
    }
    calls, output = run_shell(filled(block.text, PLACEHOLDERS | values), tmp_path, FLORENCE2_URL=server.grpc_url)
    check_calls(block, calls)
    assert output.count("engine running") == block.text.count("florence2 health")
    if "/generate_stream" in block.text:
        check_events(output)
    elif "florence2/generate" in block.text:
        check_response(json.loads(json.loads(output)["RESPONSE"]))
    elif (shown := shown_output(block)) is not None:
        assert is_same(decimals(shown), decimals(output)), output


@pytest.mark.parametrize(
    "script",
    [
        "docker build --file docker/Dockerfile.none .",
        "docker compose --profile tpu up",
        "helm install captions docker/helm/florence2-triton --set image.repositories=here",
        "make no-such-target",
    ],
)
def test_a_stand_in_refuses_what_does_not_exist(script, tmp_path):
    with pytest.raises(AssertionError):  # noqa: PT012 - which of the two raises is the command's to decide
        calls, _ = run_shell(f"cd {ROOT}/docker && {script}" if "compose" in script else script, tmp_path)
        for call in calls:
            check(call)
