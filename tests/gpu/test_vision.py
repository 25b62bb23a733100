"""On a GPU: the vision tower, recorded as CUDA graphs or not, computes what transformers computes there."""

import pytest
import torch
from florence2_server.engine.model.graphs import CudaRecorder
from florence2_server.engine.model.vision import VisionTower, vision_graphs
from transformers import Florence2Config, Florence2ForConditionalGeneration

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.fixture(scope="module")
def model(real_processor_folder):
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    return Florence2ForConditionalGeneration(Florence2Config.from_pretrained(real_processor_folder)).eval()


@torch.inference_mode()
def test_the_base_size_equals_transformers(model):
    model = model.to("cuda", torch.float32)
    graphs = vision_graphs(VisionTower(model), CudaRecorder(torch.device("cuda")))
    for images in (1, 3, 1):
        pixels = torch.randn(images, 3, 768, 768, device="cuda")
        expected = model.get_image_features(pixels).pooler_output
        assert (graphs(pixels) - expected).abs().max() < 1e-4


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_close_to_float32_as_in_transformers(model, dtype):
    pixels = torch.randn(2, 3, 768, 768, device="cuda")
    exact = model.to("cuda", torch.float32).get_image_features(pixels).pooler_output
    half = model.to("cuda", dtype)
    theirs = (half.get_image_features(pixels.to(dtype)).pooler_output.float() - exact).abs().mean()
    ours = (VisionTower(half)(pixels.to(dtype)).float() - exact).abs().mean()
    assert ours < 1.2 * theirs
