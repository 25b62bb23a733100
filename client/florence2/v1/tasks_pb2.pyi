from florence2.v1 import geometry_pb2 as _geometry_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

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
