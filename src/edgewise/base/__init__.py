"""L1: words everyone may say. Imports numpy and the standard library only."""

from edgewise.base.caps import Cap, Tap
from edgewise.base.catalog import Catalog
from edgewise.base.clock import Clock, WallClock
from edgewise.base.errors import BadInput, EdgewiseError, Incompatible, OutOfRoom, Unsupported
from edgewise.base.request import Event, Request, SamplingParams, SeqId, TokenLogprob
from edgewise.base.structured import StructuredOutputsParams

__all__ = [
    "BadInput", "Cap", "Catalog", "Clock", "EdgewiseError", "Event", "Incompatible", "OutOfRoom", "Request",
    "SamplingParams", "SeqId", "StructuredOutputsParams", "Tap", "TokenLogprob", "Unsupported", "WallClock",
]
