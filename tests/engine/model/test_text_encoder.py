import pytest
import torch
from florence2_server.engine.model.text_encoder import TextEncoder
from transformers import Florence2Config, Florence2ForConditionalGeneration

from tests.conftest import DEMO_CHECKPOINT

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["demo checkpoint", "random weights"])
def model(request):
    is_demo = request.param == "demo checkpoint"
    folder = DEMO_CHECKPOINT if is_demo else request.getfixturevalue("random_checkpoint")
    return Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def _embeddings(model, lengths):
    torch.manual_seed(sum(lengths))
    return torch.randn(len(lengths), max(lengths), model.config.text_config.d_model)


def _transformers(model, embeddings, lengths):
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    with torch.inference_mode():
        encoder = model.model.language_model.encoder
        return encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state


def _assert_equal(model, lengths) -> None:
    embeddings = _embeddings(model, lengths)
    expected = _transformers(model, embeddings, lengths)
    encoded = TextEncoder(model)(embeddings, lengths)
    assert encoded.shape == expected.shape
    for ours, theirs, length in zip(encoded, expected, lengths, strict=True):
        torch.testing.assert_close(ours[:length], theirs[:length], atol=TOLERANCE, rtol=0)
        assert not ours[length:].any()


@pytest.mark.parametrize("lengths", [[1], [29], [29, 29, 29], [29, 5, 17], [1, 40], [600, 585, 597, 585], [1024]])
def test_valid_positions_equal_those_of_transformers(model, lengths):
    _assert_equal(model, lengths)


def test_embeddings_beyond_a_sequences_length_are_ignored(model):
    embeddings, lengths = _embeddings(model, [12, 30]), [12, 30]
    encoder = TextEncoder(model)
    expected = encoder(embeddings, lengths)
    embeddings[0, 12:] = torch.nan
    assert torch.equal(encoder(embeddings, lengths), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_close_to_float32_as_in_transformers(model, dtype):
    lengths = [25, 40]
    embeddings = _embeddings(model, lengths)
    exact = TextEncoder(model)(embeddings, lengths)
    model.to(dtype)
    try:
        theirs = _transformers(model, embeddings.to(dtype), lengths)
        ours = TextEncoder(model)(embeddings.to(dtype), lengths)
    finally:
        model.to(torch.float32)
    assert ours.dtype == dtype
    valid = torch.arange(40) < torch.tensor(lengths)[:, None]
    assert (ours - exact)[valid].abs().mean() < 1.5 * (theirs - exact)[valid].abs().mean()


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [[587], [585, 592, 600, 610]])
def test_the_base_size_equals_transformers(real_processor_folder, lengths):
    torch.manual_seed(0)
    model = Florence2ForConditionalGeneration(Florence2Config.from_pretrained(real_processor_folder)).eval()
    _assert_equal(model, lengths)
