from pathlib import Path

import pytest
import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor, GenerationConfig

ROOT = Path(__file__).resolve().parents[2]
REAL_PROCESSOR = ROOT.parent / "shared" / "florence2-base"
DEMO_CHECKPOINT = ROOT / "model_repository" / "florence2" / "demo_checkpoint"


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory) -> Path:
    """A narrow Florence-2 with random weights, the real tokenizer and the real vocabulary, 64 px wide."""
    if not REAL_PROCESSOR.is_dir():
        pytest.skip("the processor of Florence-2-base is not beside the repository (shared/florence2-base)")
    folder = tmp_path_factory.mktemp("random_checkpoint")
    config = Florence2Config.from_pretrained(REAL_PROCESSOR)
    config.vision_config.depths = [1, 1]
    config.vision_config.patch_size = [7, 3]
    config.vision_config.patch_stride = [4, 4]
    config.vision_config.patch_padding = [3, 1]
    config.vision_config.patch_prenorm = [False, True]
    config.vision_config.embed_dim = [16, 32]
    config.vision_config.num_heads = config.vision_config.num_groups = [2, 4]
    config.vision_config.window_size = 4
    config.vision_config.projection_dim = 32
    text = config.text_config
    text.d_model, text.encoder_layers, text.decoder_layers = 32, 2, 2
    text.encoder_attention_heads = text.decoder_attention_heads = 4
    text.encoder_ffn_dim = text.decoder_ffn_dim = 64
    text.init_std = 0.5  # wide, so that the answers differ from each other and from step to step
    torch.manual_seed(7)
    model = Florence2ForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig.from_pretrained(REAL_PROCESSOR)
    model.save_pretrained(folder)
    processor = Florence2Processor.from_pretrained(REAL_PROCESSOR)
    processor.image_processor.size = {"height": 64, "width": 64}
    processor.image_processor.image_seq_length = 17
    processor.num_image_tokens = 17
    processor.save_pretrained(folder)
    return folder
