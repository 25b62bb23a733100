"""Florence-2 clients with a method for each task: `Client` blocks, `AsyncClient` has the same methods as coroutines.

Their settings, their answers, and the types of their arguments are here too.
"""

from florence2.client.answers import Answer, FinishReason, StepAnswer, TruncatedAnswerError
from florence2.client.async_client import AsyncClient
from florence2.client.events import (
    AsyncEventStream,
    Event,
    EventStream,
    Finished,
    ItemFound,
    StepFinished,
    StepStarted,
    TextDelta,
)
from florence2.client.mapping import MapOutcome
from florence2.client.sync_client import Client
from florence2.client.typed_plans import RegionDetector, RegionTask
from florence2.client.typed_requests import CaptionDetail, Phrases, Region
from florence2.images import ImageSource
from florence2.options import CallOptions, FilterOptions, RunOptions, TaskOptions
from florence2.transports.destination import TLS, Keepalive, Retry
from florence2.transports.protocol import EngineInfo, Health, ServerInfo

__all__ = [
    "TLS",
    "Answer",
    "AsyncClient",
    "AsyncEventStream",
    "CallOptions",
    "CaptionDetail",
    "Client",
    "EngineInfo",
    "Event",
    "EventStream",
    "FilterOptions",
    "FinishReason",
    "Finished",
    "Health",
    "ImageSource",
    "ItemFound",
    "Keepalive",
    "MapOutcome",
    "Phrases",
    "Region",
    "RegionDetector",
    "RegionTask",
    "Retry",
    "RunOptions",
    "ServerInfo",
    "StepAnswer",
    "StepFinished",
    "StepStarted",
    "TaskOptions",
    "TextDelta",
    "TruncatedAnswerError",
]
