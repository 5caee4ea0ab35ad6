"""A plain Python model of what must come out, random judged records, and a log in memory for crash tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import polars_hash as plh
import pytest

from faust_batch import Batch, Committed, Output, Source
from telestream_contracts import decode_record, encode_records, enriched_schema, load_schema, schema_id_of
from telestream_domain import FAMILIES, LATENCY_BOUNDS_MS, TYPES, Topics
from window_aggregator.codec import Codec
from window_aggregator.domain.families import families
from window_aggregator.domain.rhythm import Rhythm, default_beats
from window_aggregator.snapshot_cache import SnapshotFiles
from window_aggregator.snapshots import SnapshotRhythm
from window_aggregator.stage import Aggregator

Record = dict[str, Any]
NOW_MS = 1_790_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STATUSES = ("COMPLETED", "NO_ANSWER", "BUSY", "CANCELLED", "CONGESTION", "FAILED", "DROPPED", "UNKNOWN")
ENDED = ("ended_answered", "ended_dropped")
EVENT_TYPES = ("SAMPLE", "ATTACH", "HANDOVER", "RRC_SETUP", "RADIO_LINK_FAILURE", "ALARM", "CELL_DOWN", "CELL_UP")


def instant(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)


# -- records ---------------------------------------------------------------------


def judged_cdr(src_offset: int, partition: int = 0, zone: str = "UTC", **changes: Any) -> Record:
    """A STORED CDR; times are given in epoch ms."""
    record: Record = {f["name"]: f.get("default") for f in enriched_schema("cdr")["fields"]}
    record |= {
        "src_partition": partition,
        "src_offset": src_offset,
        "appended_at": NOW_MS,
        "verdict": "STORED",
        "sign": 1,
        "content_hash": 7,
        "rules_version": 1,
        "warnings": [],
        "region_id": "R1",
        "plan_id": "P1",
        "roaming": "HOME",
        "event_uid": f"{src_offset:022d}",
        "started_at": NOW_MS - 5_000,
        "record_type": "VOICE",
        "status": "COMPLETED",
        "subscriber_id": "k1.alice",
        "subscriber_kind": "MSISDN",
        "cell_id": "208-01-17",
        "duration_ms": 60_000,
        "is_partial": False,
        "source": "msc1",
        "batch_id": 1,
        "line": src_offset + 1,
        "ingested_at": NOW_MS,
        "ext": {},
    }
    record |= changes
    record.setdefault("local_date", None)
    if "local_date" not in changes:
        record["local_date"] = instant(record["started_at"]).astimezone(ZoneInfo(zone)).date()
    return record


def judged_event(src_offset: int, partition: int = 0, **changes: Any) -> Record:
    """A STORED network event; times are given in epoch ms."""
    record: Record = {f["name"]: f.get("default") for f in enriched_schema("network")["fields"]}
    record |= {
        "src_partition": partition,
        "src_offset": src_offset,
        "appended_at": NOW_MS,
        "verdict": "STORED",
        "sign": 1,
        "content_hash": 7,
        "rules_version": 1,
        "warnings": [],
        "region_id": "R1",
        "event_uid": f"{src_offset:022d}",
        "occurred_at": NOW_MS - 5_000,
        "event_type": "SAMPLE",
        "cell_id": "208-01-17",
        "source": "oss1",
        "batch_id": 1,
        "line": src_offset + 1,
        "ingested_at": NOW_MS,
        "ext": {},
    }
    return record | changes


def _maybe(rng: random.Random, values: Sequence[Any], none: float = 0.3) -> Any:
    return None if rng.random() < none else rng.choice(values)


def random_record(rng: random.Random, record_type: str, src_offset: int, partition: int, zone: str) -> Record:
    appended_at = NOW_MS + src_offset * 700
    age = rng.choice((0, 30_000, 3_600_000, 86_400_000 * 370))
    at = appended_at - rng.randrange(age + 600_000) - age
    verdict, rule = rng.choice(
        (("STORED", None),) * 7
        + (("DUPLICATE", None), ("DUPLICATE", "conflict"), ("REJECTED", "too_old"), ("REJECTED", "undecodable"))
    )
    common = {
        "appended_at": appended_at,
        "verdict": verdict,
        "rule": rule,
        "sign": -1 if rng.random() < 0.1 else 1,
        "warnings": _maybe(rng, [["duration_too_long"], ["voice_with_bytes", "implausible_value"]], 0.8) or [],
        "region_id": _maybe(rng, ("R1", "R2", "R|3%"), 0.2),
        "source": rng.choice(("msc1", "msc2")),
    }
    if record_type == "network":
        return judged_event(
            src_offset,
            partition,
            occurred_at=at,
            event_type=rng.choice(EVENT_TYPES),
            cell_id=rng.choice(("208-01-17", "208-01-18")),
            success=_maybe(rng, (True, False)),
            latency_ms=_maybe(rng, (12.3456, 0.0005, 7.0015, 55.5555)),
            throughput_dl_mbps=_maybe(rng, (101.2345, 0.0005, 3.0)),
            throughput_ul_mbps=_maybe(rng, (9.99951, 1e-9)),
            packet_loss_ratio=_maybe(rng, (0.0123456789, 0.0, 1.0)),
            **common,
        )
    charge = _maybe(rng, (0, 120_000, 990_001), 0.4)
    return judged_cdr(
        src_offset,
        partition,
        zone,
        started_at=at,
        record_type=rng.choice(("VOICE", "VOICE", "VIDEO", "SMS", "MMS", "DATA", "USSD", "OTHER")),
        status=rng.choice(STATUSES),
        subscriber_id=rng.choice(("k1.alice", "k1.bob", "line|7", f"k1.{src_offset}")),
        subscriber_kind=rng.choice(("MSISDN", "MSISDN", "IMSI", "NONE")),
        cell_id=_maybe(rng, ("208-01-17", "208-01-18"), 0.1),
        duration_ms=_maybe(rng, (0, 1_500, 90_000, 86_400_000 * 30)),
        pdd_ms=_maybe(rng, (0, 1_200, 3_400)),
        last_cell_id=_maybe(rng, ("208-01-17", "208-01-18", "208-01-19"), 0.6),
        segments=_maybe(rng, (1, 2, 7)),
        is_partial=rng.random() < 0.3,
        holding_ms=_maybe(rng, (2_000, 99_000), 0.6),
        bytes_up=_maybe(rng, (0, 10, 1 << 40)),
        bytes_down=_maybe(rng, (3, 1 << 33)),
        charge_micros=charge,
        currency=_maybe(rng, ("EUR", "USD", "GBP"), 0.1),
        direction=_maybe(rng, ("MO", "MT")),
        plan_id=_maybe(rng, ("P1", "P2"), 0.2),
        roaming=rng.choice(("HOME", "OUTBOUND", "UNKNOWN")),
        **common,
    )


def values_of(records: Sequence[Record], record_type: str, schema_id: int = 7) -> list[bytes]:
    schema = enriched_schema(record_type)
    stamps = {f["name"] for f in schema["fields"] if "timestamp-millis" in str(f["type"])}
    return encode_records(
        [{k: instant(v) if k in stamps and v is not None else v for k, v in r.items()} for r in records],
        schema,
        schema_id,
    )


# -- the model ---------------------------------------------------------------------

Key = tuple[Any, ...]


@lru_cache
def xxh3(text: str) -> int:
    return int(pl.DataFrame({"it": [text]}).select(plh.col("it").nchash.xxh3_64(seed=0)).item())


def expected(
    records: Sequence[Record], record_type: str, bits: int, day_bits: int, zone: str = "UTC"
) -> dict[Key, Any]:
    """(family, type, size_s, window_start ms, groups, partition, segment) → the non-zero sums of that window."""
    found: dict[Key, dict[str, Any]] = {}

    def add(
        key: Key, sign: int, sums: dict[str, int], currency: str | None, charge: int | None, end: int | None
    ) -> None:
        window = found.setdefault(key, {"charges": {}, "sums": {}, "freshest": None, "late_at": None})
        for name, value in sums.items():
            window["sums"][name] = window["sums"].get(name, 0) + sign * value
        if charge is not None:
            name = currency or ""
            window["charges"][name] = window["charges"].get(name, 0) + sign * charge
        if end is not None:
            window["freshest"] = end if window["freshest"] is None else max(window["freshest"], end)

    def mark(key: Key, r: Record, end: int, counted: bool = True) -> None:
        """Late or a reversal? ``judged_ms``: when Kafka took the judged record in, where it is known."""
        late, reversal, window = r["appended_at"] > end + 300_000, r["sign"] < 0, found[key]
        if late or reversal:
            came = max(r["appended_at"], r.get("judged_ms", 0)) if reversal else r["appended_at"]
            window["late_at"] = max(came, window["late_at"] or 0)
        if counted:
            for name, value in (("late_records", late), ("reversals", reversal)):
                window["sums"][name] = window["sums"].get(name, 0) + value

    for r in records:
        partition, segment = r["src_partition"], r["src_offset"] >> bits
        at = r["started_at"] if record_type == "cdr" else r["occurred_at"]
        sign = r["sign"]
        quality = {"warned": int(bool(r["warnings"]))}
        if r["rule"] != "undecodable":
            quality["latency_ms"] = max(0, r["appended_at"] - at)
        if record_type == "cdr":
            quality["duration_ms"] = r["duration_ms"] or 0
            quality["bytes"] = (r["bytes_up"] or 0) + (r["bytes_down"] or 0)
        hour = r["appended_at"] // 3_600_000 * 3_600_000
        groups = (r["source"], r["verdict"], r["rule"] or "")
        key = ("quality", record_type, 3_600, hour, groups, partition, segment)
        # a reversal without effect takes nothing back
        effect = sign if sign > 0 or r["verdict"] == "STORED" else 0
        add(key, effect, quality, r.get("currency"), r.get("charge_micros") if effect else None, None)
        add(key, 1, {"records": int(sign > 0), "reversals": int(sign < 0)}, None, None, None)
        window = found[key]
        buckets, warned = window.setdefault("buckets", [0] * 11), window.setdefault("warnings", {})
        if r["rule"] != "undecodable":
            buckets[sum(max(0, r["appended_at"] - at) > bound for bound in LATENCY_BOUNDS_MS)] += effect
        for code in r["warnings"]:
            warned[code] = warned.get(code, 0) + effect
        if r["verdict"] != "STORED":
            continue
        currency, charge = r.get("currency"), r.get("charge_micros")
        if record_type == "cdr":
            sums, grouped = _cdr_sums(r), {"cell": r["cell_id"], "region": r["region_id"], "plan": r["plan_id"]}
            held = r["holding_ms"] if r["holding_ms"] is not None else r["duration_ms"] or 0
            end = min(at + held, r["appended_at"])
        else:
            sums, grouped = _network_sums(r), {"cell": r["cell_id"], "region": r["region_id"]}
            end = min(at, r["appended_at"])
        for family, group in grouped.items():
            # minutes are for now: what arrived more than two hours late counts in quarter hours only
            for size_s in (60, 900) if r["appended_at"] - at <= 7_200_000 else (900,):
                start = at // (size_s * 1_000) * size_s * 1_000
                key = (family, record_type, size_s, start, (group or "",), partition, segment)
                own, last = sums, r.get("last_cell_id")
                moved = last is not None and last != (group or "") and bool(sums.get("ended_answered"))
                if family == "cell" and moved:
                    own = {name: value for name, value in sums.items() if name not in ENDED}
                    there = (*key[:4], (last,), *key[5:])
                    add(there, sign, {name: sums.get(name, 0) for name in ENDED}, None, None, end)
                    mark(there, r, start + size_s * 1_000, counted=False)
                add(key, sign, own, currency, charge, end)
                mark(key, r, start + size_s * 1_000)
                if size_s == 900 and record_type == "cdr" and sign > 0 and r["subscriber_kind"] != "NONE":
                    seen = found[key].setdefault("sketch", {})
                    digest = xxh3(r["subscriber_id"])
                    rank = 55 - (digest & ((1 << 54) - 1)).bit_length()
                    seen[digest >> 54] = max(rank, seen.get(digest >> 54, 0))
        if record_type == "cdr" and r["subscriber_kind"] != "NONE":
            day: date = r["local_date"]
            midnight = datetime.combine(day, time.min, tzinfo=ZoneInfo(zone))
            names = ("subscriber_id", "plan_id", "roaming", "direction", "currency")
            groups = tuple(r[name] or "" for name in names)
            start = int(midnight.timestamp()) * 1_000
            key = ("subscriber_day", record_type, 86_400, start, groups, partition, r["src_offset"] >> day_bits)
            own = {name: value for name, value in sums.items() if name in SUM_FIELDS["subscriber_day"]}
            add(key, sign, own | {"charge_micros": charge or 0}, None, None, None)
            following = datetime.combine(day + timedelta(days=1), time.min, tzinfo=ZoneInfo(zone))
            mark(key, r, int(following.timestamp()) * 1_000)
    for window in found.values():
        window["sums"] = {name: value for name, value in window["sums"].items() if value}
    return found


def _cdr_sums(r: Record) -> dict[str, int]:
    sums = {"records": 1, "bytes_up": r["bytes_up"] or 0, "bytes_down": r["bytes_down"] or 0}
    names = {"SMS": "sms", "MMS": "mms", "DATA": "data_records", "USSD": "ussd", "OTHER": "others"}
    if r["record_type"] == "SMS":
        sums["sms_segments"] = 1 if r["segments"] is None else r["segments"]
    if r["record_type"] == "DATA":
        sums["sessions"] = int(not r["is_partial"])
        sums["data_duration_ms"] = r["duration_ms"] or 0
        sums["data_bytes"] = (r["bytes_up"] or 0) + (r["bytes_down"] or 0) if r["duration_ms"] else 0
    if r["record_type"] in names:
        return sums | {names[r["record_type"]]: 1}
    if r["status"] in ("COMPLETED", "DROPPED"):
        sums |= {"ended_answered": 1, "ended_dropped": int(r["status"] == "DROPPED")}
    if r["pdd_ms"] is not None:
        sums |= {"pdd_ms": r["pdd_ms"], "pdd_ms_count": 1}
    held = r["holding_ms"] if r["holding_ms"] is not None else r["duration_ms"] or 0
    return sums | {
        "attempts": 1,
        r["status"].lower(): 1,
        "duration_ms": r["duration_ms"] or 0,
        "holding_ms": held,
    }


def _network_sums(r: Record) -> dict[str, int]:
    names = {
        "SAMPLE": "samples",
        "ATTACH": "attaches",
        "HANDOVER": "handovers",
        "RRC_SETUP": "rrc_setups",
        "RADIO_LINK_FAILURE": "radio_link_failures",
        "ALARM": "alarms",
        "CELL_DOWN": "cell_downs",
        "CELL_UP": "cell_ups",
    }
    sums = {"events": 1, names[r["event_type"]]: 1}
    if r["success"] is not None:
        sums |= {"success_known": 1, "successes": int(r["success"])}
        if r["event_type"] in ("RRC_SETUP", "HANDOVER", "ATTACH"):
            name = r["event_type"].lower()
            sums |= {f"{name}_known": 1, f"{name}_successes": int(r["success"])}
    for measure, name, factor in (
        ("latency_us", "latency_ms", 1_000),
        ("throughput_dl_kbps", "throughput_dl_mbps", 1_000),
        ("throughput_ul_kbps", "throughput_ul_mbps", 1_000),
        ("packet_loss_ppm", "packet_loss_ratio", 1_000_000),
    ):
        if r[name] is not None:
            rounded = int(Decimal(r[name] * factor).quantize(Decimal(1), ROUND_HALF_UP))
            sums |= {measure: rounded, f"{measure}_count": 1}
    return sums


GROUPS = {
    "cell": ("cell_id",),
    "region": ("region_id",),
    "plan": ("plan_id",),
    "subscriber_day": ("subscriber_id", "plan_id", "roaming", "direction", "currency"),
    "quality": ("source", "verdict", "rule"),
}
ABOUT = ("type", "size_s", "window_start", "local_date", "partition", "segment", "src_to", "marker_offset")
SUM_FIELDS = {
    family: [
        f["name"]
        for f in load_schema(f"agg_{family}")["fields"]
        if f["type"] == "long" and f["name"] not in (*ABOUT, *GROUPS[family])
    ]
    for family in FAMILIES
}


def as_window(family: str, value: Record) -> tuple[Key, dict[str, Any]]:
    """A decoded upsert in the model's shape."""
    groups = tuple(value[name] for name in GROUPS[family])
    start = round((value["window_start"] - EPOCH).total_seconds() * 1_000)
    key = (family, value["type"], value["size_s"], start, groups, value["partition"], value["segment"])
    charges: dict[str, int] = {}
    if "charge_currencies" in value:
        assert value["charge_currencies"] == sorted(value["charge_currencies"])
        charges = dict(zip(value["charge_currencies"], value["charge_micros"], strict=True))
    found = {
        "sums": {name: value[name] for name in SUM_FIELDS[family] if value.get(name)},
        "charges": charges,
        "freshest": _ms(value.get("freshest_event_end_at")),
        "late_at": _ms(value.get("late_at")),
    }
    if family == "quality" and "warning_codes" in value:
        assert value["warning_codes"] == sorted(value["warning_codes"])
        found["buckets"] = value.get("latency_buckets")
        found["warnings"] = dict(zip(value["warning_codes"], value["warning_counts"], strict=True))
    if value.get("subscriber_registers"):
        assert value["subscriber_registers"] == sorted(value["subscriber_registers"])
        found["sketch"] = dict(zip(value["subscriber_registers"], value["subscriber_ranks"], strict=True))
    return key, found


def _ms(at: datetime | None) -> int | None:
    return None if at is None else round((at - EPOCH).total_seconds() * 1_000)


# -- a log in memory ---------------------------------------------------------------------


@dataclass
class MemoryLog:
    """Committed records of all partitions, by offset; what ``window_aggregator.recovery.Log`` asks for."""

    enriched_records: dict[Source, list[tuple[int, bytes]]] = field(default_factory=dict)
    enriched_starts: dict[Source, int] = field(default_factory=dict)
    agg: dict[tuple[str, int], list[tuple[int, bytes, bytes]]] = field(default_factory=dict)
    topic_ids: str | None = "as first made"
    judged_ms: int = 0

    def batch(self, source: Source, begin: int, end: int) -> Batch:
        """Records number ``begin`` to ``end`` (exclusive) of a partition."""
        found = self.enriched_records[source]
        following = found[end][0] if end < len(found) else found[-1][0] + 1
        return _batch(source, [(o, None, v) for o, v in found[begin:end]], following, found[-1][0] + 1, self.judged_ms)

    def enriched_start(self, source: Source) -> int:
        return self.enriched_starts.get(source, 0)

    def enriched(self, source: Source, start: int, end: int) -> Iterator[Batch]:
        found = [(o, None, v) for o, v in self.enriched_records[source] if start <= o < end]
        for at in range(0, len(found), 50):
            yield _batch(source, found[at : at + 50], found[at : at + 50][-1][0] + 1, end, self.judged_ms)

    def agg_end(self, family: str, partition: int) -> int:
        found = self.agg.get((family, partition), [])
        return found[-1][0] + 2 if found else 0

    def upserts(self, family: str, partition: int, start: int) -> Iterator[Batch]:
        found = [(o, k, v) for o, k, v in self.agg.get((family, partition), []) if o >= start]
        for at in range(0, len(found), 70):
            part = found[at : at + 70]
            yield _batch(Source(family, partition), part, part[-1][0] + 1, part[-1][0] + 1)

    def ids(self, source: Source, families: Sequence[str]) -> str | None:
        return self.topic_ids

    def append(self, outputs: Sequence[Output], family_of: dict[str, str]) -> None:
        """One committed transaction; like Kafka's, it leaves a hole behind it in each partition."""
        written: set[tuple[str, int]] = set()
        for output in outputs:
            at = (family_of[output.topic], output.partition)
            entries = self.agg.setdefault(at, [])
            following = (entries[-1][0] + (1 if at in written else 2)) if entries else 0
            written.add(at)
            for number, message in enumerate(output.messages):
                assert message["key"] is not None
                assert message["value"] is not None
                entries.append((following + number, message["key"], message["value"]))


def _batch(
    source: Source, found: Sequence[tuple[int, bytes | None, bytes]], following: int, end: int, at_ms: int = 0
) -> Batch:
    return Batch(
        source=source,
        offsets=np.array([offset for offset, _, _ in found], np.int64),
        timestamps_ms=np.full(len(found), at_ms, np.int64),
        keys=[key for _, key, _ in found],
        values=[value for _, _, value in found],
        next_offset=following,
        high_watermark=end,
        epoch=0,
        nbytes=sum(len(value) for _, _, value in found),
    )


# -- a worker in memory ---------------------------------------------------------------------

SCHEMA_IDS = {"cdr": 7, "network": 8}
AGG_IDS = {family: 20 + number for number, family in enumerate(FAMILIES)}
OLD_AGG_IDS = {family: 40 + number for number, family in enumerate(FAMILIES)}


def _first_release(family: str) -> Record:
    schema = load_schema(f"agg_{family}")
    names = [f["name"] for f in schema["fields"]]
    since = next(names.index(n) for n in ("ended_answered", "sessions", "latency_buckets") if n in names)
    return {**schema, "fields": schema["fields"][:since]}


SCHEMAS = {
    **{number: _first_release(family) for family, number in OLD_AGG_IDS.items()},
    **{number: enriched_schema(record_type) for record_type, number in SCHEMA_IDS.items()},
    **{number: load_schema(f"agg_{family}") for family, number in AGG_IDS.items()},
}


@dataclass
class World:
    """The log, and a worker whose transactions end in it."""

    bits: int = 6
    day_bits: int = 8
    zone: str = "UTC"
    fold_rows: int = 40
    topics: Topics = field(default_factory=Topics)
    log: MemoryLog = field(default_factory=MemoryLog)
    committed: dict[Source, Committed] = field(default_factory=dict)
    records: dict[Source, list[Record]] = field(default_factory=dict)
    idle_ms: int = 2_000
    max_dirty: int = 12_500
    snapshots: SnapshotFiles | None = None
    snapshot_every: int = 1

    def __post_init__(self) -> None:
        self.family_of = {self.topics.agg(family): family for family in FAMILIES}
        self.type_of = {self.topics.enriched(record_type): record_type for record_type in TYPES}
        self.start()

    def start(self) -> None:
        """A fresh process: everything that was not committed is forgotten."""
        self.stage = Aggregator(
            self.topics,
            families(self.bits, self.day_bits, ZoneInfo(self.zone)),
            Rhythm(default_beats(), self.idle_ms),
            ZoneInfo(self.zone),
            Codec(SCHEMAS.get, AGG_IDS),
            self.log,
            fold_rows=self.fold_rows,
            max_dirty=self.max_dirty,
            snapshots=self.snapshots,
            snapshot_rhythm=SnapshotRhythm(self.snapshot_every, share_of_time=1_000),
        )
        self.states = {s: self.stage.restore(s, self.committed.get(s)) for s in self.records}
        self.done = {s: self.committed[s].offset if s in self.committed else 0 for s in self.records}
        self.open_outputs: list[Output] = []

    def write(self, record_type: str, partition: int, records: Sequence[Record], hole_every: int = 0) -> Source:
        """Append judged records to an enriched partition."""
        source = Source(self.topics.enriched(record_type), partition)
        known = self.log.enriched_records.setdefault(source, [])
        self.records.setdefault(source, []).extend(records)
        offset = known[-1][0] + 1 if known else self.log.enriched_starts.get(source, 0)
        for number, value in enumerate(values_of(records, record_type, SCHEMA_IDS[record_type])):
            if hole_every and number % hole_every == hole_every - 1:
                offset += 1
            known.append((offset, value))
            offset += 1
        if source not in self.states:
            self.states[source] = self.stage.restore(source, self.committed.get(source))
            self.done[source] = self.states[source].position
        return source

    def left(self, source: Source) -> int:
        """Records behind the worker's position."""
        return sum(offset >= self.done[source] for offset, _ in self.log.enriched_records[source])

    def take(self, source: Source, count: int) -> None:
        """Judge the next records of a partition as one batch."""
        known = self.log.enriched_records[source]
        begin = next(i for i, (offset, _) in enumerate(known) if offset >= self.done[source])
        batch = self.log.batch(source, begin, min(begin + count, len(known)))
        outputs, self.states[source] = self.stage.on_batch(batch, self.states[source])
        self.open_outputs += outputs
        self.done[source] = batch.next_offset

    def tick(self, now_ms: int) -> Sequence[Output]:
        """Ask the clock."""
        outputs, changed = self.stage.due(self.states, now_ms)
        self.states |= changed
        self.open_outputs += outputs
        return outputs

    def commit(self) -> None:
        self.log.append(self.open_outputs, self.family_of)
        self.open_outputs = []
        for source, state in self.states.items():
            self.committed[source] = Committed(self.done[source], self.stage.metadata(source, state))

    def take_all(self, now_ms: int = NOW_MS) -> None:
        """Take what is left, wait until idle, and commit."""
        for source in self.records:
            while self.left(source):
                self.take(source, 1_000)
        self.tick(now_ms)
        while self.tick(now_ms + self.idle_ms):
            self.commit()
        self.commit()

    def as_of_the_first_release(self) -> None:
        """Every upsert as it would be had the first release written it."""
        for (family, _), entries in self.log.agg.items():
            old = SCHEMAS[OLD_AGG_IDS[family]]
            decoded = [decode_record(value, SCHEMAS[AGG_IDS[family]]) for _, _, value in entries]
            values = encode_records(decoded, old, OLD_AGG_IDS[family])
            entries[:] = [(offset, key, value) for (offset, key, _), value in zip(entries, values, strict=True)]

    def upserts(self) -> list[tuple[str, str, Record]]:
        """(family, key, value) of everything committed, in order within a partition."""
        return [
            (family, key.decode(), decode_record(value, SCHEMAS[schema_id_of(value) or 0]))
            for (family, _), entries in self.log.agg.items()
            for _, key, value in entries
        ]

    def latest(self) -> dict[tuple[str, str], Record]:
        """What compaction leaves, without markers."""
        found = {(family, key): value for family, key, value in self.upserts()}
        return {key: value for key, value in found.items() if value["marker_offset"] is None}

    def windows(self) -> dict[Key, dict[str, Any]]:
        """The latest upserts in the model's shape; two keys never mean the same window."""
        latest = [as_window(family, value) for (family, _), value in self.latest().items()]
        assert len({key for key, _ in latest}) == len(latest)
        return dict(latest)

    def expected(self) -> dict[Key, dict[str, Any]]:
        found: dict[Key, dict[str, Any]] = {}
        for source, records in self.records.items():
            found |= expected(records, self.type_of[source.topic], self.bits, self.day_bits, self.zone)
        return found


@pytest.fixture
def world() -> Callable[..., World]:
    return World


@pytest.fixture
def cdr() -> Callable[..., Record]:
    return judged_cdr


@pytest.fixture
def event() -> Callable[..., Record]:
    return judged_event


@pytest.fixture
def some() -> Callable[..., list[Record]]:
    """``some(record_type, count, seed=…, first=…, partition=…, zone=…)``: random judged records, densely numbered."""

    def make(
        record_type: str, count: int, seed: int = 0, first: int = 0, partition: int = 0, zone: str = "UTC"
    ) -> list[Record]:
        rng = random.Random(seed)
        return [random_record(rng, record_type, first + n, partition, zone) for n in range(count)]

    return make


@pytest.fixture
def now_ms() -> int:
    return NOW_MS


class Model:
    """The plain functions above, for tests that bring their own log."""

    expected = staticmethod(expected)
    as_window = staticmethod(as_window)
    values_of = staticmethod(values_of)
    judged_cdr = staticmethod(judged_cdr)


@pytest.fixture
def model() -> type[Model]:
    return Model
