"""A decode step of one row at base size, beside the time to read its weights once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from florence2_server.engine.model.decode_batch import DecodeBatch, attention_mask, decode_graphs
from florence2_server.engine.model.decoder import Decoder
from florence2_server.engine.model.graphs import CudaRecorder
from florence2_server.engine.model.kv_cache import KeyValueCache
from transformers import Florence2Config, Florence2ForConditionalGeneration

from benchmarks.harness.device import EXACT_DTYPE, clock, device, place

_ENCODER_POSITIONS = 590  # 577 image tokens and a short prompt
_SELF_ATTENTION_POSITIONS = 30
_REPETITIONS = 7


@torch.inference_mode()
def run(configs: Path, rounds: int) -> list[dict[str, Any]]:
    """Measure both in alternation; each figure is the median of a few repetitions, in seconds.

    Args:
        configs: folder with Florence-2-base's configs; the weights are random.
        rounds: number of measurements of each.
    """
    torch.manual_seed(0)
    model = place(Florence2ForConditionalGeneration(Florence2Config.from_pretrained(configs)).eval(), EXACT_DTYPE)
    text = model.model.language_model
    config = text.config
    cache = KeyValueCache(
        layers=config.decoder_layers,
        slots=1,
        rows=1,
        heads=config.decoder_attention_heads,
        positions=config.max_position_embeddings,
        head_width=config.d_model // config.decoder_attention_heads,
        device=device(),
        dtype=torch.float32,
    )
    decoder = Decoder(text.decoder, model.lm_head, cache)
    decoder.store_cross_attention(
        torch.randn(1, _ENCODER_POSITIONS, config.d_model, device=device()), 0, [_ENCODER_POSITIONS]
    )
    batch = _batch()
    decode_step: Callable[[DecodeBatch], torch.Tensor] = decoder.decode_step
    if device().type == "cuda":
        decode_step = decode_graphs(decoder.decode_step, 1, 1, config.max_position_embeddings, CudaRecorder(device()))
    weights = _read_once(text.decoder, model.lm_head)
    read = _recorded(lambda: [weight.sum() for weight in weights])
    measured = [
        {
            "ours": {"seconds": _seconds(lambda: decode_step(batch))},
            "reading": {"seconds": _seconds(read)},
        }
        for _ in range(rounds)
    ]
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    return [{"name": "one row", "weight_bytes": size, "rounds": measured}]


def _batch() -> DecodeBatch:
    """One row in the middle of its completion."""
    return DecodeBatch(
        token_ids=torch.tensor([100], device=device()),
        positions=torch.tensor([_SELF_ATTENTION_POSITIONS - 1], device=device()),
        rows_of_slots=torch.tensor([[0]], device=device()),
        beam_indices=torch.tensor([0], device=device()),
        cross_attention_mask=attention_mask(
            torch.tensor([_ENCODER_POSITIONS], device=device()), _ENCODER_POSITIONS, torch.float32
        ),
        self_attention_length=_SELF_ATTENTION_POSITIONS,
    )


def _read_once(decoder: Any, lm_head: torch.nn.Linear) -> list[torch.Tensor]:
    """The matrices of a step: the head's, and the decoder's except those of cross-attention's keys and values."""
    skipped = ("encoder_attn.k_proj", "encoder_attn.v_proj", "embed_tokens", "embed_positions")
    named = [(name, weight) for name, weight in decoder.named_parameters() if weight.dim() == 2]
    return [weight for name, weight in named if not any(part in name for part in skipped)] + [lm_head.weight]


def _recorded(function: Callable[[], Any]) -> Callable[[], Any]:
    """On a GPU, the function as a CUDA graph, which has no launch overhead."""
    if device().type != "cuda":
        return function
    function()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def _seconds(function: Callable[[], Any]) -> float:
    function()
    taken = []
    for _ in range(_REPETITIONS):
        begin = clock()
        function()
        taken.append(clock() - begin)
    return sorted(taken)[_REPETITIONS // 2]
