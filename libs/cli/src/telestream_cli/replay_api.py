"""The query API's generations, as ``telestream replay`` asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from telestream_cli.access import Access, refused, unreachable

GATE_FAILED = "gate_failed"
_TIMEOUT_S = 120.0  # a comparison reads both generations whole
Generation = dict[str, Any]
"""One generation as the API shows it; with ``progress`` where it was asked for alone."""


class GateFailed(Exception):
    """Activation was refused by the quality gate. ``gate``: its checks, [] if the answer has none."""

    def __init__(self, gate: list[dict[str, Any]], said: Exception) -> None:
        super().__init__(str(said))
        self.gate, self.said = gate, said


class ReplayApi:
    """All methods raise ApiUnreachable or ApiRefused, in the API's own words."""

    def __init__(self, access: Access) -> None:
        self._base = f"{access.query_api}/v1/generations"
        self._url, self._headers = access.query_api, access.headers

    def all(self) -> list[Generation]:
        """Every generation there ever was, dropped ones too."""
        found: list[Generation] = self._ask("GET", "")
        return found

    def one(self, generation: int) -> Generation:
        """One generation with its progress and costs."""
        found: Generation = self._ask("GET", f"/{generation}")
        return found

    def start(self, asked: Mapping[str, Any]) -> Generation:
        """Begin a replay."""
        made: Generation = self._ask("POST", "", asked)
        return made

    def activate(self, generation: int, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Let people see it. Raises GateFailed too."""
        found: dict[str, Any] = self._ask("POST", f"/{generation}/activate", asked)
        return found

    def rollback(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Let people see what they saw before."""
        found: dict[str, Any] = self._ask("POST", "/rollback", asked)
        return found

    def drop(self, generation: int, reason: str) -> Generation:
        """Have everything of it removed; that goes on in the background."""
        found: Generation = self._ask("DELETE", f"/{generation}", params={"reason": reason})
        return found

    def compare(self, generation: int, asked: Mapping[str, str]) -> dict[str, Any]:
        """What differs between it and another one."""
        found: dict[str, Any] = self._ask("GET", f"/{generation}/compare", params=asked)
        return found

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, params: Mapping[str, str] | None = None
    ) -> Any:
        try:
            answer = httpx.request(
                method,
                self._base + path,
                json=None if body is None else dict(body),
                params=None if params is None else dict(params),
                headers=self._headers,
                timeout=_TIMEOUT_S,
            )
        except httpx.TransportError as err:
            raise unreachable("query API", self._url, err) from None
        if answer.is_success:
            found = answer.json()
            return found["data"] if isinstance(found, dict) and "data" in found else found
        said = refused("query API", answer)
        problem = _problem(answer)
        if problem.get("code") == GATE_FAILED:
            raise GateFailed(list(problem.get("gate") or []), said)
        raise said


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
