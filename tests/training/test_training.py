import pytest
import torch
from tokenizers import Tokenizer
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from training.demo.export import export_checkpoint
from training.demo.losses import Locations, answer_losses, gaussians
from training.demo.model import IMAGE_TOKENS, answer_logits, build_model, smooth_locations
from training.demo.optimizer import Average, Optimizers, learning_rate
from training.demo.run import Run


@pytest.fixture
def tokenizer(processor):
    return Tokenizer.from_str(processor.tokenizer.backend_tokenizer.to_str())


@pytest.fixture
def model(tokenizer):
    return build_model(tokenizer, seed=0).eval()


def test_the_export_loads_into_the_real_classes_with_the_same_weights(model, tokenizer, tmp_path):
    export_checkpoint(model, tokenizer, tmp_path / "checkpoint")
    loaded = Florence2ForConditionalGeneration.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half().float()), name
    assert loaded.generation_config.no_repeat_ngram_size == 3
    assert loaded.generation_config.forced_bos_token_id == 0
    assert Florence2Processor.from_pretrained(tmp_path / "checkpoint").num_image_tokens == IMAGE_TOKENS


def test_logits_equal_those_of_the_whole_model(model, processor):
    pixels, prompt = torch.randn(2, 3, 128, 128), torch.tensor([[0, 10, 11, 2], [0, 12, 2, 1]])
    labels = torch.tensor([[0, 20, 21, 2], [0, 22, 2, 1]])
    with torch.inference_mode():
        images = model.get_image_features(pixels).pooler_output
        found = answer_logits(model, images, prompt, labels)
        front = torch.full((2, IMAGE_TOKENS), processor.image_token_id)
        ids = torch.cat([front, prompt], dim=1)
        expected = model(input_ids=ids, pixel_values=pixels, attention_mask=(ids != 1).long(), labels=labels).logits
    torch.testing.assert_close(found, expected)


def test_neighboring_bins_start_with_similar_embeddings():
    bins = torch.nn.functional.normalize(smooth_locations(1000, 160), dim=1)
    near, far = (bins[500] @ bins[501]).item(), (bins[500] @ bins[800]).item()
    assert near > 0.95
    assert near > far + 0.2


def test_location_targets_peak_at_the_bin_and_sum_to_one():
    targets = gaussians(torch.tensor([0, 500]), 1000, sigma=3)
    assert targets.argmax(dim=1).tolist() == [0, 500]
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(2))


def test_a_perfect_answer_costs_nothing():
    labels = torch.tensor([[5, 60, 1]])
    logits = torch.full((1, 3, 1100), -1e4)
    logits[0, 0, 5] = 0
    logits[0, 1, 50:1050] = gaussians(torch.tensor([10]), 1000, sigma=2).clamp_min(1e-30).log()
    losses = answer_losses(logits, labels, pad=1, locations=Locations(first=50), sigma=2)
    torch.testing.assert_close(losses, torch.tensor([0.0, 1.0, 0.0, 1.0]), atol=1e-4, rtol=0)


def test_the_learning_rate_warms_up_stays_constant_and_cools_down():
    rates = [learning_rate(step, steps=100, peak=1.0, warmup=10, cooldown=20) for step in (0, 9, 50, 90, 99)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.05])


def test_an_interrupted_run_resumes_with_the_same_weights(model, tokenizer, tmp_path):
    run = Run(tmp_path, model, Optimizers(model), Average(model, 0.9))
    model.get_image_features(torch.randn(1, 3, 128, 128)).pooler_output.sum().backward()
    run.optimizers.step(1e-3)
    run.save(step=7)
    other = build_model(tokenizer, seed=1)
    resumed = Run(tmp_path, other, Optimizers(other), Average(other, 0.9))
    assert resumed.restore() == 7
    for name, weight in model.named_parameters():
        assert torch.equal(dict(other.named_parameters())[name], weight)
