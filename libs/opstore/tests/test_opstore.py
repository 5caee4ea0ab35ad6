"""The operational store on a real PostgreSQL: migrations, keys, fingerprints and the ledger of files."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from telestream_devstack.postgres import psql
from telestream_opstore import (
    ApiKey,
    FileLedger,
    KeyCache,
    NewFile,
    OpstoreError,
    OpstoreUnavailable,
    Progress,
    RefusedRow,
    WrongKey,
    check_fingerprints,
    create_key,
    ensure_development_key,
    list_keys,
    migrate,
    open_pool,
    revoke_key,
)
from telestream_opstore.files import REFUSED_KEPT

pytestmark = pytest.mark.stack
T = TypeVar("T")
NOBODY = "postgresql://telestream:a-secret-password@127.0.0.1:9/telestream"


@pytest.fixture
def dsn(postgres_dsn: str) -> str:
    migrate(postgres_dsn)
    return postgres_dsn


def with_pool(dsn: str, work: Callable[[Any], Awaitable[T]]) -> T:
    async def run() -> T:
        pool = await open_pool(dsn)
        try:
            return await work(pool)
        finally:
            await pool.close()

    return asyncio.run(run())


def test_migrations_are_applied_once_also_by_several_at_a_time(postgres_dsn: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = [names for names in pool.map(migrate, [postgres_dsn] * 4) if names]
    assert len(applied) == 1
    assert applied[0][0] == "0001_spine.sql"
    assert migrate(postgres_dsn) == []


def test_a_database_of_a_newer_version_is_left_alone(dsn: str) -> None:
    psql(dsn, "INSERT INTO schema_migration (name) VALUES ('9999_future.sql')")
    with pytest.raises(OpstoreError, match=r"9999_future\.sql"):
        migrate(dsn)


def test_postgresql_that_is_away_is_one_clear_line_without_the_password() -> None:
    with pytest.raises(OpstoreUnavailable) as away:
        migrate(NOBODY)
    assert "127.0.0.1:9/telestream does not answer" in str(away.value)
    assert "a-secret-password" not in str(away.value)


def test_a_key_is_shown_once_and_kept_as_a_hash(dsn: str) -> None:
    key, row = create_key(dsn, "switch", ["ingest"], ["msc-1"])
    assert key not in repr(list_keys(dsn))
    assert row.may("ingest")
    assert not row.may("admin")
    assert row.may_send("msc-1")
    assert not row.may_send("msc-2")
    assert row.only_source == "msc-1"
    revoked = revoke_key(dsn, row.id)
    assert revoked is not None
    assert revoked.revoked_at is not None
    assert revoke_key(dsn, row.id) == revoked
    assert revoke_key(dsn, 10**9) is None


@pytest.mark.parametrize(("roles", "sources"), [(["king"], ["*"]), ([], ["*"]), (["ingest"], [])])
def test_a_key_without_a_known_role_or_a_source_is_not_made(dsn: str, roles: list[str], sources: list[str]) -> None:
    with pytest.raises(OpstoreError, match="key 'x'"):
        create_key(dsn, "x", roles, sources)
    assert list_keys(dsn) == []


def test_the_development_key_may_everything_also_after_it_was_revoked(dsn: str) -> None:
    ensure_development_key(dsn, "dev")
    revoke_key(dsn, list_keys(dsn)[0].id)
    ensure_development_key(dsn, "dev")
    [row] = list_keys(dsn)
    assert row.revoked_at is None
    assert row.may("admin")
    assert row.may_send("whoever")


def test_a_key_works_at_once_and_stops_within_five_seconds_of_its_revocation(dsn: str) -> None:
    async def work(pool: Any) -> float:
        cache = KeyCache(dsn, pool)
        await cache.start()
        loop = asyncio.get_running_loop()
        key, row = await loop.run_in_executor(None, create_key, dsn, "new", ["read"], ["*"])
        assert (await cache.check(key)) == row
        assert await cache.check("unknown") is None
        await loop.run_in_executor(None, revoke_key, dsn, row.id)
        began = time.monotonic()
        while await cache.check(key) is not None:
            await asyncio.sleep(0.05)
        await cache.stop()
        return time.monotonic() - began

    assert with_pool(dsn, work) < 5


def test_without_postgresql_known_keys_go_on_and_unknown_ones_stay_unknown(dsn: str) -> None:
    key, row = create_key(dsn, "known", ["read"], ["*"])
    database = dsn.rsplit("/", 1)[1]
    admin = dsn.rsplit("/", 1)[0] + "/telestream"

    async def work(pool: Any) -> ApiKey | None:
        cache = KeyCache(dsn, pool)
        await cache.start()
        psql(admin, f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        psql(admin, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        with pytest.raises(OpstoreUnavailable):
            await cache.check("another")
        while cache.trouble is None:
            await asyncio.sleep(0.1)
        found = await cache.check(key)
        await cache.stop()
        return found

    try:
        assert with_pool(dsn, work) == row
    finally:
        psql(admin, f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')


def test_another_secret_than_at_first_start_is_refused_without_showing_it(dsn: str) -> None:
    check_fingerprints(dsn, {"identity": b"first", "permanent": b"second"})
    check_fingerprints(dsn, {"identity": b"first", "permanent": b"second"})
    with pytest.raises(WrongKey, match="the permanent key is not the one") as wrong:
        check_fingerprints(dsn, {"identity": b"first", "permanent": b"other"})
    assert "other" not in str(wrong.value).replace("another", "")


def upload(name: str = "f.csv", **changes: Any) -> NewFile:
    return NewFile(
        **{"source": "s", "name": name, "type": "cdr", "profile": "generic", "profile_digest": "p", "instance": "i"}
        | changes
    )


def test_one_content_is_loaded_once_unless_its_load_failed(dsn: str) -> None:
    async def work(pool: Any) -> None:
        ledger = FileLedger(dsn, pool)
        first = await ledger.begin_upload(upload("a"))
        second = await ledger.begin_upload(upload("b"))
        loading, nobody = await ledger.begin_load(first.file_id, "digest", 10, {"0": 5})
        assert (loading.state, loading.sent_from, nobody) == ("LOADING", {"0": 5}, None)
        duplicate, found = await ledger.begin_load(second.file_id, "digest", 10, {})
        assert (duplicate.state, duplicate.duplicate_of) == ("DUPLICATE", first.file_id)
        assert found is not None
        assert found.file_id == first.file_id
        for other in (upload("c", source="t"), upload("d", profile_digest="q"), upload("e", allow_age_days=9)):
            entry = await ledger.begin_upload(other)
            assert (await ledger.begin_load(entry.file_id, "digest", 10, {}))[1] is None
        await ledger.finish(first.file_id, "FAILED", "why")
        again = await ledger.begin_upload(upload("a"))
        assert (await ledger.begin_load(again.file_id, "digest", 10, {}))[1] is None

    with_pool(dsn, work)


def test_an_upload_under_the_same_name_starts_over(dsn: str) -> None:
    async def work(pool: Any) -> None:
        ledger = FileLedger(dsn, pool)
        first = await ledger.begin_upload(upload())
        second = await ledger.begin_upload(upload())
        left = await ledger.get(first.file_id)
        assert left is not None
        assert (left.state, left.problem) == ("FAILED", "started over")
        latest = await ledger.latest("s", "cdr", "f.csv")
        assert latest == second
        assert await ledger.unfinished("i") == []

    with_pool(dsn, work)


def test_progress_is_booked_with_its_refused_rows_but_not_endlessly_many(dsn: str) -> None:
    async def work(pool: Any) -> None:
        ledger = FileLedger(dsn, pool)
        entry = await ledger.begin_upload(upload())
        await ledger.begin_load(entry.file_id, "digest", 10, {"0": 0})
        many = REFUSED_KEPT - 1
        rows = [RefusedRow(line, "bad_time", "started_at", "row") for line in range(many)]
        codes = {"bad_time": many}
        await ledger.advance(entry.file_id, Progress(5, 6, many + 7, 7, codes, {"bytes": 2**70}, {"0": 7}), rows)
        more = [RefusedRow(line, "bad_time", None, "row") for line in range(many, many + 5)]
        codes = {"bad_time": many + 5}
        await ledger.advance(entry.file_id, Progress(9, 9, many + 12, 7, codes, {"bytes": 1}, {"0": 9}), more)
        booked = await ledger.get(entry.file_id)
        assert booked is not None
        assert (booked.read_bytes, booked.rows, booked.accepted, booked.refused) == (9, many + 12, 7, many + 5)
        assert (booked.refused_by_code, booked.totals, booked.sent_from) == (codes, {"bytes": 1}, {"0": 9})
        assert len(await ledger.refused_rows(entry.file_id)) == REFUSED_KEPT
        assert [found.file_id for found in await ledger.unfinished("i")] == [entry.file_id]

    with_pool(dsn, work)


def test_lists_are_newest_first_by_page_and_by_source(dsn: str) -> None:
    async def work(pool: Any) -> None:
        ledger = FileLedger(dsn, pool)
        ids = [(await ledger.begin_upload(upload(str(n), source="ab"[n % 2]))).file_id for n in range(6)]
        assert [entry.file_id for entry in await ledger.recent(4)] == ids[:1:-1]
        assert [entry.file_id for entry in await ledger.recent(4, before=ids[2])] == ids[1::-1]
        assert [entry.file_id for entry in await ledger.recent(9, sources=["a"])] == ids[4::-2]

    with_pool(dsn, work)


def test_ranges_of_batch_ids_never_meet_each_other_or_a_file(dsn: str) -> None:
    async def work(pool: Any) -> None:
        ledger = FileLedger(dsn, pool)
        ranges = sorted(await asyncio.gather(*(ledger.batch_range() for _ in range(4))))
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))
        assert (await ledger.begin_upload(upload())).file_id < ranges[0][0]

    with_pool(dsn, work)
