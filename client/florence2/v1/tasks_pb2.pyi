from florence2.v1 import geometry_pb2 as _geometry_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CaptionDetail(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAPTION_DETAIL_UNSPECIFIED: _ClassVar[CaptionDetail]
    CAPTION_DETAIL_BRIEF: _ClassVar[CaptionDetail]
    CAPTION_DETAIL_DETAILED: _ClassVar[CaptionDetail]
    CAPTION_DETAIL_PARAGRAPH: _ClassVar[CaptionDetail]

class RegionTask(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REGION_TASK_UNSPECIFIED: _ClassVar[RegionTask]
    REGION_TASK_DESCRIPTION: _ClassVar[RegionTask]
    REGION_TASK_CATEGORY: _ClassVar[RegionTask]
    REGION_TASK_TEXT: _ClassVar[RegionTask]
    REGION_TASK_SEGMENTATION: _ClassVar[RegionTask]
CAPTION_DETAIL_UNSPECIFIED: CaptionDetail
CAPTION_DETAIL_BRIEF: CaptionDetail
CAPTION_DETAIL_DETAILED: CaptionDetail
CAPTION_DETAIL_PARAGRAPH: CaptionDetail
REGION_TASK_UNSPECIFIED: RegionTask
REGION_TASK_DESCRIPTION: RegionTask
REGION_TASK_CATEGORY: RegionTask
REGION_TASK_TEXT: RegionTask
REGION_TASK_SEGMENTATION: RegionTask

class Caption(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DetailedCaption(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MoreDetailedCaption(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ObjectDetection(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DenseRegionCaption(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RegionProposal(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PhraseGrounding(_message.Message):
    __slots__ = ("caption", "phrases")
    CAPTION_FIELD_NUMBER: _ClassVar[int]
    PHRASES_FIELD_NUMBER: _ClassVar[int]
    caption: str
    phrases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, caption: _Optional[str] = ..., phrases: _Optional[_Iterable[str]] = ...) -> None: ...

class ReferringExpressionSegmentation(_message.Message):
    __slots__ = ("expression",)
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    expression: str
    def __init__(self, expression: _Optional[str] = ...) -> None: ...

class RegionToSegmentation(_message.Message):
    __slots__ = ("region",)
    REGION_FIELD_NUMBER: _ClassVar[int]
    region: _geometry_pb2.BoundingBox
    def __init__(self, region: _Optional[_Union[_geometry_pb2.BoundingBox, _Mapping]] = ...) -> None: ...

class OpenVocabularyDetection(_message.Message):
    __slots__ = ("query", "queries")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    query: str
    queries: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, query: _Optional[str] = ..., queries: _Optional[_Iterable[str]] = ...) -> None: ...

class RegionToCategory(_message.Message):
    __slots__ = ("region",)
    REGION_FIELD_NUMBER: _ClassVar[int]
    region: _geometry_pb2.BoundingBox
    def __init__(self, region: _Optional[_Union[_geometry_pb2.BoundingBox, _Mapping]] = ...) -> None: ...

class RegionToDescription(_message.Message):
    __slots__ = ("region",)
    REGION_FIELD_NUMBER: _ClassVar[int]
    region: _geometry_pb2.BoundingBox
    def __init__(self, region: _Optional[_Union[_geometry_pb2.BoundingBox, _Mapping]] = ...) -> None: ...

class Ocr(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OcrWithRegion(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RegionToOcr(_message.Message):
    __slots__ = ("region",)
    REGION_FIELD_NUMBER: _ClassVar[int]
    region: _geometry_pb2.BoundingBox
    def __init__(self, region: _Optional[_Union[_geometry_pb2.BoundingBox, _Mapping]] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class CaptionGrounding(_message.Message):
    __slots__ = ("detail",)
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    detail: CaptionDetail
    def __init__(self, detail: _Optional[_Union[CaptionDetail, str]] = ...) -> None: ...

class RegionAnalysis(_message.Message):
    __slots__ = ("object_detection", "dense_region_caption", "region_proposal", "phrase_grounding", "open_vocabulary_detection", "region_task", "max_regions")
    OBJECT_DETECTION_FIELD_NUMBER: _ClassVar[int]
    DENSE_REGION_CAPTION_FIELD_NUMBER: _ClassVar[int]
    REGION_PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    PHRASE_GROUNDING_FIELD_NUMBER: _ClassVar[int]
    OPEN_VOCABULARY_DETECTION_FIELD_NUMBER: _ClassVar[int]
    REGION_TASK_FIELD_NUMBER: _ClassVar[int]
    MAX_REGIONS_FIELD_NUMBER: _ClassVar[int]
    object_detection: ObjectDetection
    dense_region_caption: DenseRegionCaption
    region_proposal: RegionProposal
    phrase_grounding: PhraseGrounding
    open_vocabulary_detection: OpenVocabularyDetection
    region_task: RegionTask
    max_regions: int
    def __init__(self, object_detection: _Optional[_Union[ObjectDetection, _Mapping]] = ..., dense_region_caption: _Optional[_Union[DenseRegionCaption, _Mapping]] = ..., region_proposal: _Optional[_Union[RegionProposal, _Mapping]] = ..., phrase_grounding: _Optional[_Union[PhraseGrounding, _Mapping]] = ..., open_vocabulary_detection: _Optional[_Union[OpenVocabularyDetection, _Mapping]] = ..., region_task: _Optional[_Union[RegionTask, str]] = ..., max_regions: _Optional[int] = ...) -> None: ...
