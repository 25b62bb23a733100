import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import torch
from florence2_server.checkpoint_commands import main as florence2_server
from florence2_server.config import EngineConfig
from florence2_server.engine.checkpoint.conversion import unlimited
from florence2_server.engine.checkpoint.loading import load
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE, ROOT
from tests.training.finetune.conftest import STEPS
from training.finetune.__main__ import main
from training.finetune.encoding import ExampleEncoder
from training.finetune.errors import SettingError
from training.finetune.examples import Example
from training.finetune.output import Result
from training.finetune.resuming import last_checkpoint
from training.finetune.run import finetune, report, warn_of_answers
from training.finetune.trainer import training_arguments

LAST = f"training/checkpoint-{STEPS}"


def history(folder):
    """The figures that Trainer has logged."""
    return json.loads((folder / LAST / "trainer_state.json").read_text())["log_history"]


def losses(folder):
    return [entry["eval_loss"] for entry in history(folder) if "eval_loss" in entry]


def command(settings, *more):
    values = {name: value for name, value in asdict(settings).items() if value not in ("", ())}
    arguments = []
    for name, value in values.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{'' if value else 'no-'}{option}")
        else:
            arguments += [f"--{option}", *map(str, value if isinstance(value, tuple) else [value])]
    return [sys.executable, "-m", "training.finetune", *arguments, *more]


def answers(model, folder, prompts):
    """What transformers and peft generate, with nothing of ours."""
    import PIL.Image

    processor = Florence2Processor.from_pretrained(folder)
    picture = PIL.Image.open(EXAMPLE_SCENE).convert("RGB")
    inputs = [processor(text=prompt, images=picture, return_tensors="pt") for prompt in prompts]
    return [model.generate(**each, max_new_tokens=12)[0].tolist() for each in inputs]


def test_the_loss_goes_down(adapter_run):
    values = losses(adapter_run / "adapter")
    assert len(values) == 4, "at the steps 0, 4, 8 and 10"
    assert values[-1] < 0.8 * values[0]


def test_the_output_is_an_adapter_with_its_card_and_plot(adapter_run):
    folder = adapter_run / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(DEMO_CHECKPOINT)
    card = (folder / "README.md").read_text()
    assert "trained on 48 examples, evaluated on 12 others" in card
    assert f"| steps | {STEPS} |" in card
    assert "epochs" not in card, "steps take precedence"
    assert re.search(r"\| exact \| [\d.]+ \| [\d.]+ \|", card)
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (folder / "training").iterdir()} >= {f"checkpoint-{STEPS}"}


def test_the_best_checkpoint_is_what_is_left(adapter_run):
    folder = adapter_run / "adapter"
    step = json.loads((folder / "finetune.json").read_text())["result"]["step"]
    evaluations = [entry for entry in history(folder) if entry.get("step") and "eval_exact" in entry]
    # The lower loss decides between two with the same score.
    assert step == max(evaluations, key=lambda entry: (entry["eval_exact"], -entry["eval_loss"]))["step"]
    best = load_file(folder / f"training/checkpoint-{step}" / "adapter_model.safetensors")
    found = load_file(folder / "adapter_model.safetensors")
    assert found.keys() == best.keys()
    assert all(torch.equal(found[name], best[name]) for name in best)


def test_peft_loads_the_adapter_and_gives_the_answers_of_the_merged_checkpoint(adapter_run):
    prompts = ["<CAPTION>", "<OD>", "What color is the left-most shape?"]
    base = Florence2ForConditionalGeneration.from_pretrained(DEMO_CHECKPOINT, dtype=torch.float32)
    plain = answers(base, DEMO_CHECKPOINT, prompts)
    adapted = answers(PeftModel.from_pretrained(base, adapter_run / "adapter").eval(), DEMO_CHECKPOINT, prompts)
    merged = Florence2ForConditionalGeneration.from_pretrained(adapter_run / "merged", dtype=torch.float32)
    assert answers(merged, adapter_run / "merged", prompts) == adapted != plain


def test_a_killed_run_resumes_and_ends_with_the_same_weights(adapter_run, settings, tmp_path):
    arguments = command(settings(tmp_path, log_every=2))
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while last_checkpoint(tmp_path / "training") is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stopped_at = last_checkpoint(tmp_path / "training")
    assert process.returncode == -signal.SIGKILL
    assert stopped_at is not None
    done = subprocess.run([*arguments, "--resume"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"resuming from {stopped_at}" in done.stderr
    expected = load_file(adapter_run / "adapter" / LAST / "adapter_model.safetensors")
    found = load_file(tmp_path / LAST / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert losses(tmp_path) == losses(adapter_run / "adapter")


def test_a_run_that_was_killed_while_it_saved_its_result_takes_no_further_step(adapter_run, settings, tmp_path):
    folder = shutil.copytree(adapter_run / "adapter", tmp_path / "adapter")
    expected = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").unlink()
    finetune(settings(folder, resume=True))
    assert (folder / "adapter_model.safetensors").read_bytes() == expected
    assert losses(folder) == losses(adapter_run / "adapter")
    checkpoints = [{path.name for path in each.glob("training/*")} for each in (folder, adapter_run / "adapter")]
    assert checkpoints[0] == checkpoints[1]


def test_a_checkpoint_that_was_being_written_is_not_resumed_from(tmp_path):
    for step, state in ((4, "{}"), (8, '{"unfini'), (12, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"


def test_an_earlier_run_is_not_overwritten(adapter_run, settings):
    with pytest.raises(SettingError, match=r"output: got '.*', expected a folder without an earlier run, or --resume"):
        finetune(settings(adapter_run / "adapter"))


def test_a_run_is_resumed_with_its_own_settings(adapter_run, settings):
    with pytest.raises(SettingError, match="rank: got 4, expected 8, as in the run to resume"):
        finetune(settings(adapter_run / "adapter", rank=4, resume=True))


def test_what_would_end_a_run_after_minutes_is_found_at_once(settings, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"output: got '.*/file', expected a folder that can be written to \("):
        finetune(settings(tmp_path / "file"))
    with pytest.raises(SettingError, match="precision: got 'float16', expected float32 or bfloat16 on a CPU"):
        finetune(settings(tmp_path / "run", precision="float16"))


def test_a_cpu_computes_in_bfloat16_and_has_no_more_workers_than_cores(settings):
    chosen = settings("-", precision="bfloat16", device="auto", workers=1000)
    arguments = training_arguments(chosen, "exact", is_resumed=False, decodes=True)
    assert arguments.bf16
    assert arguments.dataloader_num_workers == len(os.sched_getaffinity(0))
    assert training_arguments(chosen, "exact", is_resumed=False, decodes=False).dataloader_num_workers == 0


def test_answers_that_cannot_be_generated_are_a_warning(demo, settings, caplog):
    answers = ["red circle red circle red circle", "blue"]
    encoded = [[ExampleEncoder(demo).encode(Example(EXAMPLE_SCENE, "<CAPTION>", (text,), "")) for text in answers]] * 2
    longest = max(len(example.label_ids) for example in encoded[1])
    warn_of_answers(encoded, demo, settings("-", longest_answer=longest), "exact")
    assert [message.split(",")[0] for message in caplog.messages] == ["1 of 2 answers repeat 3 tokens"]
    caplog.clear()
    for measure in ("exact", "loss"):
        warn_of_answers(encoded, demo, settings("-", longest_answer=longest - 1), measure)
    found = [message for message in caplog.messages if "repeat" not in message]
    assert len(found) == 1
    assert found[0].startswith(f"validation answers have up to {longest} tokens, and evaluations cut off what is")


@pytest.mark.parametrize(
    ("measure", "before", "after", "is_better"),
    [("exact", 0.5, 0.6, True), ("exact", 0.5, 0.5, False), ("loss", 2.0, 1.0, True), ("loss", 1.0, 2.0, False)],
)
def test_a_run_that_has_not_improved_the_base_says_so(caplog, measure, before, after, is_better):
    report(Result(measure, before, after, step=7, training_examples=2, validation_examples=1))
    assert any("no evaluation gave a better result" in message for message in caplog.messages) is not is_better


def test_all_weights_of_a_checkpoint_in_the_original_layout(original_layout_folder, settings, data, tmp_path, capsys):
    folder = tmp_path / "full"
    result = finetune(
        settings(
            folder,
            checkpoint=str(original_layout_folder / "tiny"),
            validation=str(data / "test.jsonl"),
            method="full",
            freeze_vision=False,
            steps=2,
            batch=4,
            evaluate_every=2,
            measure="loss",
        )
    )
    assert result.after < result.before
    assert florence2_server(["check", str(folder)]) == 0
    report = capsys.readouterr().out
    assert "can be served" in report.splitlines()[-1]
    assert re.search(r"layout +native", report)
    base = load(unlimited(EngineConfig(checkpoint=str(original_layout_folder / "tiny"), device="cpu", dtype="float32")))
    trained = load(unlimited(EngineConfig(checkpoint=str(folder), device="cpu", dtype="float32")))
    assert trained.generation_config.num_beams == base.generation_config.num_beams == 3
    changed = trained.model.state_dict()
    for name in ("model.vision_tower.convs.0.conv.weight", "model.language_model.decoder.layers.0.fc1.weight"):
        assert not torch.equal(changed[name], base.model.state_dict()[name]), name


def test_an_error_is_one_line(settings, write_jsonl, capsys):
    file = write_jsonl({"image": "a.png", "prompt": "<OD>"})
    arguments = command(settings("-", data=str(file)))[3:]
    assert main(arguments) == 1
    assert capsys.readouterr().err == "error: train.jsonl:1: answer: got None, expected a text (answer or suffix)\n"
    assert main(["--data", "x"]) == 2
    assert capsys.readouterr().err.startswith("error: checkpoint: got '', expected a value")


def test_an_interrupted_run_says_how_to_continue(settings, monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.finetune.run.finetune", interrupted)
    assert main(command(settings("-"))[3:]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "interrupted; the same command with --resume continues\n"


@pytest.mark.slow
def test_several_processes_train_together(settings, tmp_path):
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    arguments = command(settings(tmp_path, steps=4, evaluate_every=2))[1:]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("after") == 1, "only one process logs the result"
    assert (tmp_path / "adapter_model.safetensors").is_file()
