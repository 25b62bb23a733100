"""What an engine can be told, with defaults and limits. Imports no torch: Triton's stub reads it too."""

import json
from dataclasses import asdict, dataclass

from florence2_engine.settings import ConfigError, require_at_least

DEVICES = ("auto", "cpu", "cuda")
MOST_BEAMS = 8  # that any request may have, and the most that a server may be told to allow
DTYPES = ("auto", "float32", "bfloat16", "float16")


def text_bytes(limit: int) -> int:
    """The maximum size as text of an image of at most `limit` bytes: four characters for three bytes, two more to end
    each line of 64, and the head of a `data:` URI.
    """
    return limit * 4 // 3 * 66 // 64 + 1024


@dataclass(frozen=True)
class EngineConfig:
    """Settings of one engine process.

    Attributes:
        checkpoint: a folder, or a hub id such as `microsoft/Florence-2-base-ft`, optionally with `@revision`.
        safetensors_only: 1: reject `.bin` weights; 0: read them, without running code.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes a GPU where there is one.
        dtype: the weights' and activations' type; `auto` is float32 on CPU and bfloat16 on CUDA.
        slots: how many requests decode at once; each has memory for the keys and values of its image and prompt.
        rows: how many beams of all requests decode at once, at least `max_beams`; each has memory for the keys and
            values of its tokens. 0: as many as the slots need with the checkpoint's own number of beams.
        positions: how many tokens that memory holds for each row, which limits answers and, including image tokens,
            prompts. No more than the checkpoint's own positions are used.
        prefill_batch: the most requests whose prompts are encoded between two decode steps. A smaller number keeps
            running answers flowing, a larger one uses a GPU better.
        image_batch: the most images that are encoded between two decode steps; 0: 1 on CPU, where several at once are
            no faster, and as many as `prefill_batch` on CUDA.
        embedding_cache_bytes: memory for the embeddings of images that were asked about before; 0 keeps none.
        max_image_bytes: the largest encoded image that is looked at, in bytes.
        max_image_pixels: the largest image that is decoded, width x height, in pixels.
        max_image_frames: the most frames of an animation or pages of a file; only the first one is ever decoded.
        heic: 1: HEIC images are read if the pi-heif package is installed; 0: they are rejected.
        max_new_tokens: the longest answer that a request may ask for, in tokens; 0: as many as `positions`.
        max_beams: the most beams of a request.
        threads: CPU threads of one torch operation; 0 leaves the choice to torch.
    """

    checkpoint: str = ""
    safetensors_only: int = 0
    device: str = "auto"
    dtype: str = "auto"
    slots: int = 16
    rows: int = 0
    positions: int = 1024
    prefill_batch: int = 4
    image_batch: int = 0
    embedding_cache_bytes: int = 256 * 1024 * 1024
    max_image_bytes: int = 40 * 1024 * 1024
    max_image_pixels: int = 50_000_000
    max_image_frames: int = 1000
    heic: int = 1
    max_new_tokens: int = 0
    max_beams: int = MOST_BEAMS
    threads: int = 0

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise ConfigError("checkpoint: got '', expected a folder or a hub id")
        if self.device not in DEVICES and not self.device.startswith("cuda:"):
            raise ConfigError(f"device: got {self.device!r}, expected one of {', '.join(DEVICES)} or cuda:N")
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype: got {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        if self.safetensors_only not in (0, 1):
            raise ConfigError(f"safetensors_only: got {self.safetensors_only}, expected 0 or 1")
        require_at_least(1, self, "slots", "positions", "prefill_batch", "max_beams")
        require_at_least(1, self, "max_image_bytes", "max_image_pixels", "max_image_frames")
        require_at_least(0, self, "rows", "image_batch", "embedding_cache_bytes", "max_new_tokens", "threads")
        if self.heic not in (0, 1):
            raise ConfigError(f"heic: got {self.heic}, expected 0 or 1")
        if self.max_beams > MOST_BEAMS:
            raise ConfigError(f"max_beams: got {self.max_beams}, expected at most {MOST_BEAMS}")
        if 0 < self.rows < self.max_beams:
            raise ConfigError(f"rows: got {self.rows}, expected 0 or at least {self.max_beams}, the beams of a request")

    def rows_for(self, num_beams: int) -> int:
        """The number of rows for a checkpoint whose default number of beams is `num_beams`."""
        return self.rows or max(self.slots * num_beams, self.max_beams)

    def to_json(self) -> str:
        """The settings as JSON, for the engine's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "EngineConfig":
        """What `to_json` wrote."""
        return cls(**json.loads(text))
