"""Bare `generate()` in a process of its own: the baseline of `single`.

`python -m benchmarks.comparison.bare_generate CHECKPOINT DTYPE` prints `ready`, then reads one JSON object per line
({"image": file, "prompt", "answer_tokens", "num_beams"}) and answers each with another ({"text", "seconds",
"decode_seconds"}).

`seconds` spans everything from the file's bytes to the text. `decode_seconds` is what our server counts as decoding:
from the first call of the decoder to the end of `generate()`, without projecting the encoder's output to
cross-attention keys and values, which our server does before its first decode step and `generate()` within it.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor
from transformers.utils import logging

from benchmarks.harness.device import clock, place


class Stopwatch:
    """Records the decoder's first call, and the duration of cross-attention's projections."""

    def __init__(self, decoder: Any) -> None:
        self.reset()
        decoder.register_forward_pre_hook(self._record_first_call)
        for layer in decoder.layers:
            for projection in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj):
                projection.register_forward_pre_hook(self._begin_projection)
                projection.register_forward_hook(self._end_projection)

    def reset(self) -> None:
        """Prepare for the next request."""
        self.first_call: float | None = None
        self.projection_seconds = 0.0
        self._projection_began = 0.0

    def _record_first_call(self, *_: object) -> None:
        if self.first_call is None:
            self.first_call = clock()

    def _begin_projection(self, *_: object) -> None:
        self._projection_began = clock()

    def _end_projection(self, *_: object) -> None:
        self.projection_seconds += clock() - self._projection_began


@torch.inference_mode()
def main() -> None:
    """Process requests until standard input ends."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder, dtype = sys.argv[1:]
    model: Any = place(Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval(), dtype)
    processor: Any = Florence2Processor.from_pretrained(folder)
    stopwatch = Stopwatch(model.model.language_model.decoder)
    _write_line("ready")
    for line in sys.stdin:
        request = json.loads(line)
        image = Path(request["image"]).read_bytes()
        stopwatch.reset()
        begin = clock()
        inputs = processor(images=PIL.Image.open(io.BytesIO(image)), text=request["prompt"], return_tensors="pt")
        inputs = inputs.to(model.device, model.dtype)
        length = request["answer_tokens"]
        generated = model.generate(
            **inputs, num_beams=request["num_beams"], min_new_tokens=length, max_new_tokens=length
        )
        generated_at = clock()
        text = processor.batch_decode(generated)[0]
        seconds = clock() - begin
        assert stopwatch.first_call is not None, "generate() calls the decoder"
        decode_seconds = generated_at - stopwatch.first_call - stopwatch.projection_seconds
        _write_line(json.dumps({"text": text, "seconds": seconds, "decode_seconds": decode_seconds}))


def _write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
