from florence2.v1 import geometry_pb2 as _geometry_pb2
from florence2.v1 import results_pb2 as _results_pb2
from florence2.v1 import tasks_pb2 as _tasks_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EarlyStopping(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EARLY_STOPPING_UNSPECIFIED: _ClassVar[EarlyStopping]
    EARLY_STOPPING_HEURISTIC: _ClassVar[EarlyStopping]
    EARLY_STOPPING_FIRST: _ClassVar[EarlyStopping]
    EARLY_STOPPING_NEVER: _ClassVar[EarlyStopping]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
EARLY_STOPPING_UNSPECIFIED: EarlyStopping
EARLY_STOPPING_HEURISTIC: EarlyStopping
EARLY_STOPPING_FIRST: EarlyStopping
EARLY_STOPPING_NEVER: EarlyStopping
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason

class GenerationOptions(_message.Message):
    __slots__ = ("max_new_tokens", "min_new_tokens", "num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size", "suppress_bos", "repetition_penalty")
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MIN_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_BEAMS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_FIELD_NUMBER: _ClassVar[int]
    NO_REPEAT_NGRAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    SUPPRESS_BOS_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    max_new_tokens: int
    min_new_tokens: int
    num_beams: int
    length_penalty: float
    early_stopping: EarlyStopping
    no_repeat_ngram_size: int
    suppress_bos: bool
    repetition_penalty: float
    def __init__(self, max_new_tokens: _Optional[int] = ..., min_new_tokens: _Optional[int] = ..., num_beams: _Optional[int] = ..., length_penalty: _Optional[float] = ..., early_stopping: _Optional[_Union[EarlyStopping, str]] = ..., no_repeat_ngram_size: _Optional[int] = ..., suppress_bos: _Optional[bool] = ..., repetition_penalty: _Optional[float] = ...) -> None: ...

class TaskRequest(_message.Message):
    __slots__ = ("caption", "detailed_caption", "more_detailed_caption", "object_detection", "dense_region_caption", "region_proposal", "phrase_grounding", "referring_expression_segmentation", "region_to_segmentation", "open_vocabulary_detection", "region_to_category", "region_to_description", "ocr", "ocr_with_region", "region_to_ocr", "free_prompt", "caption_grounding", "region_analysis", "task_list", "prompt", "generation", "raw", "priority", "timeout_seconds", "adapter")
    CAPTION_FIELD_NUMBER: _ClassVar[int]
    DETAILED_CAPTION_FIELD_NUMBER: _ClassVar[int]
    MORE_DETAILED_CAPTION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_DETECTION_FIELD_NUMBER: _ClassVar[int]
    DENSE_REGION_CAPTION_FIELD_NUMBER: _ClassVar[int]
    REGION_PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    PHRASE_GROUNDING_FIELD_NUMBER: _ClassVar[int]
    REFERRING_EXPRESSION_SEGMENTATION_FIELD_NUMBER: _ClassVar[int]
    REGION_TO_SEGMENTATION_FIELD_NUMBER: _ClassVar[int]
    OPEN_VOCABULARY_DETECTION_FIELD_NUMBER: _ClassVar[int]
    REGION_TO_CATEGORY_FIELD_NUMBER: _ClassVar[int]
    REGION_TO_DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    OCR_FIELD_NUMBER: _ClassVar[int]
    OCR_WITH_REGION_FIELD_NUMBER: _ClassVar[int]
    REGION_TO_OCR_FIELD_NUMBER: _ClassVar[int]
    FREE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    CAPTION_GROUNDING_FIELD_NUMBER: _ClassVar[int]
    REGION_ANALYSIS_FIELD_NUMBER: _ClassVar[int]
    TASK_LIST_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    caption: _tasks_pb2.Caption
    detailed_caption: _tasks_pb2.DetailedCaption
    more_detailed_caption: _tasks_pb2.MoreDetailedCaption
    object_detection: _tasks_pb2.ObjectDetection
    dense_region_caption: _tasks_pb2.DenseRegionCaption
    region_proposal: _tasks_pb2.RegionProposal
    phrase_grounding: _tasks_pb2.PhraseGrounding
    referring_expression_segmentation: _tasks_pb2.ReferringExpressionSegmentation
    region_to_segmentation: _tasks_pb2.RegionToSegmentation
    open_vocabulary_detection: _tasks_pb2.OpenVocabularyDetection
    region_to_category: _tasks_pb2.RegionToCategory
    region_to_description: _tasks_pb2.RegionToDescription
    ocr: _tasks_pb2.Ocr
    ocr_with_region: _tasks_pb2.OcrWithRegion
    region_to_ocr: _tasks_pb2.RegionToOcr
    free_prompt: _tasks_pb2.Prompt
    caption_grounding: _tasks_pb2.CaptionGrounding
    region_analysis: _tasks_pb2.RegionAnalysis
    task_list: TaskList
    prompt: str
    generation: GenerationOptions
    raw: bool
    priority: int
    timeout_seconds: float
    adapter: str
    def __init__(self, caption: _Optional[_Union[_tasks_pb2.Caption, _Mapping]] = ..., detailed_caption: _Optional[_Union[_tasks_pb2.DetailedCaption, _Mapping]] = ..., more_detailed_caption: _Optional[_Union[_tasks_pb2.MoreDetailedCaption, _Mapping]] = ..., object_detection: _Optional[_Union[_tasks_pb2.ObjectDetection, _Mapping]] = ..., dense_region_caption: _Optional[_Union[_tasks_pb2.DenseRegionCaption, _Mapping]] = ..., region_proposal: _Optional[_Union[_tasks_pb2.RegionProposal, _Mapping]] = ..., phrase_grounding: _Optional[_Union[_tasks_pb2.PhraseGrounding, _Mapping]] = ..., referring_expression_segmentation: _Optional[_Union[_tasks_pb2.ReferringExpressionSegmentation, _Mapping]] = ..., region_to_segmentation: _Optional[_Union[_tasks_pb2.RegionToSegmentation, _Mapping]] = ..., open_vocabulary_detection: _Optional[_Union[_tasks_pb2.OpenVocabularyDetection, _Mapping]] = ..., region_to_category: _Optional[_Union[_tasks_pb2.RegionToCategory, _Mapping]] = ..., region_to_description: _Optional[_Union[_tasks_pb2.RegionToDescription, _Mapping]] = ..., ocr: _Optional[_Union[_tasks_pb2.Ocr, _Mapping]] = ..., ocr_with_region: _Optional[_Union[_tasks_pb2.OcrWithRegion, _Mapping]] = ..., region_to_ocr: _Optional[_Union[_tasks_pb2.RegionToOcr, _Mapping]] = ..., free_prompt: _Optional[_Union[_tasks_pb2.Prompt, _Mapping]] = ..., caption_grounding: _Optional[_Union[_tasks_pb2.CaptionGrounding, _Mapping]] = ..., region_analysis: _Optional[_Union[_tasks_pb2.RegionAnalysis, _Mapping]] = ..., task_list: _Optional[_Union[TaskList, _Mapping]] = ..., prompt: _Optional[str] = ..., generation: _Optional[_Union[GenerationOptions, _Mapping]] = ..., raw: _Optional[bool] = ..., priority: _Optional[int] = ..., timeout_seconds: _Optional[float] = ..., adapter: _Optional[str] = ...) -> None: ...

class TaskList(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskRequest]
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskRequest, _Mapping]]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "generated_tokens", "queue_milliseconds", "encode_milliseconds", "decode_milliseconds", "image_embedding_cached")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_EMBEDDING_CACHED_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    generated_tokens: int
    queue_milliseconds: float
    encode_milliseconds: float
    decode_milliseconds: float
    image_embedding_cached: bool
    def __init__(self, prompt_tokens: _Optional[int] = ..., generated_tokens: _Optional[int] = ..., queue_milliseconds: _Optional[float] = ..., encode_milliseconds: _Optional[float] = ..., decode_milliseconds: _Optional[float] = ..., image_embedding_cached: _Optional[bool] = ...) -> None: ...

class TaskResponse(_message.Message):
    __slots__ = ("text", "image_size", "finish_reason", "usage", "text_result", "detections", "segmentation", "text_regions", "token_log_probabilities", "token_ends", "steps", "token_masses")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_RESULT_FIELD_NUMBER: _ClassVar[int]
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTATION_FIELD_NUMBER: _ClassVar[int]
    TEXT_REGIONS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ENDS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_MASSES_FIELD_NUMBER: _ClassVar[int]
    text: str
    image_size: _geometry_pb2.ImageSize
    finish_reason: FinishReason
    usage: Usage
    text_result: _results_pb2.Text
    detections: _results_pb2.Detections
    segmentation: _results_pb2.Segmentation
    text_regions: _results_pb2.TextRegions
    token_log_probabilities: _containers.RepeatedScalarFieldContainer[float]
    token_ends: _containers.RepeatedScalarFieldContainer[int]
    steps: _containers.RepeatedCompositeFieldContainer[StepResponse]
    token_masses: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, text: _Optional[str] = ..., image_size: _Optional[_Union[_geometry_pb2.ImageSize, _Mapping]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., text_result: _Optional[_Union[_results_pb2.Text, _Mapping]] = ..., detections: _Optional[_Union[_results_pb2.Detections, _Mapping]] = ..., segmentation: _Optional[_Union[_results_pb2.Segmentation, _Mapping]] = ..., text_regions: _Optional[_Union[_results_pb2.TextRegions, _Mapping]] = ..., token_log_probabilities: _Optional[_Iterable[float]] = ..., token_ends: _Optional[_Iterable[int]] = ..., steps: _Optional[_Iterable[_Union[StepResponse, _Mapping]]] = ..., token_masses: _Optional[_Iterable[float]] = ...) -> None: ...

class TaskError(_message.Message):
    __slots__ = ("status", "message")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    status: str
    message: str
    def __init__(self, status: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class StepResponse(_message.Message):
    __slots__ = ("request", "item", "response", "error")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request: TaskRequest
    item: int
    response: TaskResponse
    error: TaskError
    def __init__(self, request: _Optional[_Union[TaskRequest, _Mapping]] = ..., item: _Optional[int] = ..., response: _Optional[_Union[TaskResponse, _Mapping]] = ..., error: _Optional[_Union[TaskError, _Mapping]] = ...) -> None: ...
