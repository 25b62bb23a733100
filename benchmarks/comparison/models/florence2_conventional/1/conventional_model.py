"""Florence-2 on Triton as public repositories serve it: processor, one `generate()` per batch, text output."""

import io
import os
from typing import Any

import numpy as np
import PIL.Image
import torch
import triton_python_backend_utils as pb_utils
from transformers import Florence2ForConditionalGeneration, Florence2Processor, LogitsProcessor, LogitsProcessorList

CHECKPOINT_VARIABLE = "CONVENTIONAL_CHECKPOINT"
DTYPE_VARIABLE = "CONVENTIONAL_DTYPE"


class AnswerLengths(LogitsProcessor):
    """Ends each batch element's answer at its own length, as a trained model would by itself.

    Args:
        answer_tokens: length of each batch element's answer, its end token included.
        num_beams: beams per batch element.
        eos_token_id: the end token.
    """

    def __init__(self, answer_tokens: torch.Tensor, num_beams: int, eos_token_id: int) -> None:
        self._answer_tokens = answer_tokens.repeat_interleave(num_beams)
        self._eos_token_id = eos_token_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Forbid or force each batch element's end token."""
        generated = input_ids.shape[1] - 1  # the decoder's start token is given, not generated
        scores[:, self._eos_token_id].masked_fill_(generated + 1 < self._answer_tokens, -torch.inf)
        ending = generated + 1 == self._answer_tokens
        scores[ending] = -torch.inf
        scores[ending, self._eos_token_id] = 0.0
        return scores


class TritonPythonModel:
    """The interface of Triton's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 - Triton's interface
        """Load the checkpoint."""
        folder, dtype = os.environ[CHECKPOINT_VARIABLE], getattr(torch, os.environ[DTYPE_VARIABLE])
        if dtype == torch.float32:
            torch.backends.cudnn.allow_tf32 = False  # TF32 would change answers, which are compared
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        self._model = model.eval().to(device)
        self._processor = Florence2Processor.from_pretrained(folder)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Process all requests of a batch together."""
        try:
            texts = self._generate(requests)
        except Exception as error:  # noqa: BLE001 - fails every request of the batch
            failure = pb_utils.TritonError(f"{type(error).__name__}: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", np.array([[text.encode()]], dtype=np.object_))])
            for text in texts
        ]

    @torch.inference_mode()
    def _generate(self, requests: list[Any]) -> list[str]:
        images = [PIL.Image.open(io.BytesIO(_value(request, "IMAGE"))) for request in requests]
        prompts = [_value(request, "PROMPT").decode() for request in requests]
        lengths = [int(_value(request, "ANSWER_TOKENS")) for request in requests]
        answer_tokens = torch.tensor(lengths, device=self._model.device)
        num_beams = int(_value(requests[0], "NUM_BEAMS"))
        # Padding on the right with a mask makes each answer independent of the rest of the batch.
        inputs = self._processor(images=images, text=prompts, return_tensors="pt", padding=True)
        inputs = inputs.to(self._model.device, self._model.dtype)
        config = self._model.generation_config
        generated = self._model.generate(
            **inputs,
            num_beams=num_beams,
            max_new_tokens=max(lengths),
            logits_processor=LogitsProcessorList([AnswerLengths(answer_tokens, num_beams, config.eos_token_id)]),
        )
        sequences = [tokens[: 1 + length].tolist() for tokens, length in zip(generated, lengths, strict=True)]
        texts: list[str] = self._processor.batch_decode(sequences)
        return texts


def _value(request: Any, name: str) -> Any:
    """The only element of an input tensor."""
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy().item()
