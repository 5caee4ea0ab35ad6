"""Full topic names. Raw, ``ref.*``, ``erasures``, ``schemas`` belong to no generation; the rest carries its suffix."""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES: tuple[str, ...] = ("cell", "region", "plan", "subscriber_day", "quality")
DEFAULT_PREFIX = "telestream."


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of one installation (``prefix``) and one ``generation``."""

    prefix: str = DEFAULT_PREFIX
    generation: int = 1

    def raw(self, record_type: str) -> str:
        return f"{self.prefix}{record_type}.raw"

    def enriched(self, record_type: str) -> str:
        return self._derived(f"{record_type}.enriched")

    def rejected(self, record_type: str) -> str:
        return self._derived(f"{record_type}.rejected")

    def agg(self, family: str) -> str:
        return self._derived(f"agg.{family}")

    def ref(self, entity: str) -> str:
        return f"{self.prefix}ref.{entity}"

    @property
    def progress(self) -> str:
        return self._derived("progress")

    @property
    def state_dedup(self) -> str:
        return self._derived("state.dedup")

    @property
    def anomalies(self) -> str:
        return self._derived("anomalies")

    @property
    def erasures(self) -> str:
        return f"{self.prefix}erasures"

    @property
    def schemas(self) -> str:
        return f"{self.prefix}schemas"

    def is_derived(self, topic: str) -> bool:
        """Whether a topic belongs to this generation alone."""
        return topic.startswith(self.prefix) and topic.endswith(f".g{self.generation}")

    def _derived(self, name: str) -> str:
        return f"{self.prefix}{name}.g{self.generation}"


def group_id(service: str, topics: Topics) -> str:
    """The consumer group of a service; service and generation are in it: generations never share positions."""
    return f"{topics.prefix}{service}.g{topics.generation}"
