"""Bare `generate()` in a process of its own: the baseline of `single`.

`python -m benchmarks.bare_generate CHECKPOINT DTYPE` says `ready`, then reads a JSON object a line ({"image": file,
"prompt", "answer_tokens", "num_beams"}) and writes one ({"text", "seconds", "decode_seconds"}) for each.

`seconds` is everything from the file's bytes to the text. `decode_seconds` is what our server counts as decoding: from
the first call of the decoder to the end of `generate()`, without the projections of the encoder's output to
cross-attention keys and values, which our server computes before its first step and `generate()` inside it.
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

from benchmarks.device import clock, place


class Stopwatch:
    """Notes when the decoder is first called, and how long cross-attention's projections take."""

    def __init__(self, decoder: Any) -> None:
        self.reset()
        decoder.register_forward_pre_hook(self._note_first_call)
        for layer in decoder.layers:
            for projection in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj):
                projection.register_forward_pre_hook(self._begin_projection)
                projection.register_forward_hook(self._end_projection)

    def reset(self) -> None:
        """Before a question."""
        self.first_call: float | None = None
        self.projection_seconds = 0.0
        self._projection_began = 0.0

    def _note_first_call(self, *_: object) -> None:
        if self.first_call is None:
            self.first_call = clock()

    def _begin_projection(self, *_: object) -> None:
        self._projection_began = clock()

    def _end_projection(self, *_: object) -> None:
        self.projection_seconds += clock() - self._projection_began


@torch.inference_mode()
def main() -> None:
    """Answer questions until there are no more."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder, dtype = sys.argv[1:]
    model: Any = place(Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval(), dtype)
    processor: Any = Florence2Processor.from_pretrained(folder)
    stopwatch = Stopwatch(model.model.language_model.decoder)
    _say("ready")
    for line in sys.stdin:
        question = json.loads(line)
        image = Path(question["image"]).read_bytes()
        stopwatch.reset()
        begin = clock()
        picture = PIL.Image.open(io.BytesIO(image))
        inputs = processor(images=picture, text=question["prompt"], return_tensors="pt")
        inputs = inputs.to(model.device, model.dtype)
        length = question["answer_tokens"]
        generated = model.generate(
            **inputs, num_beams=question["num_beams"], min_new_tokens=length, max_new_tokens=length
        )
        generated_at = clock()
        text = processor.batch_decode(generated)[0]
        seconds = clock() - begin
        assert stopwatch.first_call is not None, "generate() calls the decoder"
        decode_seconds = generated_at - stopwatch.first_call - stopwatch.projection_seconds
        _say(json.dumps({"text": text, "seconds": seconds, "decode_seconds": decode_seconds}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
