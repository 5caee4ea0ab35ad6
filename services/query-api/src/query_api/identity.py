"""The gateway's side: it alone turns a number into the reference that stands in the data."""

from __future__ import annotations

import httpx

from query_api.domain.problems import Problem, bad_parameter, unavailable

TIMEOUT_S = 5.0


class Identity:
    """Asks the gateway. Numbers go in a body, never into a URL, a log or an error."""

    def __init__(self, gateway: str, key: str | None) -> None:
        self._client = httpx.AsyncClient(base_url=gateway, timeout=TIMEOUT_S)
        self._key = key

    async def lookup(self, kind: str, number: str, caller_key: str) -> str:
        """The reference of an ``msisdn`` or ``imsi``; raises Problem (422 for no possible number)."""
        answer = await self._ask("/v1/identity/lookup", {kind: number}, caller_key)
        if answer.status_code in (400, 422):
            raise bad_parameter(kind, f"not a possible {kind}", f"bad_{kind}")
        return _read(answer, "subscriber_id")

    async def event_uid(self, source: str, event_id: str, caller_key: str) -> str:
        """What records carry instead of the producer's id; raises Problem (422 for no possible id)."""
        answer = await self._ask("/v1/identity/event", {"source": source, "event_id": event_id}, caller_key)
        if answer.status_code in (400, 422):
            raise bad_parameter("event_id", "not a possible source and event id")
        return _read(answer, "event_uid")

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, path: str, body: dict[str, str], caller_key: str) -> httpx.Response:
        try:
            return await self._client.post(path, json=body, headers={"X-API-Key": self._key or caller_key})
        except httpx.HTTPError:
            # the cause would carry the request
            raise unavailable("the gateway") from None


def _read(answer: httpx.Response, field: str) -> str:
    if answer.status_code in (401, 403):
        raise Problem(403, "not_allowed", "the gateway does not let this key look numbers or events up")
    if answer.status_code != 200:
        raise unavailable("the gateway")
    try:
        return str(answer.json()[field])
    except (ValueError, KeyError, TypeError):
        raise unavailable("the gateway") from None
