"""Expected answers: `generate()`, one request at a time.

Random weights produce near ties, which another batch shape's rounding may resolve differently. A benchmark that failed
on those would measure nothing, so requests are limited to those whose answer is numerically decided:

- greedy search: at every step the chosen token leads the next best by more than `NARROWEST_LEAD`, several times the
  rounding differences between batch shapes;
- beam search, where leads of beams over beams matter too: the answer is the same under relative pixel noise of 3e-6,
  three times the effect of rounding, and under the same noise with the opposite sign. Whichever way a near tie leans,
  one of the two tips it.

An image with an undecided answer is replaced by the next one with the same tasks and lengths, so that the distribution
of lengths is kept (long answers meet more near ties). The number of replacements is reported. Both servers receive
exactly the same requests.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from benchmarks.harness.fingerprint import fingerprint
from benchmarks.harness.requests import Request, RequestGroup

# Logits in a batch differ from those alone by 1e-5 on average and 6e-5 at most; pixel noise of 1e-6 does the same.
NARROWEST_LEAD = 1e-4
PIXEL_NOISE = 3e-6
_ATTEMPTS = 20
# Answers are cached; the name of the cache depends on the code that determines them.
_CODE = [Path(__file__).with_name(name) for name in ("reference.py", "requests.py", "lengths.py")]


class UndecidedError(Exception):
    """No image was found whose answers are numerically decided."""


@dataclass(frozen=True)
class Pool:
    """Requests with their expected answers.

    Attributes:
        requests: in the order of their groups.
        expected: by request name, the answer's text with special tokens.
        replaced: number of images replaced because rounding could have changed an answer.
    """

    requests: list[Request]
    expected: dict[str, str]
    replaced: int


def make_pool(
    groups: Sequence[RequestGroup],
    num_beams: int,
    checkpoint: Path,
    cache: Path,
    on_progress: Callable[[int, int], None],
) -> Pool:
    """Draw requests whose answers are decided, and generate these answers.

    Args:
        groups: of the requests.
        num_beams: of the search.
        checkpoint: a folder; its name identifies its contents.
        cache: folder that keeps answers between runs.
        on_progress: called with the number of groups done and the total.

    Raises:
        UndecidedError: none of a group's images has decided answers.
    """
    # Answers are cached by group, so that a longer run reuses those of a shorter one.
    file = cache / f"answers-{checkpoint.name}-{num_beams}-{fingerprint(*_CODE)}.json"
    cached: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    reference: Reference | None = None
    pool = Pool([], {}, 0)
    for done, group in enumerate(groups):
        on_progress(done, len(groups))
        key = fingerprint(group)
        if key not in cached:
            reference = reference or Reference(checkpoint)
            cached[key] = reference.decided_answers(group, num_beams)
            file.write_text(json.dumps(cached))
        requests = group.requests(cached[key]["attempt"])
        answers = dict(zip((request.name for request in requests), cached[key]["answers"], strict=True))
        pool = Pool(pool.requests + requests, pool.expected | answers, pool.replaced + int(cached[key]["attempt"]))
    on_progress(len(groups), len(groups))
    return pool


class Reference:
    """Hugging Face's `generate()`, one request at a time."""

    def __init__(self, checkpoint: Path) -> None:
        self._model: Any = Florence2ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._processor: Any = Florence2Processor.from_pretrained(checkpoint)

    def decided_answers(self, group: RequestGroup, num_beams: int) -> dict[str, Any]:
        """The first attempt at a group whose answers are all decided, with these answers.

        Raises:
            UndecidedError: no attempt has only decided answers.
        """
        for attempt in range(_ATTEMPTS):
            answers: list[str] = []
            for request in group.requests(attempt):
                answer = self._decided_answer(request, num_beams)
                if answer is None:
                    break
                answers.append(answer)
            else:
                return {"attempt": attempt, "answers": answers}
        raise UndecidedError(f"{group.name}: rounding could change an answer in each of {_ATTEMPTS} images")

    @torch.inference_mode()
    def _decided_answer(self, request: Request, num_beams: int) -> str | None:
        """The answer's text; None if rounding could change it."""
        image = PIL.Image.open(io.BytesIO(request.image))
        inputs = self._processor(images=image, text=request.prompt, return_tensors="pt")
        options = {
            "num_beams": num_beams,
            "min_new_tokens": request.answer_tokens,
            "max_new_tokens": request.answer_tokens,
        }
        if num_beams == 1:
            generated = self._model.generate(**inputs, **options, output_scores=True, return_dict_in_generate=True)
            tokens = generated.sequences[0].tolist()
            is_decided = _narrowest_lead(generated.scores) > NARROWEST_LEAD
        else:
            tokens = self._model.generate(**inputs, **options)[0].tolist()
            is_decided = self._survives_noise(inputs, options, tokens)
        has_padding = self._processor.tokenizer.pad_token_id in tokens  # indistinguishable from a shorter answer
        return str(self._processor.batch_decode([tokens])[0]) if is_decided and not has_padding else None

    def _survives_noise(self, inputs: Any, options: dict[str, int], tokens: list[int]) -> bool:
        pixels = inputs["pixel_values"]
        noise = pixels * PIXEL_NOISE * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
        both = {
            "input_ids": inputs["input_ids"].repeat(2, 1),
            "attention_mask": inputs["attention_mask"].repeat(2, 1),
            "pixel_values": torch.cat([pixels + noise, pixels - noise]),
        }
        return all(sequence == tokens for sequence in self._model.generate(**both, **options).tolist())


def _narrowest_lead(scores: Sequence[torch.Tensor]) -> float:
    """The smallest lead of a chosen token's score over the next best one's; infinite if every token is forced."""
    best_two = torch.stack([step[0].topk(2).values for step in scores])
    return float((best_two[:, 0] - best_two[:, 1]).min())
