from florence2.v1 import inference_pb2 as _inference_pb2
from florence2.v1 import results_pb2 as _results_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StreamEvent(_message.Message):
    __slots__ = ("step", "step_started", "text_delta", "detection", "text_region", "step_response", "response", "error")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_STARTED_FIELD_NUMBER: _ClassVar[int]
    TEXT_DELTA_FIELD_NUMBER: _ClassVar[int]
    DETECTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_REGION_FIELD_NUMBER: _ClassVar[int]
    STEP_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    step: int
    step_started: StepStarted
    text_delta: str
    detection: _results_pb2.Detection
    text_region: _results_pb2.TextRegion
    step_response: _inference_pb2.StepResponse
    response: _inference_pb2.TaskResponse
    error: _inference_pb2.TaskError
    def __init__(self, step: _Optional[int] = ..., step_started: _Optional[_Union[StepStarted, _Mapping]] = ..., text_delta: _Optional[str] = ..., detection: _Optional[_Union[_results_pb2.Detection, _Mapping]] = ..., text_region: _Optional[_Union[_results_pb2.TextRegion, _Mapping]] = ..., step_response: _Optional[_Union[_inference_pb2.StepResponse, _Mapping]] = ..., response: _Optional[_Union[_inference_pb2.TaskResponse, _Mapping]] = ..., error: _Optional[_Union[_inference_pb2.TaskError, _Mapping]] = ...) -> None: ...

class StepStarted(_message.Message):
    __slots__ = ("request", "item")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    request: _inference_pb2.TaskRequest
    item: int
    def __init__(self, request: _Optional[_Union[_inference_pb2.TaskRequest, _Mapping]] = ..., item: _Optional[int] = ...) -> None: ...
