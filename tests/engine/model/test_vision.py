import pytest
import torch
from florence2_server.engine.model.channel_attention import channel_scores, channel_scores_in_pieces
from florence2_server.engine.model.linear import Linear
from florence2_server.engine.model.vision import VisionTower
from transformers import Florence2Config, Florence2ForConditionalGeneration

from tests.conftest import DEMO_CHECKPOINT

TOLERANCE = 1e-4

CONFIGS = {
    "as published, narrower": {},
    "no bias in query, key and value": {"qkv_bias": False},
    "norm before every other convolution": {"patch_prenorm": [True, False, True]},
    "windows wider than the image": {"window_size": 40},
    "wide feed-forward, another activation": {"mlp_ratio": 2.5, "activation_function": "gelu_new"},
    "more groups than heads": {"num_heads": [1, 2, 3], "num_groups": [4, 8, 2]},
    "depths": {"depths": [2, 0, 3]},
    "stochastic depth": {"drop_path_rate": 0.3},
}


def _random_model(**vision) -> Florence2ForConditionalGeneration:
    torch.manual_seed(3)
    config = Florence2Config(
        vision_config={
            "depths": [1, 2, 1],
            "patch_size": [7, 3, 3],
            "patch_stride": [4, 2, 2],
            "patch_padding": [3, 1, 1],
            "patch_prenorm": [False, True, True],
            "embed_dim": [16, 32, 48],
            "num_heads": [2, 4, 3],
            "num_groups": [2, 4, 3],
            "window_size": 5,
            "projection_dim": 32,
            **vision,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": 100,
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
        },
    )
    model = Florence2ForConditionalGeneration(config).eval()
    for parameter in model.model.vision_tower.parameters():  # biases and norms too, which are initialized to 0 and 1
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def _assert_equal(model, pixels) -> None:
    with torch.inference_mode():
        expected = model.get_image_features(pixels).pooler_output
    torch.testing.assert_close(VisionTower(model)(pixels), expected, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def demo_model():
    return Florence2ForConditionalGeneration.from_pretrained(DEMO_CHECKPOINT, dtype=torch.float32).eval()


@pytest.mark.parametrize(("images", "height", "width"), [(1, 128, 128), (3, 128, 128), (1, 200, 96), (2, 77, 131)])
def test_the_demo_checkpoints_image_features_equal_those_of_transformers(demo_model, images, height, width):
    torch.manual_seed(images)
    _assert_equal(demo_model, torch.randn(images, 3, height, width))


@pytest.mark.parametrize("vision", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize(("images", "height", "width"), [(1, 80, 80), (2, 80, 80), (1, 33, 150), (3, 17, 16)])
def test_every_configuration_equals_transformers(vision, images, height, width):
    _assert_equal(_random_model(**vision), torch.randn(images, 3, height, width))


def test_chunks_smaller_than_an_image_give_the_same_features(monkeypatch):
    monkeypatch.setattr("florence2_server.engine.model.vision._CHUNK_BYTES", 5000)
    _assert_equal(_random_model(), torch.randn(2, 3, 90, 110))


def test_features_are_the_same_without_onednn(monkeypatch):
    monkeypatch.setattr("florence2_server.engine.model.linear._HAS_ONEDNN", False)
    _assert_equal(_random_model(), torch.randn(2, 3, 80, 80))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_close_to_float32_as_in_transformers(dtype):
    model, pixels = _random_model(), torch.randn(1, 3, 80, 80)
    exact = VisionTower(model)(pixels)
    model.to(dtype)
    with torch.inference_mode():
        theirs = model.get_image_features(pixels).pooler_output
    ours = VisionTower(model)(pixels)
    assert ours.dtype == dtype
    assert (ours - exact).abs().mean() < 1.5 * (theirs - exact).abs().mean()


def test_neither_the_pixels_nor_the_weights_are_changed(demo_model):
    pixels = torch.randn(1, 3, 128, 128)
    pixels_before = pixels.clone()
    weights_before = {name: value.clone() for name, value in demo_model.state_dict().items()}
    VisionTower(demo_model)(pixels)
    assert torch.equal(pixels, pixels_before)
    assert all(torch.equal(value, weights_before[name]) for name, value in demo_model.state_dict().items())


@pytest.mark.slow
def test_the_base_size_equals_transformers(real_processor_folder):
    torch.manual_seed(0)
    model = Florence2ForConditionalGeneration(Florence2Config.from_pretrained(real_processor_folder)).eval()
    _assert_equal(model, torch.randn(1, 3, 768, 768))


@pytest.mark.parametrize("positions", [36, 577, 1024, 2304])
def test_channel_scores_in_pieces_equal_those_of_each_image(positions):
    normed = torch.randn(3, positions, 24)
    query, key = (Linear(torch.randn(24, 24), torch.randn(24)) for _ in range(2))
    expected = torch.stack([channel_scores(query, key, image, 4) for image in normed])
    found = channel_scores_in_pieces(query, key, normed, 4)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-2)
