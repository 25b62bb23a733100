"""A checkpoint in the original layout, served by its name on a hub, gives the answers of the original code."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import florence2
from florence2.v1 import GenerationOptions, TaskRequest

from tests.hub import COMMIT, Hub
from tests.server.conftest import server_starter

NAME = "owner/florence-2-tiny"


def test_answers_are_those_of_the_original_code(original_layout_folder, tmp_path_factory):
    tiny = original_layout_folder / "tiny"
    expected = json.loads((tiny / "expected.json").read_text())
    home = tmp_path_factory.mktemp("hub_cache")
    with Hub({NAME: tiny}, branches={"v1": COMMIT}) as hub, server_starter(tmp_path_factory) as start:
        server = start(FLORENCE2_CHECKPOINT=f"{NAME}@v1", FLORENCE2_SLOTS="4", **hub.environment(home))
        with florence2.Client(server.grpc_url) as client, ThreadPoolExecutor(8) as callers:

            def answer(each: dict) -> florence2.Answer:
                generation = GenerationOptions(num_beams=each["num_beams"], max_new_tokens=50)
                return client.run(tiny / each["image"], TaskRequest(prompt=each["prompt"], generation=generation))

            answers = list(callers.map(answer, expected))
    for each, found in zip(expected, answers, strict=True):
        assert found.text == each["text"], each["prompt"]
        assert found.usage.generated_tokens == len(each["token_ids"]) - 1
    assert len(expected) > 30
    assert "model.safetensors" in hub.downloaded
    assert not any(file.startswith("adapter") for file in hub.downloaded)
    log = server.log_file.read_text()
    assert f"loaded {NAME}@v1 at revision {COMMIT}: original layout, float16 weights, served in float32 on cpu" in log
    shutil.rmtree(home)
