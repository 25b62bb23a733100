"""Every task command, answered by a real server and in this process."""

import inspect
import io
import json
import re

import PIL.Image
import pytest
from florence2 import Client, transports
from florence2.cli import connecting
from florence2.cli.printing import rich_table
from florence2.cli.tables import COLUMNS, Section, sections
from florence2.cli.task_commands import COMMANDS
from florence2.results import Text
from rich.console import Console

from tests.cli.commands import run, run_on_a_terminal
from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE

SCENE = str(EXAMPLE_SCENE)
BOX = "--region=53,60,231,240"
# A command line for each task and cascade, and the client's method for it.
LINES = {
    "caption": ["caption"],
    "caption ": ["caption", "--detail=paragraph", "--beams=2"],
    "detect": ["detect"],
    "describe_regions": ["describe"],
    "describe_region": ["describe", BOX],
    "propose_regions": ["propose"],
    "ground": ["ground", "--caption=A red circle and a blue square"],
    "ground ": ["ground", "--phrase=a red circle", "--phrase=a blue square"],
    "detect_open_vocabulary": ["find", "--query=red circle"],
    "detect_open_vocabulary ": ["find", "--query=red circle", "--query=blue square"],
    "segment": ["segment", "--expression=the red circle"],
    "segment_region": ["segment", BOX],
    "classify_region": ["classify", BOX],
    "read_text": ["read"],
    "read_text_regions": ["read", "--regions"],
    "read_region": ["read", "--region=300,50,585,140"],
    "ground_caption": ["caption", "--ground"],
    "analyze_regions": ["analyze", "--region-task=category", "--max-regions=2"],
    "run_tasks": ["run", "--task=OD", "--task=<CAPTION>"],
    "run": ["run", "--task=CAPTION_TO_PHRASE_GROUNDING", "--prompt=a red circle"],
    "generate": ["run", "--prompt=What is this?", "--max-new-tokens=30", "--early-stopping=never", "--no-suppress-bos"],
}
# What differs between two answers to the same request.
VARYING = ("usage", "request_id", "url")
SCORE = re.compile(r'(?<=(?:score|ihood)": )[0-9.e-]+')


def without_varying(value):
    """A line of JSON without ids, urls and usage."""
    if isinstance(value, dict):
        return {name: without_varying(each) for name, each in value.items() if name not in VARYING}
    return [without_varying(each) for each in value] if isinstance(value, list) else value


def assert_same(served: str, local: str) -> None:
    """Two lines of JSON are equal, byte for byte but for what varies.

    Steps of one request share batches as they happen to arrive. Sums in other batches are rounded otherwise, so that
    the last digits of their scores may differ.
    """
    one, other = (without_varying(json.loads(line)) for line in (served, local))
    texts = [json.dumps(one), json.dumps(other)]
    if "steps" not in one:
        assert texts[0] == texts[1]
        return
    scores = [[float(score) for score in SCORE.findall(text)] for text in texts]
    assert SCORE.sub("", texts[0]) == SCORE.sub("", texts[1])
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


@pytest.fixture
def url(server):
    return f"--url={server.grpc_url}"


def test_every_method_and_every_command_has_a_command_line():
    methods = [pair for pair in inspect.getmembers(Client, inspect.isfunction) if not pair[0].startswith("_")]
    about_an_image = {name for name, method in methods if "image" in inspect.signature(method).parameters}
    assert about_an_image - {"stream"} == {name.strip() for name in LINES}
    assert [command.name for command in COMMANDS] == list(dict.fromkeys(line[0] for line in LINES.values()))


def test_every_column_named_in_the_table_exists():
    assert {column for command in COMMANDS for column in command.columns} <= set(COLUMNS)


def test_a_server_and_this_process_print_the_same_json(florence2, url, monkeypatch, capsys):
    in_process = transports.load_transport("in_process")(DEMO_CHECKPOINT)
    capsys.readouterr()  # how it was loaded
    closed = in_process.close
    # One engine for all commands, because each start takes a second.
    monkeypatch.setattr(in_process, "close", lambda: None)
    monkeypatch.setattr(connecting, "load_transport", lambda _: lambda *_, **__: in_process)
    try:
        for line in LINES.values():
            served = florence2(*line, SCENE, "--json", url)
            local = florence2(*line, SCENE, "--json", "--checkpoint", DEMO_CHECKPOINT)
            assert (served.status, local.status) == (0, 0), served.err + local.err
            assert (served.err, local.err) == ("", "")
            assert_same(served.out, local.out)
            assert served.out.count("\n") == 1
            assert json.loads(served.out)["image"] == SCENE
    finally:
        closed()


def test_a_checkpoint_answers_in_a_process_of_its_own():
    done = run("caption", SCENE, "--checkpoint", DEMO_CHECKPOINT, "--device=cpu")
    assert (done.status, done.out, done.err) == (0, "A red circle, a green triangle and a blue square.\n", "")


def test_tabs_separate_the_columns_in_a_pipe(florence2, url):
    rows = [row.split("\t") for row in florence2("detect", SCENE, url).out.splitlines()]
    assert [(label, box.count(" ")) for label, _, box in rows] == [
        ("red circle", 3),
        ("green triangle", 3),
        ("blue square", 3),
    ]
    rows = [row.split("\t") for row in florence2("read", "--regions", SCENE, SCENE, url).out.splitlines()]
    assert [(name, text) for name, text, *_ in rows] == [(SCENE, "CAFE"), (SCENE, "OPEN")] * 2


def test_a_terminal_shows_a_table_that_fits(url):
    for columns in (80, 30):
        shown = run_on_a_terminal("detect", SCENE, url, columns=columns)
        assert shown.status == 0
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.out).splitlines()
        assert lines[0].startswith("┏")
        assert "object" in lines[1]
        assert max(map(len, lines)) <= columns


def test_several_images_have_their_names_on_a_terminal(url):
    shown = run_on_a_terminal("caption", SCENE, "examples/detected.png", url)
    assert shown.status == 0
    assert shown.out.index("examples/scene.png") < shown.out.index("examples/detected.png")
    assert "0/2" in shown.out


def test_standard_input_is_an_image(url):
    done = run("read", "-", "--json", url, data=EXAMPLE_SCENE.read_bytes())
    assert (json.loads(done.out)["image"], json.loads(done.out)["result"]["text"]) == ("-", "CAFE OPEN")


def test_many_images_keep_their_order(florence2, url, tmp_path):
    scene = PIL.Image.open(SCENE)
    names = [tmp_path / f"{width}.png" for width in range(300, 340)]
    for name in names:
        scene.resize((int(name.stem), 200)).save(name)
    lines = florence2("propose", *names, "--json", "--concurrency=8", url).out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [(each["image"], each["image_size"]) for each in found] == [(str(n), [int(n.stem), 200]) for n in names]


def test_one_image_without_an_answer_does_not_stop_the_others(florence2, url, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    missing = tmp_path / "missing.png"
    done = florence2("detect", missing, SCENE, tmp_path / "text.png", "--json", url)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 1
    assert [line.get("error", {}).get("type") for line in lines] == ["FileNotFoundError", None, "InvalidArgumentError"]
    assert done.err.splitlines()[0] == f"florence2: {missing}: No such file or directory"
    assert [line.split(": ")[1] for line in done.err.splitlines()] == [str(missing), str(tmp_path / "text.png")]


def test_a_truncated_answer_is_said_to_be_one(florence2, url):
    done = florence2("detect", SCENE, "--max-new-tokens=8", "--json", url)
    assert (done.status, json.loads(done.out)["finish_reason"]) == (0, "length")
    assert done.err == f"florence2: {SCENE}: the answer was cut after 8 tokens (--max-new-tokens)\n"


def test_a_step_that_fails_is_an_error_of_its_image(florence2, url):
    too_long = "--prompt=" + "a red circle " * 500
    done = florence2("run", "--task=OD", "--task=CAPTION_TO_PHRASE_GROUNDING", too_long, SCENE, "--json", url)
    assert done.status == 1
    assert "error" in json.loads(done.out)["result"]["outcomes"][1]
    assert done.err.count("\n") == 1


def test_items_are_filtered(florence2, url):
    found = florence2("detect", SCENE, "--label=red circle", "--label=blue square", "--max-items=1", "--json", url)
    (item,) = json.loads(found.out)["result"]["items"]
    assert item["label"] in ("red circle", "blue square")
    grounded = json.loads(florence2("caption", "--ground", SCENE, "--label=a blue square", "--json", url).out)
    assert [item["label"] for item in grounded["result"]["detections"]["items"]] == ["a blue square"]


def test_a_text_has_no_items_to_filter(florence2, url):
    done = florence2("read", SCENE, "--min-score=0.5", url)
    message = "florence2: min_score: got 0.5, expected None, because the result is a text, which has no items\n"
    assert (done.status, done.out, done.err) == (2, "", message)


def test_an_answer_is_drawn_to_a_file_or_into_a_folder(florence2, url, tmp_path):
    for line in (["detect"], ["caption"], ["caption", "--ground"], ["segment", BOX], ["analyze"], ["run", "--task=OD"]):
        assert florence2(*line, SCENE, f"--draw={tmp_path}/one.JPG", url).status == 0
        with PIL.Image.open(tmp_path / "one.JPG") as picture:
            assert picture.width == 640
    assert florence2("read", "--regions", SCENE, SCENE, "--draw", tmp_path / "all", url).status == 0
    assert sorted(file.name for file in (tmp_path / "all").iterdir()) == ["scene-2.png", "scene.png"]


def test_an_image_is_never_overwritten(florence2, url, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(EXAMPLE_SCENE.read_bytes())
    for target in (copy, tmp_path):
        done = florence2("detect", copy, "--draw", target, url)
        assert (done.status, done.err) == (
            2,
            f"florence2: --draw: {copy} is one of the images and would be overwritten\n",
        )
    assert copy.read_bytes() == EXAMPLE_SCENE.read_bytes()


def test_the_server_command_says_what_is_served(florence2, url, server):
    row = florence2("server", url).out.rstrip("\n").split("\t")
    assert row[:4] == [server.grpc_url, "florence2", "0", "running"]
    info = json.loads(florence2("server", "--json", url).out)
    assert info["url"] == server.grpc_url
    assert DEMO_CHECKPOINT.samefile(info["engines"][0]["checkpoint"])
    assert str(DEMO_CHECKPOINT.name) in run_on_a_terminal("server", url, columns=200).out


def test_brackets_and_control_characters_of_an_answer_are_shown_as_text():
    """Rich would read [red] as markup, and a terminal would interpret an escape sequence."""
    console = Console(file=io.StringIO(), width=60)
    console.print(rich_table(Section(header=["object"], rows=[["[red]a[/red]"]])))
    assert "[red]a[/red]" in console.file.getvalue()
    (section,) = sections(Text("a\x1b[31m\tb\nc\u202e"))
    assert section.text == "a[31m b c"
