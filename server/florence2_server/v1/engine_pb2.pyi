from florence2.v1 import geometry_pb2 as _geometry_pb2
from florence2.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PromptPart(_message.Message):
    __slots__ = ("text", "markup", "region", "field")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MARKUP_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    text: str
    markup: str
    region: _geometry_pb2.BoundingBox
    field: str
    def __init__(self, text: _Optional[str] = ..., markup: _Optional[str] = ..., region: _Optional[_Union[_geometry_pb2.BoundingBox, _Mapping]] = ..., field: _Optional[str] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("image", "prompt", "generation", "image_file", "image_file_bytes", "adapter", "plan")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FILE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    prompt: _containers.RepeatedCompositeFieldContainer[PromptPart]
    generation: _inference_pb2.GenerationOptions
    image_file: str
    image_file_bytes: int
    adapter: str
    plan: str
    def __init__(self, image: _Optional[bytes] = ..., prompt: _Optional[_Iterable[_Union[PromptPart, _Mapping]]] = ..., generation: _Optional[_Union[_inference_pb2.GenerationOptions, _Mapping]] = ..., image_file: _Optional[str] = ..., image_file_bytes: _Optional[int] = ..., adapter: _Optional[str] = ..., plan: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("text", "image_size", "finish_reason", "usage", "token_log_probabilities", "token_ends", "first_token_milliseconds", "token_masses")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ENDS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_MASSES_FIELD_NUMBER: _ClassVar[int]
    text: str
    image_size: _geometry_pb2.ImageSize
    finish_reason: _inference_pb2.FinishReason
    usage: _inference_pb2.Usage
    token_log_probabilities: _containers.RepeatedScalarFieldContainer[float]
    token_ends: _containers.RepeatedScalarFieldContainer[int]
    first_token_milliseconds: float
    token_masses: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, text: _Optional[str] = ..., image_size: _Optional[_Union[_geometry_pb2.ImageSize, _Mapping]] = ..., finish_reason: _Optional[_Union[_inference_pb2.FinishReason, str]] = ..., usage: _Optional[_Union[_inference_pb2.Usage, _Mapping]] = ..., token_log_probabilities: _Optional[_Iterable[float]] = ..., token_ends: _Optional[_Iterable[int]] = ..., first_token_milliseconds: _Optional[float] = ..., token_masses: _Optional[_Iterable[float]] = ...) -> None: ...

class GenerateStreamResponse(_message.Message):
    __slots__ = ("tokens", "response")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    tokens: GeneratedTokens
    response: GenerateResponse
    def __init__(self, tokens: _Optional[_Union[GeneratedTokens, _Mapping]] = ..., response: _Optional[_Union[GenerateResponse, _Mapping]] = ...) -> None: ...

class GeneratedTokens(_message.Message):
    __slots__ = ("text", "token_log_probabilities", "token_ends", "image_size", "token_masses")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ENDS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_MASSES_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_log_probabilities: _containers.RepeatedScalarFieldContainer[float]
    token_ends: _containers.RepeatedScalarFieldContainer[int]
    image_size: _geometry_pb2.ImageSize
    token_masses: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, text: _Optional[str] = ..., token_log_probabilities: _Optional[_Iterable[float]] = ..., token_ends: _Optional[_Iterable[int]] = ..., image_size: _Optional[_Union[_geometry_pb2.ImageSize, _Mapping]] = ..., token_masses: _Optional[_Iterable[float]] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("plans",)
    PLANS_FIELD_NUMBER: _ClassVar[int]
    plans: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, plans: _Optional[_Iterable[str]] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("seconds_without_progress", "waiting_requests", "running_requests", "decode_steps", "decode_rows", "image_embedding_cache_bytes", "host_memory_bytes", "device_memory_bytes", "waiting_adapters", "running_adapters")
    SECONDS_WITHOUT_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    WAITING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DECODE_STEPS_FIELD_NUMBER: _ClassVar[int]
    DECODE_ROWS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_EMBEDDING_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOST_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAITING_ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    seconds_without_progress: float
    waiting_requests: int
    running_requests: int
    decode_steps: int
    decode_rows: int
    image_embedding_cache_bytes: int
    host_memory_bytes: int
    device_memory_bytes: int
    waiting_adapters: _containers.RepeatedScalarFieldContainer[str]
    running_adapters: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, seconds_without_progress: _Optional[float] = ..., waiting_requests: _Optional[int] = ..., running_requests: _Optional[int] = ..., decode_steps: _Optional[int] = ..., decode_rows: _Optional[int] = ..., image_embedding_cache_bytes: _Optional[int] = ..., host_memory_bytes: _Optional[int] = ..., device_memory_bytes: _Optional[int] = ..., waiting_adapters: _Optional[_Iterable[str]] = ..., running_adapters: _Optional[_Iterable[str]] = ...) -> None: ...

class SetAdaptersRequest(_message.Message):
    __slots__ = ("adapters",)
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedCompositeFieldContainer[AdapterSource]
    def __init__(self, adapters: _Optional[_Iterable[_Union[AdapterSource, _Mapping]]] = ...) -> None: ...

class AdapterSource(_message.Message):
    __slots__ = ("name", "folder", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    folder: str
    version: str
    def __init__(self, name: _Optional[str] = ..., folder: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class SetAdaptersResponse(_message.Message):
    __slots__ = ("adapters",)
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedCompositeFieldContainer[AdapterStatus]
    def __init__(self, adapters: _Optional[_Iterable[_Union[AdapterStatus, _Mapping]]] = ...) -> None: ...

class AdapterStatus(_message.Message):
    __slots__ = ("name", "error", "rank", "bytes", "served")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    name: str
    error: str
    rank: int
    bytes: int
    served: bool
    def __init__(self, name: _Optional[str] = ..., error: _Optional[str] = ..., rank: _Optional[int] = ..., bytes: _Optional[int] = ..., served: _Optional[bool] = ...) -> None: ...
