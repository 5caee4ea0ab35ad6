"""A plain model of judgement with reversals."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any


class Model:
    """Judges one record after the other; of a record only the uid, the charge and what it reverses matter."""

    def __init__(self) -> None:
        self.judged: list[tuple[Any, ...]] = []
        self.standing: dict[str, int] = {}
        self.contents: dict[int, tuple[str, int]] = {}

    def take(self, uid: str, charge: int, reverses: int | None) -> None:
        offset = len(self.judged)
        if reverses is not None:
            if self.standing.get(uid) == reverses:
                del self.standing[uid]
                self.judged.append(("STORED", -1, None, None, self.contents[reverses][1], reverses))
            else:
                self.judged.append(("DUPLICATE", -1, None, None, charge, reverses))
        elif charge < 0:
            self.judged.append(("REJECTED", 1, "negative_value", None, charge, None))
        elif uid in self.standing:
            first = self.standing[uid]
            rule = None if self.contents[first][1] == charge else "conflict"
            self.judged.append(("DUPLICATE", 1, rule, first, charge, None))
        else:
            self.standing[uid] = offset
            self.contents[offset] = (uid, charge)
            self.judged.append(("STORED", 1, None, None, charge, None))

    def take_something(self, rng: random.Random) -> dict[str, Any]:
        """A random record, judged; its fields."""
        uid, charge, reverses = f"u{rng.randrange(25)}", rng.choice((1, 1, 2, -1)), None
        if rng.random() < 0.4:
            reverses = rng.randrange(-2, len(self.judged) + 5)
            if rng.random() < 0.6 and self.standing:
                uid = rng.choice(sorted(self.standing))
                reverses = self.standing[uid]
        self.take(uid, charge, reverses)
        return {"event_uid": uid, "charge_micros": charge, "reverses_offset": reverses}


def brief(judged: Mapping[str, Any]) -> tuple[Any, ...]:
    """A judged record in the model's words."""
    fields = ("verdict", "sign", "rule", "first_offset", "charge_micros", "reverses_offset")
    return tuple(judged[field] for field in fields)
