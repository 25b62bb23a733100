"""A model of all layers that adapters can target, small enough for tests of milliseconds."""

import pytest
import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration

VOCABULARY = 100


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(5)
    config = Florence2Config(
        vision_config={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, 32],
            "num_heads": [2, 4],
            "num_groups": [2, 4],
            "window_size": 5,
            "projection_dim": 32,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
        },
    )
    return Florence2ForConditionalGeneration(config).eval()
