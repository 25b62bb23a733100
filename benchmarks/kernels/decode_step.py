"""One row's decode step at base size, beside the time to read the weights that it has to read once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from florence2_engine.cuda_graphs import CudaRecorder
from florence2_engine.decode_graphs import DecodeGraphs, DecodeStep
from florence2_engine.decoder import Decoder, Step, mask
from florence2_engine.kv_cache import KeyValueCache
from transformers import Florence2Config, Florence2ForConditionalGeneration

from benchmarks.device import EXACT_DTYPE, clock, device, place

_ENCODER_POSITIONS = 590  # 577 image tokens and a short prompt
_OWN_POSITIONS = 30
_REPETITIONS = 7


@torch.inference_mode()
def run(configs: Path, rounds: int) -> list[dict[str, Any]]:
    """Measure both in alternation; each figure is the median of a few repetitions, in seconds.

    Args:
        configs: Florence-2-base's configs; the weights are random.
        rounds: how often.
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
    decoder.store_encoder_output(
        torch.randn(1, _ENCODER_POSITIONS, config.d_model, device=device()), 0, [_ENCODER_POSITIONS]
    )
    step = Step(
        token_ids=torch.tensor([100], device=device()),
        positions=torch.tensor([_OWN_POSITIONS - 1], device=device()),
        rows_of_slots=torch.tensor([[0]], device=device()),
        places=torch.tensor([0], device=device()),
        cross_mask=mask(torch.tensor([_ENCODER_POSITIONS], device=device()), _ENCODER_POSITIONS, torch.float32),
        own_length=_OWN_POSITIONS,
    )
    run_step: DecodeStep = decoder.step
    if device().type == "cuda":
        run_step = DecodeGraphs(decoder.step, 1, 1, config.max_position_embeddings, CudaRecorder(device()))
    weights = _read_once(text.decoder, model.lm_head)
    read = _recorded(lambda: [weight.sum() for weight in weights])
    measured = [
        {
            "ours": {"seconds": _seconds(lambda: run_step(step))},
            "reading": {"seconds": _seconds(read)},
        }
        for _ in range(rounds)
    ]
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    return [{"name": "one row", "weight_bytes": size, "rounds": measured}]


def _read_once(decoder: Any, lm_head: torch.nn.Linear) -> list[torch.Tensor]:
    """The matrices of a step: all of the decoder's but the encoder output's keys and values, and of the head."""
    skipped = ("encoder_attn.k_proj", "encoder_attn.v_proj", "embed_tokens", "embed_positions")
    named = [(name, weight) for name, weight in decoder.named_parameters() if weight.dim() == 2]
    return [weight for name, weight in named if not any(part in name for part in skipped)] + [lm_head.weight]


def _recorded(work: Callable[[], Any]) -> Callable[[], Any]:
    """The same on a GPU without the time to start each sum: a CUDA graph."""
    if device().type != "cuda":
        return work
    work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _seconds(work: Callable[[], Any]) -> float:
    work()
    taken = []
    for _ in range(_REPETITIONS):
        begin = clock()
        work()
        taken.append(clock() - begin)
    return sorted(taken)[_REPETITIONS // 2]
