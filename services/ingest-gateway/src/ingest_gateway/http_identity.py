"""The HTTP edge of identity that other services ask: event ids. What is asked is never logged, kept or echoed."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, Field

from ingest_gateway.http import SOURCE_EXPECTED, gateway_of, is_source, needs
from ingest_gateway.problems import Problem
from telestream_opstore import ApiKey

EVENT_ID_CHARS = 128
"""As many as a record's ``event_id`` may have."""

# event ids hold numbers at some producers: who may ask for uids could try numbers out
Asking = Annotated[ApiKey, Depends(needs("identity"))]


class EventAsked(BaseModel, extra="forbid"):
    """An event as its producer calls it."""

    source: str = Field(max_length=64)
    event_id: str = Field(min_length=1, max_length=EVENT_ID_CHARS)


class EventAnswer(BaseModel):
    """What records carry instead of the producer's id; the same for both types."""

    event_uid: str


def add_routes(app: FastAPI) -> None:
    """Add what the query API asks."""

    @app.post("/v1/identity/event", response_model=EventAnswer, include_in_schema=False)
    async def event(request: Request, asked: EventAsked, key: Asking) -> EventAnswer:
        if not is_source(asked.source):
            raise Problem(422, "wrong_type", SOURCE_EXPECTED, "source")
        return EventAnswer(event_uid=gateway_of(request).identity.uid_by_id(asked.source, asked.event_id))
