"""Fine-tunes as public tools write them: their answers are those of peft's own unmerged model.

What cannot be served as an adapter is rejected with a line that says how it is served.
"""

import shutil

import PIL.Image
import pytest
import torch
from florence2 import expand_prompt
from florence2_server.config import AdapterConfig
from florence2_server.engine.adapters.adapter_files import read_adapter
from florence2_server.engine.adapters.adapter_set import AdapterSource
from florence2_server.engine.adapters.missing_config import explain_names
from florence2_server.engine.errors import AdapterError
from florence2_server.errors import ConfigError
from florence2_server.stub.adapter_sources import AdapterSources
from safetensors import safe_open
from torch.nn import Parameter
from transformers import AutoImageProcessor, Trainer, TrainingArguments

from tests.conftest import DEMO_CHECKPOINT
from tests.engine.adapters import original_tree, peft_adapters, public_formats
from tests.engine.adapters.public_formats import FORMATS, OLDER_VERSIONS
from tests.engine.checkpoint.folders import load_folder, read_json
from tests.engine.served import Served
from tests.original_layout import generated, save_original

PROMPT = "<CAPTION>"
TOKENS = 12
ATTENTION = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
HEAD = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "lm_head"]}


@pytest.fixture(scope="module")
def served(tiny):
    with Served(tiny) as served:
        yield served


@pytest.fixture(scope="module")
def answer(base, tiny):
    """`answer(model)`: the tokens that transformers generates."""

    def answer(model):
        options = {"generation_config": base.generation_config, "num_beams": 1, "max_new_tokens": TOKENS}
        return generated(model, tiny, base.tokenizer, tiny / "scene0.png", expand_prompt(PROMPT), **options)

    return answer


@pytest.fixture(scope="module")
def answer_of_the_base(base, answer):
    return answer(base.model)


@pytest.fixture(scope="module")
def logits(base, tiny):
    """`logits(model)`: of a few tokens after an image and a prompt."""
    pixels = AutoImageProcessor.from_pretrained(tiny)(PIL.Image.open(tiny / "scene0.png"), return_tensors="pt")
    prompt = base.tokenizer(expand_prompt(PROMPT), return_tensors="pt").input_ids

    def logits(model):
        with torch.inference_mode():
            features = model.get_image_features(pixels.pixel_values).pooler_output
            embedded = torch.cat([features, model.get_input_embeddings()(prompt)], dim=1)
            return model(inputs_embeds=embedded, decoder_input_ids=torch.tensor([[2, 0, 100, 50300]])).logits

    return logits


def served_answer(served, tiny, folder):
    adapters = served._preparation.adapters
    assert adapters.serve([AdapterSource("tuned", str(folder), str(folder))]) == {}
    image = (tiny / "scene0.png").read_bytes()
    return served.tokens(image, PROMPT, "tuned", num_beams=1, max_new_tokens=TOKENS)


def assert_like_peft(served, tiny, folder, model, answer, other):
    expected = answer(model)
    assert served_answer(served, tiny, folder) == expected
    assert expected != other, "the adapter changes the answer"


@pytest.mark.parametrize("name", FORMATS)
def test_answers_are_those_of_peft(base, tiny, tmp_path, served, answer, answer_of_the_base, logits, name):
    folder = public_formats.write(FORMATS[name], base.model, tiny, tmp_path / "run")
    model = public_formats.load(FORMATS[name], base.model, folder)
    assert_like_peft(served, tiny, folder, model, answer, answer_of_the_base)
    # Tokens may hide small errors. Tables of token embeddings are compared in the tests about those.
    tensors = read_adapter(folder, base, max_rank=64).tensors
    if tensors.input_rows is None:
        expected = logits(model)
        torch.testing.assert_close(logits(peft_adapters.merge(base.model, tensors)), expected, rtol=1e-3, atol=1e-3)


def test_the_original_code_names_layers_as_in_published_adapters(base, tiny, tmp_path):
    folder = public_formats.write(FORMATS["maestro"], base.model, tiny, tmp_path / "run")
    published = tensor_names(tiny / "adapter_notebook")
    table = "base_model.model.language_model.lm_head.base_layer.weight"  # peft's default; some tools turn it off
    assert tensor_names(folder) - published <= {table}
    assert published <= tensor_names(folder)


def tensor_names(folder):
    with safe_open(folder / peft_adapters.WEIGHTS, "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("version", OLDER_VERSIONS)
def test_configs_of_older_versions_of_peft(base, tmp_path, version):
    folder = peft_adapters.save(original_tree.make_adapter(base.model, **ATTENTION), tmp_path / "adapter")
    expected = read_adapter(folder, base, max_rank=64).tensors
    public_formats.make_older(folder, version)
    found = read_adapter(folder, base, max_rank=64).tensors
    assert found.factors.keys() == expected.factors.keys()
    assert all(torch.equal(each.up, expected.factors[name].up) for name, each in found.factors.items())


def test_checkpoints_of_trainer(base, tiny, tmp_path, served, answer, answer_of_the_base):
    model = peft_adapters.make_adapter(base.model, **ATTENTION)
    model.peft_config["default"].base_model_name_or_path = ""  # otherwise peft looks for its config on the hub
    example = {"input_ids": torch.tensor([0, 100, 2]), "labels": torch.tensor([0, 200, 2])}
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=2,
        save_steps=1,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    Trainer(model=model, args=arguments, train_dataset=[example], processing_class=base.tokenizer).train()
    folder = tmp_path / "run" / "checkpoint-2"
    assert {"trainer_state.json", "optimizer.pt", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    trained = model.eval().get_base_model()
    assert_like_peft(served, tiny, folder, trained, answer, answer_of_the_base)
    message = r"adapter_config.json is missing, but there is one in checkpoint-1/, checkpoint-2/: give the path of that"
    with pytest.raises(AdapterError, match=message):
        read_adapter(tmp_path / "run", base, max_rank=64)
    found = AdapterSources(AdapterConfig(str(tmp_path / "run")), poll_seconds=0).wanted()
    assert {each.name for each in found} == {"checkpoint-1", "checkpoint-2"}


def test_an_adapter_with_a_name_of_its_own(base, tiny, tmp_path, served, answer, answer_of_the_base):
    model = original_tree.make_adapter(base.model, **ATTENTION)
    model.add_adapter("tagger", model.peft_config["default"])
    original_tree.fill(model, seed=2)
    peft_adapters.save(model, tmp_path, selected_adapters=["tagger"])
    with pytest.raises(AdapterError, match="is missing, but there is one in tagger/: give the path of that folder"):
        read_adapter(tmp_path, base, max_rank=64)
    loaded = original_tree.load(base.model, tmp_path / "tagger")
    assert_like_peft(served, tiny, tmp_path / "tagger", loaded, answer, answer_of_the_base)


def test_a_run_of_maestro_names_its_checkpoints(base, tmp_path):
    for name in ("best", "latest"):
        folder = tmp_path / "1" / "checkpoints" / name
        peft_adapters.save(original_tree.make_adapter(base.model, **ATTENTION), folder)
    message = "is missing, but there is one in 1/checkpoints/best/, 1/checkpoints/latest/: give the path of that folder"
    with pytest.raises(AdapterError, match=message):
        read_adapter(tmp_path, base, max_rank=64)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["README.md"], "adapter_config.json is missing"),
        (["config.json", "model.safetensors"], "serve a whole checkpoint with FLORENCE2_CHECKPOINT"),
        (
            [f"checkpoint-{step}/adapter_config.json" for step in (1000, 900, 200, 100)],
            "in checkpoint-200/, checkpoint-900/, checkpoint-1000/ and 1 more: give the path of that folder",
        ),
        (["config.json", "lora/adapter_config.json"], "there is one in lora/: give the path of that folder"),
    ],
)
def test_what_is_in_a_repository_instead(names, message):
    assert explain_names(names).endswith(message)


def test_the_own_format_of_ms_swift(base, folder):
    peft_adapters.change(folder, swift_type="LORA")
    message = (
        "swift_type: got 'LORA', expected none: this is ms-swift's own format, which swift export --to_peft_format"
    )
    with pytest.raises(AdapterError, match=message):
        read_adapter(folder, base, max_rank=64)


def test_an_output_layer_of_another_vocabulary(base, tmp_path):
    model = peft_adapters.make_adapter(base.model, vocabulary=51328, **HEAD)
    peft_adapters.save(model, tmp_path, save_embedding_layers=False)
    message = r"shape \(51328, 4\), expected \(51289, 4\): it was trained on a checkpoint with another number of token"
    with pytest.raises(AdapterError, match=message):
        read_adapter(tmp_path, base, max_rank=64)


@pytest.fixture
def fine_tune(tiny, tmp_path):
    """`fine_tune(model)`: the folder of a whole checkpoint, as the original code saves it."""

    def fine_tune(model):
        save_original(model, read_json(tiny / "config.json"), tiny, tmp_path / "fine-tune")
        return tmp_path / "fine-tune"

    return fine_tune


def test_a_whole_checkpoint_is_no_adapter(base, fine_tune):
    folder = fine_tune(base.model)
    message = "but there is a config.json: serve a whole checkpoint with FLORENCE2_CHECKPOINT"
    with pytest.raises(AdapterError, match=message):
        read_adapter(folder, base, max_rank=64)
    with pytest.raises(ConfigError, match="which is a whole checkpoint, expected a folder of adapters: serve a"):
        AdapterConfig(str(folder))
    shutil.copytree(folder, folder / "tags")  # a checkpoint's folder may contain adapters
    (folder / "tags" / "adapter_config.json").write_text("{}")
    assert AdapterConfig(str(folder)).folder == folder


def test_a_merged_adapter_is_a_checkpoint(base, fine_tune, logits):
    model = original_tree.make_adapter(base.model, **ATTENTION)
    expected = logits(model.get_base_model().update())
    merged = load_folder(fine_tune(model.merge_and_unload().update()))
    torch.testing.assert_close(logits(merged.model), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(expected, logits(base.model), atol=1e-2)


@pytest.mark.filterwarnings("ignore:.*(tie_word_embeddings|no longer tied)")
@pytest.mark.parametrize("is_untied", [True, False])
def test_an_adapted_output_layer_has_to_be_untied_before_it_is_merged(base, fine_tune, logits, is_untied):
    model = original_tree.make_adapter(base.model, **HEAD)
    expected = logits(model.get_base_model().update())
    head = model.get_base_model().language_model.lm_head
    if is_untied:
        head.base_layer.weight = Parameter(head.base_layer.weight.detach().clone())
    merged = model.merge_and_unload().update()
    merged.config.tie_word_embeddings = not is_untied  # decides which tensors the file has
    found = logits(load_folder(fine_tune(merged)).model)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3) == is_untied


def test_a_merged_adapter_in_the_native_layout(tmp_path):
    base = load_folder(DEMO_CHECKPOINT)
    model = peft_adapters.make_adapter(base.model, **ATTENTION)
    inputs = {"input_ids": torch.tensor([[0, 100, 2]]), "decoder_input_ids": torch.tensor([[2, 0, 5]])}
    with torch.inference_mode():
        expected = model.get_base_model()(**inputs).logits
    for path in DEMO_CHECKPOINT.glob("*.json"):
        shutil.copy(path, tmp_path)
    model.merge_and_unload().save_pretrained(tmp_path)
    with torch.inference_mode():
        found = load_folder(tmp_path).model(**inputs).logits
        assert not torch.allclose(base.model(**inputs).logits, expected, atol=1e-2)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
