"""The HTTP interface of the embedded ClickHouse, seen through the client that production code uses."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import clickhouse_connect
import httpx
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from telestream_devstack import Parts

pytestmark = pytest.mark.stack


def connect(parts: Parts, database: str, **options: object) -> Client:
    host, port = parts.clickhouse.removeprefix("http://").split(":")
    return clickhouse_connect.get_client(host=host, port=int(port), database=database, **options)


@pytest.fixture
def client(parts: Parts, clickhouse_database: str) -> Client:
    return connect(parts, clickhouse_database)


def test_a_table_written_in_native_format_is_read_back(client: Client) -> None:
    client.command(
        "CREATE TABLE calls (id UInt64, cell Nullable(String), at DateTime64(3, 'UTC')) ENGINE = MergeTree ORDER BY id"
    )
    client.insert(
        "calls", [[1, "208-01-7", 1_700_000_000], [2, None, 1_700_000_001]], column_names=["id", "cell", "at"]
    )
    assert client.query("SELECT id, cell FROM calls ORDER BY id").result_rows == [(1, "208-01-7"), (2, None)]


@pytest.mark.parametrize("compression", [False, "lz4", "zstd", "gzip"])
def test_every_compression_carries_data_both_ways(
    parts: Parts, clickhouse_database: str, compression: bool | str
) -> None:
    client = connect(parts, clickhouse_database, compress=compression)
    client.command("CREATE TABLE wide (id UInt64, text String) ENGINE = MergeTree ORDER BY id")
    rows = [[number, f"text {number}" * 5] for number in range(30_000)]
    client.insert("wide", rows, column_names=["id", "text"])
    assert client.query("SELECT * FROM wide ORDER BY id").result_rows == [tuple(row) for row in rows]


def test_arrow_goes_in_and_comes_out(client: Client) -> None:
    client.command("CREATE TABLE facts (id Int64, name String) ENGINE = MergeTree ORDER BY id")
    table = pa.table({"id": pa.array(range(1000), pa.int64()), "name": [f"n{number}" for number in range(1000)]})
    summary = client.insert_arrow("facts", table)
    assert summary.written_rows == 1000
    back = client.query_arrow("SELECT * FROM facts ORDER BY id")
    assert back.column("id").to_pylist() == list(range(1000))


def test_parameters_arrive_as_they_were_given(client: Client) -> None:
    text = "it's a \\ tab\t and\na line, 'quoted' {not:a} parameter"
    answer = client.query(
        "SELECT {text:String} AS text, {list:Array(String)} AS list, {none:Nullable(Int32)} AS none",
        parameters={"text": text, "list": ["a'b", "c\\d"], "none": None},
    )
    assert answer.first_row == (text, ["a'b", "c\\d"], None)


def test_a_query_after_a_failed_one_gets_its_own_answer(client: Client) -> None:
    for _ in range(5):
        with pytest.raises(DatabaseError, match="boom"):
            client.query("SELECT throwIf(number = 90000, 'boom') FROM numbers(100000)")
        assert client.query("SELECT 42").first_row == (42,)


def test_an_error_has_clickhouses_code_and_text(parts: Parts) -> None:
    answer = httpx.post(parts.clickhouse, content="SELECT * FROM nowhere")
    assert answer.status_code == 404
    assert answer.headers["X-ClickHouse-Exception-Code"] == "60"
    assert answer.text.startswith("Code: 60. DB::Exception:")


def test_a_bad_row_in_an_insert_leaves_nothing_of_it(client: Client, parts: Parts, clickhouse_database: str) -> None:
    client.command("CREATE TABLE strict (id UInt8) ENGINE = MergeTree ORDER BY id")
    answer = httpx.post(
        parts.clickhouse,
        params={"query": "INSERT INTO strict FORMAT JSONEachRow", "database": clickhouse_database},
        content=b'{"id": 1}\n{"id": "many"}\n',
    )
    assert answer.status_code >= 400
    assert client.query("SELECT count() FROM strict").first_row == (0,)


def test_a_large_body_that_is_refused_still_gets_the_reason(parts: Parts, clickhouse_database: str) -> None:
    answer = httpx.post(
        parts.clickhouse,
        params={"query": "INSERT INTO nowhere FORMAT TSV", "database": clickhouse_database},
        content=b"1\n" * 20_000_000,
        timeout=60.0,
    )
    assert answer.headers["X-ClickHouse-Exception-Code"] == "60"


def test_queries_side_by_side_keep_their_own_parameters_and_settings(parts: Parts, clickhouse_database: str) -> None:
    client = httpx.Client()

    def ask(number: int) -> tuple[int, int, str]:
        answer = client.post(
            parts.clickhouse,
            params={"param_n": str(number), "max_block_size": str(1000 + number), "database": clickhouse_database},
            content="SELECT {n:UInt32}, getSetting('max_block_size'), currentDatabase() FORMAT JSONCompactEachRow",
            timeout=30.0,
        )
        first, second, third = answer.raise_for_status().json()
        return int(first), int(second), third

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(200)))
    assert answers == [(number, 1000 + number, clickhouse_database) for number in range(200)]


def test_one_requests_settings_are_gone_in_the_next(parts: Parts) -> None:
    httpx.post(parts.clickhouse, content="SET max_block_size = 777").raise_for_status()
    answer = httpx.post(parts.clickhouse, content="SELECT getSetting('max_block_size')")
    assert answer.text.strip() != "777"


def test_a_session_keeps_what_was_set_in_it(parts: Parts) -> None:
    session = {"session_id": "a-session"}
    httpx.post(parts.clickhouse, params=session, content="SET max_block_size = 777").raise_for_status()
    answer = httpx.post(parts.clickhouse, params=session, content="SELECT getSetting('max_block_size')")
    assert answer.text.strip() == "777"


def test_an_unknown_setting_is_refused(parts: Parts) -> None:
    answer = httpx.post(parts.clickhouse, params={"no_such_setting": "1"}, content="SELECT 1")
    assert answer.status_code == 400
    assert answer.headers["X-ClickHouse-Exception-Code"] == "115"


def test_a_read_only_request_cannot_write_whatever_else_it_sets(parts: Parts, clickhouse_database: str) -> None:
    settings = {"readonly": "1", "max_block_size": "1000", "database": clickhouse_database, "param_a": "5"}
    answer = httpx.post(parts.clickhouse, params=settings, content="SELECT {a:Int8} + getSetting('max_block_size')")
    assert answer.text.strip() == "1005"
    refused = httpx.post(parts.clickhouse, params=settings, content="CREATE TABLE t (a Int8) ENGINE = Memory")
    assert refused.headers["X-ClickHouse-Exception-Code"] == "164"


def test_get_reads_and_does_not_write(parts: Parts, clickhouse_database: str) -> None:
    answer = httpx.get(parts.clickhouse, params={"query": "SELECT 1"})
    assert (answer.status_code, answer.text) == (200, "1\n")
    refused = httpx.get(
        parts.clickhouse, params={"query": f"CREATE TABLE {clickhouse_database}.t (a Int8) ENGINE = Memory"}
    )
    assert refused.status_code >= 400


def test_an_answer_larger_than_memory_is_streamed(parts: Parts) -> None:
    seen = 0
    with httpx.stream("POST", parts.clickhouse, content="SELECT number FROM numbers(20000000)", timeout=60.0) as answer:
        for piece in answer.iter_bytes():
            seen += piece.count(b"\n")
    assert seen == 20_000_000


def test_an_error_in_the_middle_of_an_answer_is_not_taken_for_its_end(parts: Parts) -> None:
    query = "SELECT number, throwIf(number = 9000000) FROM numbers(10000000)"
    with pytest.raises(httpx.HTTPError), httpx.stream("POST", parts.clickhouse, content=query, timeout=60.0) as answer:
        for _ in answer.iter_bytes():
            pass


def test_a_large_body_is_streamed_in(parts: Parts, clickhouse_database: str) -> None:
    where = {"database": clickhouse_database}
    httpx.post(
        parts.clickhouse,
        params=where,
        content="CREATE TABLE big (id UInt64, text String) ENGINE = MergeTree ORDER BY id",
    ).raise_for_status()

    def lines() -> object:
        yield b"INSERT INTO big FORMAT TSV\n"
        for start in range(0, 300_000, 1000):
            yield b"".join(b"%d\t%s\n" % (number, b"x" * 60) for number in range(start, start + 1000))

    httpx.post(parts.clickhouse, params=where, content=lines(), timeout=60.0).raise_for_status()
    answer = httpx.post(parts.clickhouse, params=where, content="SELECT count(), uniqExact(id) FROM big")
    assert answer.text == "300000\t300000\n"


def test_merges_stop_and_mutations_run(client: Client) -> None:
    client.command("CREATE TABLE rows (id UInt64, v UInt64) ENGINE = ReplacingMergeTree(v) ORDER BY id")
    client.command("SYSTEM STOP MERGES rows")
    client.insert("rows", [[1, 1]], column_names=["id", "v"])
    client.insert("rows", [[1, 2]], column_names=["id", "v"])
    assert client.query("SELECT count() FROM rows").first_row == (2,)
    assert client.query("SELECT id, v FROM rows FINAL").result_rows == [(1, 2)]
    client.command("SYSTEM START MERGES rows")
    client.command("ALTER TABLE rows DELETE WHERE v = 1 SETTINGS mutations_sync = 1")
    client.command("OPTIMIZE TABLE rows FINAL")
    assert client.query("SELECT v FROM rows").result_rows == [(2,)]


def test_inserts_from_two_clients_at_once_all_arrive(parts: Parts, clickhouse_database: str) -> None:
    connect(parts, clickhouse_database).command("CREATE TABLE sums (id UInt64) ENGINE = MergeTree ORDER BY id")
    barrier = threading.Barrier(2)

    def write(start: int) -> None:
        client = connect(parts, clickhouse_database)
        barrier.wait(timeout=30)
        for piece in range(10):
            client.insert("sums", [[start + piece * 100 + row] for row in range(100)], column_names=["id"])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (0, 100_000)))
    assert connect(parts, clickhouse_database).query("SELECT uniqExact(id) FROM sums").first_row == (2000,)
