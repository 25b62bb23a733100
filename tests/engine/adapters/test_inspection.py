"""`florence2-server check CHECKPOINT --adapter FOLDER`, as an operator runs it."""

import pytest
from florence2_server.checkpoint_commands import main
from florence2_server.engine.checkpoint.report import size
from safetensors.torch import load_file

from tests.engine.adapters import peft_adapters
from tests.original_layout import fine_tuned_tokenizer

BASE = 51289


@pytest.fixture
def check(tiny, capsys):
    """The exit status, and for the checkpoint and each adapter the lines of its report."""

    def run(*folders, checkpoint=tiny):
        adapters = [argument for folder in folders for argument in ("--adapter", str(folder))]
        status = main(["check", str(checkpoint), *adapters])
        return status, [report.splitlines() for report in capsys.readouterr().out.split("\n\n")]

    return run


def facts(lines: list[str]) -> dict[str, str]:
    """Texts by label."""
    column = lines[0].index(lines[0].split(maxsplit=1)[1])
    return {line[:column].strip(): line[column:] for line in lines[:-1]}


def saved(base, folder, vocabulary=0, **options):
    return peft_adapters.save(peft_adapters.make_adapter(base.model, vocabulary=vocabulary, **options), folder)


def test_what_each_adapter_changes_follows_the_report_of_the_checkpoint(check, tiny):
    folders = [tiny / "adapter_notebook", tiny / "adapter_small"]
    status, (checkpoint, notebook, small) = check(*folders)
    assert status == 0
    assert checkpoint[-1] == notebook[-1] == small[-1] == "can be served"
    assert facts(notebook) == {
        "adapter": str(folders[0]),
        "rank": "8",
        "layers": "22 text, 10 vision, 1 head",
        "image embeddings": "its own: each image is encoded anew for it",
        "memory": size(sum(4 * each.numel() for each in load_file(folders[0] / peft_adapters.WEIGHTS).values())),
        "changed tokens": "none",
        "added tokens": "none",
        "warnings": "none",
    }
    found = facts(small)
    assert (found["rank"], found["layers"]) == ("4", "12 text, 0 vision, 0 head")
    assert found["image embeddings"] == "the checkpoint's"


def test_tokens(check, base, tiny, tmp_path):
    options = {"r": 2, "target_modules": ["q_proj"], "trainable_token_indices": [5, 7, BASE, BASE + 1]}
    folder = saved(base, tmp_path, vocabulary=BASE + 2, **options)
    _, (_, report) = check(folder)
    assert facts(report)["changed tokens"] == "2 of the embeddings, 2 of the output layer"
    assert facts(report)["added tokens"] == "2, and no tokenizer that has them"
    fine_tuned_tokenizer(tiny, ("partnumber", "serialnumber")).save_pretrained(folder)
    status, (_, report) = check(folder)
    assert (status, facts(report)["added tokens"]) == (0, "partnumber, serialnumber")


def test_ranks_that_differ_and_a_table_that_only_the_output_layer_has(check, base, tmp_path):
    options = {"target_modules": ["q_proj", "image_projection"], "trainable_token_indices": {"lm_head": [9]}}
    folder = saved(base, tmp_path, r=2, rank_pattern={"image_projection": 7}, **options)
    found = facts(check(folder)[1][1])
    assert found["rank"] == "2 to 7"
    assert found["layers"] == "6 text, 1 vision, 0 head"
    assert found["changed tokens"] == "1 of the output layer"


def test_one_that_cannot_be_served_ends_with_the_reason_and_the_others_are_reported(check, folder, tiny):
    peft_adapters.change(folder, use_dora=True)
    status, (checkpoint, rejected, small) = check(folder, tiny / "adapter_small")
    assert status == 1
    reason = "adapter_config.json: use_dora: got True, expected none: DoRA is not supported"
    assert rejected == [f"adapter  {folder}", f"cannot be served: {reason}"]
    assert checkpoint[-1] == small[-1] == "can be served"


def test_damaged_weights_are_a_line_too(check, folder):
    (folder / peft_adapters.WEIGHTS).write_bytes(b"")
    status, (_, report) = check(folder)
    assert status == 1
    assert report[-1].startswith("cannot be served: adapter ")
    assert len(report) == 2


def test_the_settings_of_the_environment_are_used(check, folder, monkeypatch):
    monkeypatch.setenv("FLORENCE2_MAX_ADAPTER_RANK", "3")
    status, (_, report) = check(folder)
    assert status == 1
    assert report[-1].endswith("q_proj: got rank 4, expected at most 3")


def test_without_a_checkpoint_no_adapter_is_read(check, folder):
    status, reports = check(folder, checkpoint="no-such-folder")
    assert (status, len(reports)) == (1, 1)
