"""Record by record: for small requests, and for the rows of a file that the columns are not sure about."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ingest_gateway.domain.accepted import OUTPUT, Entry
from ingest_gateway.domain.fields import INPUT_FIELDS
from ingest_gateway.domain.identity import PLAN, REGION, UID, Party, joined, with_occurrence
from ingest_gateway.domain.refusal import PRECEDENCE, Refused, shown_name
from ingest_gateway.domain.resolve import Resolver
from ingest_gateway.domain.values import Parse, parser

Scanned = dict[str, Any]
Fault = tuple[str, str | None, str]
"""Code, field and message."""

NO_SUBSCRIBER = "one of msisdn, imsi and line, or route_in where there is no subscriber"
NO_IDENTIFIER = "msisdn or imsi"
_EVENT_ID_SHOWN = 128
_MEASURES = (
    "latency_ms",
    "throughput_dl_mbps",
    "throughput_ul_mbps",
    "packet_loss_ratio",
    "rsrp_dbm",
    "rsrq_db",
    "sinr_db",
    "prb_utilisation_ratio",
)


class Direct:
    """Judges records of one type. ``parsers`` may replace or add to the type's own (profiles do)."""

    def __init__(
        self,
        record_type: str,
        resolver: Resolver,
        from_json: bool,
        parsers: Mapping[str, Parse] | None = None,
        keep_identical: bool = False,
    ) -> None:
        fields = INPUT_FIELDS[record_type]
        self.record_type = record_type
        self._resolver, self._identity = resolver, resolver.identity
        self._parsers = {field.name: parser(field, resolver, from_json) for field in fields} | dict(parsers or {})
        self._rank = {name: rank for rank, name in enumerate(self._parsers)}
        self._required = tuple(field.name for field in fields if field.required)
        self._seen: Counter[str] | None = Counter() if keep_identical else None
        self._assemble: Callable[[Scanned, str], list[Entry]] = {
            "cdr": self._cdr,
            "network": self._network,
            "customer": self._customer,
        }.get(record_type, self._reference)

    def judge(self, record: Mapping[str, Any], source: str) -> list[Entry] | Fault:
        """The records to send (a customer with two identifiers is two), or the fault that counts."""
        parsers = self._parsers
        scanned: Scanned = {}
        faults: list[Fault] = []
        for name, value in record.items():
            if value is None or value == "":
                continue
            parse = parsers.get(name)
            if parse is None:
                faults.append(("unknown_field", shown_name(name), "no such field; what has no field goes into ext"))
                continue
            try:
                scanned[name] = parse(value)
            except Refused as refused:
                faults.append((refused.code, name, f"must be {refused.expected}"))
        for name in self._required:
            if name not in scanned and (not faults or all(field != name for _, field, _ in faults)):
                faults.append(("missing_field", name, "must be there"))
        if not faults:
            try:
                return self._assemble(scanned, source)
            except Refused as refused:
                return refused.code, refused.args[1] if len(refused.args) > 1 else None, f"must be {refused.expected}"
        return min(faults, key=lambda fault: (PRECEDENCE[fault[0]], self._rank.get(fault[1] or "", -1)))

    def occurrence(self, fields: str) -> str:
        """``fields`` with the n-th occurrence where identical rows are kept."""
        if self._seen is None:
            return fields
        self._seen[fields] += 1
        return with_occurrence(fields, self._seen[fields])

    def _cdr(self, s: Scanned, source: str) -> list[Entry]:
        get = s.get
        imsi: Party | None = get("imsi")
        subscriber: Party | None = get("msisdn") or imsi or get("line") or get("subscriber")
        route_in = get("route_in")
        if subscriber is None and route_in is None:
            raise _missing("msisdn", NO_SUBSCRIBER)
        peer: Party | None = get("peer")
        cell: Party | None = get("cell_id")
        last_cell: Party | None = get("last_cell_id")
        imei: Party | None = get("imei")
        plmn: Party | None = get("serving_plmn")
        session = get("session_id")
        event_id = get("event_id")
        cell_id = cell.id if cell is not None else None
        identity = self._identity
        if event_id is not None:
            uid = identity.uid_by_id(source, event_id)
        else:
            fields = joined(
                (
                    source,
                    subscriber.plain if subscriber is not None else route_in,
                    peer.plain if peer is not None else None,
                    s["started_at"],
                    get("duration_ms"),
                    s["record_type"],
                    session,
                    get("record_seq"),
                    get("node_id"),
                    get("node_seq"),
                    cell_id,
                    get("bytes_up"),
                    get("bytes_down"),
                )
            )
            uid = identity.uid_by_fields(self.occurrence(fields))
        if subscriber is None:
            subscriber_id, kind, shard = uid, "NONE", identity.shard(UID, uid)
        else:
            subscriber_id, kind, shard = subscriber.id, subscriber.kind, subscriber.shard
        row = (
            uid,
            s["started_at"],
            s["record_type"],
            s["status"],
            subscriber_id,
            kind,
            cell_id,
            get("duration_ms"),
            get("bytes_up"),
            get("bytes_down"),
            get("charge_micros"),
            get("currency"),
            get("direction"),
            peer.id if peer is not None else None,
            peer.kind if peer is not None else None,
            peer.country if peer is not None else None,
            imsi.plmn if imsi is not None else None,
            plmn.id if plmn is not None else cell.plmn if cell is not None else None,
            get("is_partial", False),
            get("rat"),
            get("domain"),
            get("answered_at"),
            get("holding_ms"),
            get("pdd_ms"),
            last_cell.id if last_cell is not None else None,
            get("cause_family"),
            get("cause_code"),
            get("released_by"),
            identity.session(session) if session is not None else None,
            get("record_seq"),
            get("closing_reason"),
            get("node_id"),
            get("node_seq"),
            imsi.id if imsi is not None else None,
            imei.id if imei is not None else None,
            imei.prefix if imei is not None else None,
            peer.prefix if peer is not None else None,
            get("apn"),
            route_in,
            get("route_out"),
            get("segments"),
            get("rating_group"),
            get("ext") or [],
        )
        return [Entry(row, shard, subscriber_id.encode())]

    def _network(self, s: Scanned, source: str) -> list[Entry]:
        get = s.get
        cell: Party = s["cell_id"]
        imsi: Party | None = get("imsi")
        target: Party | None = get("target_cell_id")
        session = get("session_id")
        event_id = get("event_id")
        if event_id is not None:
            uid = self._identity.uid_by_id(source, event_id)
        else:
            fields = joined(
                (
                    source,
                    cell.id,
                    s["occurred_at"],
                    s["event_type"],
                    imsi.plain if imsi is not None else None,
                    session,
                    target.id if target is not None else None,
                    get("alarm_id"),
                    get("alarm_state"),
                    get("cause_code"),
                    get("sample_count"),
                    int(s["success"]) if "success" in s else None,
                    *(_bits(get(name)) for name in _MEASURES),
                )
            )
            uid = self._identity.uid_by_fields(self.occurrence(fields))
        s["event_uid"] = uid
        s["cell_id"] = cell.id
        s["imsi"] = imsi.id if imsi is not None else None
        s["target_cell_id"] = target.id if target is not None else None
        s["session_id"] = self._identity.session(session) if session is not None else None
        s["ext"] = get("ext") or []
        return [Entry(tuple([s.get(name) for name in OUTPUT["network"]]), cell.shard, cell.id.encode())]

    def _customer(self, s: Scanned, source: str) -> list[Entry]:
        identifiers: list[Party] = [s[name] for name in ("msisdn", "imsi") if name in s]
        if not identifiers:
            raise _missing("msisdn", NO_IDENTIFIER)
        body = self._body(s, 4)
        return [
            Entry(
                (party.id, party.kind, s["valid_from"], *body),
                party.shard,
                party.id.encode(),
            )
            for party in identifiers
        ]

    def _reference(self, s: Scanned, source: str) -> list[Entry]:
        body = self._body(s, 3)
        if self.record_type == "cell":
            cell: Party = s["cell_id"]
            return [Entry((cell.id, s["valid_from"], *body), cell.shard, cell.id.encode())]
        domain = REGION if self.record_type == "region" else PLAN
        key: str = s[OUTPUT[self.record_type][0]]
        return [Entry((key, s["valid_from"], *body), self._identity.shard(domain, key), key.encode())]

    def _body(self, s: Scanned, first: int) -> tuple[Any, ...]:
        """``deleted`` and the fields after it; a deletion's are null."""
        values = [s.get(name) for name in OUTPUT[self.record_type][first:]]
        deleted = s.get("deleted", False) or all(value is None for value in values)
        return (deleted, *([None] * len(values) if deleted else values))


def event_id_of(record: Any) -> str | None:
    """The producer's own id, to be named back to it."""
    event_id = record.get("event_id") if isinstance(record, dict) else None
    return event_id[:_EVENT_ID_SHOWN] if isinstance(event_id, str) else None


def _bits(value: float | None) -> int | None:
    """A double as a whole number: the same value is the same text, however it was written."""
    return None if value is None else int(struct.unpack("<q", struct.pack("<d", value))[0])


def _missing(field: str, expected: str) -> Refused:
    refused = Refused("missing_field", expected)
    refused.args = ("missing_field", field)
    return refused
