"""The settings of the engine and the stub, with defaults and limits. Imports no torch: both processes read them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from florence2.options import MOST_BEAMS
from florence2.plans import PlanLimits

from florence2_server.adapter_settings import ADAPTER_FILE, check_encoding, is_folder, parse_pairs
from florence2_server.settings import ConfigError, require_at_least

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")
ENCODE_AHEAD = ("auto", "0", "1")


def text_bytes(limit: int) -> int:
    """The maximum size, as base64 text, of an image of at most `limit` bytes.

    Three bytes are four characters; each line of 64 may end with two more, and a `data:` URI has a header.
    """
    return limit * 4 // 3 * 66 // 64 + 1024


@dataclass(frozen=True)
class EngineConfig:
    """Settings of one engine process.

    Attributes:
        checkpoint: a folder, or a hub id such as `microsoft/Florence-2-base-ft`, optionally with `@revision`.
        safetensors_only: 1: reject `.bin` weights; 0: read them, without executing code.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU if there is one, else the CPU.
        dtype: type of weights and activations; `auto`: float32 on CPU and bfloat16 on CUDA.
        slots: number of requests that decode at once; each slot has memory for the cross-attention keys and values of
            an image and a prompt.
        rows: number of beams that decode at once, over all requests; at least `max_beams`. Each row has memory for the
            self-attention keys and values of its tokens. 0: enough for all slots with the checkpoint's default
            number of beams.
        positions: number of tokens that this memory holds for each row and each slot. It limits the length of answers
            and, together with the image tokens, of prompts. The checkpoint's own number of positions is an upper limit.
        prefill_batch: maximum number of requests whose prompts are encoded between two decode steps. A smaller number
            shortens the pauses of running requests; a larger one makes better use of a GPU.
        image_batch: maximum number of images that are encoded between two decode steps. 0: 1 on CPU, where batches are
            no faster, and `prefill_batch` on CUDA.
        ahead: number of generations that the engine is handed beyond its slots, so that their images are decoded, and
            perhaps encoded, while all slots are taken.
        encode_ahead: 1: encode these images between decode steps; 0: only decode them; `auto`: 1 on CUDA, and 0 on CPU,
            because decode steps need its cores.
        embedding_cache_bytes: memory for the embeddings of recent images, in bytes; 0 disables the cache.
        max_image_bytes: maximum size of an encoded image, in bytes.
        max_image_pixels: maximum size of a decoded image, width x height, in pixels.
        max_image_frames: maximum number of frames of an animation or pages of a file; only the first is decoded.
        heic: 1: read HEIC images if the pi-heif package is installed; 0: reject them.
        max_new_tokens: maximum of a request's `max_new_tokens`; 0: the number of `positions`.
        max_beams: maximum of a request's `num_beams`.
        max_adapters: maximum number of adapters (LoRA) that are served at once.
        max_adapter_rank: maximum rank of an adapter.
        threads: CPU threads of a torch operation; 0: torch's default.
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
    ahead: int = 4
    encode_ahead: str = "auto"
    embedding_cache_bytes: int = 256 * 1024 * 1024
    max_image_bytes: int = 40 * 1024 * 1024
    max_image_pixels: int = 50_000_000
    max_image_frames: int = 1000
    heic: int = 1
    max_new_tokens: int = 0
    max_beams: int = MOST_BEAMS
    max_adapters: int = 32
    max_adapter_rank: int = 64
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
        require_at_least(1, self, "max_adapters", "max_adapter_rank")
        require_at_least(1, self, "max_image_bytes", "max_image_pixels", "max_image_frames")
        if self.encode_ahead not in ENCODE_AHEAD:
            raise ConfigError(f"encode_ahead: got {self.encode_ahead!r}, expected one of {', '.join(ENCODE_AHEAD)}")
        require_at_least(0, self, "rows", "image_batch", "ahead", "embedding_cache_bytes", "max_new_tokens", "threads")
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
        """Serialize the settings, for the engine's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "EngineConfig":
        """Parse what `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class AdapterConfig:
    """Which adapters (LoRA) are served.

    Attributes:
        adapters: empty for none; a folder, in which each subfolder with an `adapter_config.json` is an adapter of the
            subfolder's name, and which is watched while serving; or `NAME=SOURCE` pairs, separated by commas, in which
            a source is a folder or a hub id such as `owner/name`, optionally with `@revision`.
    """

    adapters: str = ""

    def __post_init__(self) -> None:
        check_encoding(self.adapters)
        if self.adapters and self.folder is None:
            parse_pairs(self.adapters)
        if self.folder is not None and (self.folder / ADAPTER_FILE).is_file():
            pair = f"{self.folder.resolve().name}={self.adapters}"
            raise ConfigError(
                f"adapters: got {self.adapters!r}, which is an adapter itself, expected the folder around it, or {pair}"
            )
        if self.folder is not None and _is_checkpoint(self.folder):
            raise ConfigError(
                f"adapters: got {self.adapters!r}, which is a whole checkpoint, expected a folder of adapters: serve a "
                "checkpoint with FLORENCE2_CHECKPOINT"
            )

    @property
    def folder(self) -> Path | None:
        """The folder of adapters; None if no folder is configured."""
        return Path(self.adapters) if self.adapters and is_folder(self.adapters) else None

    @property
    def pairs(self) -> Mapping[str, str]:
        """The folder or the hub id of each adapter, by its name; empty if the setting is a folder."""
        return parse_pairs(self.adapters) if self.adapters and self.folder is None else {}


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder has a checkpoint's config, and no adapters in its subfolders."""
    return (folder / "config.json").is_file() and not any(folder.glob(f"*/{ADAPTER_FILE}"))


@dataclass(frozen=True)
class RequestLimits:
    """Sizes over which the stub rejects a request before it parses it.

    Attributes:
        max_image_bytes: the engine's setting; the stub checks it too, to avoid copying an image that the engine would
            reject.
        max_request_bytes: maximum size of a TaskRequest, protobuf or JSON, in bytes. It bounds prompts before they are
            tokenized; the number of their tokens has a limit of its own.
    """

    max_image_bytes: int = EngineConfig.max_image_bytes
    max_request_bytes: int = 64 * 1024

    def __post_init__(self) -> None:
        require_at_least(1, self, *(field.name for field in fields(self)))


@dataclass(frozen=True)
class AdmissionConfig:
    """The limits of the admission queue and of plans.

    Attributes:
        queue_requests: maximum number of waiting requests; further ones are refused with UNAVAILABLE.
        queue_bytes: memory for the images of all requests that are not answered yet, in bytes. Each image counts twice:
            Triton keeps the caller's message, and the stub a copy. If no other request is unanswered, any is admitted.
        ahead: number of generations that the engine is handed beyond its slots, so that their images are decoded while
            the decode batch is full. Requests of higher priority cannot overtake these.
        max_tasks: maximum number of requests in a task list.
        max_steps: maximum number of steps of a request: the generations of a cascade or a task list.
    """

    queue_requests: int = 256
    queue_bytes: int = 1024 * 1024 * 1024
    ahead: int = EngineConfig.ahead
    max_tasks: int = PlanLimits.tasks
    max_steps: int = PlanLimits.steps

    def __post_init__(self) -> None:
        require_at_least(1, self, "queue_requests", "queue_bytes", "max_tasks", "max_steps")
        require_at_least(0, self, "ahead")

    @property
    def plan_limits(self) -> PlanLimits:
        """The limits of plans."""
        return PlanLimits(self.max_tasks, self.max_steps)


@dataclass(frozen=True)
class ObjectiveConfig:
    """The latency objectives: until when answers of a class of tasks are expected, in seconds after their receipt.

    Attributes:
        objective_short_seconds: for tasks whose answer is a phrase or two: captions, and most tasks about a region.
        objective_long_seconds: for all other tasks, and for free prompts.
        objective_plan_seconds: for cascades and task lists.
    """

    objective_short_seconds: float = 2.5
    objective_long_seconds: float = 10.0
    objective_plan_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ConfigError(f"{field.name}: got {getattr(self, field.name)}, expected a positive number")


@dataclass(frozen=True)
class LogConfig:
    """Settings of the log.

    Attributes:
        log_requests: 1: log a line of JSON for each request, without its image and its text; 0: log none.
    """

    log_requests: int = 0

    def __post_init__(self) -> None:
        if self.log_requests not in (0, 1):
            raise ConfigError(f"log_requests: got {self.log_requests}, expected 0 or 1")


@dataclass(frozen=True)
class SupervisionConfig:
    """When the engine is restarted, and how often.

    Attributes:
        start_seconds: maximum time for loading the checkpoint, including its download, and then for loading its
            adapters; an engine that takes longer is killed.
        heartbeat_seconds: maximum time without a heartbeat; then the engine is restarted.
        stuck_seconds: maximum time of a prefill or a decode step; then the engine is restarted.
        max_restarts: after this many consecutive starts without a completed request, requests are rejected at once,
            until an engine is ready again.
        max_backoff_seconds: maximum of the exponential backoff between two starts.
    """

    start_seconds: int = 1800
    heartbeat_seconds: int = 10
    stuck_seconds: int = 120
    max_restarts: int = 5
    max_backoff_seconds: int = 30

    def __post_init__(self) -> None:
        require_at_least(1, self, *(field.name for field in fields(self)))
