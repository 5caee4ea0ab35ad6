"""`python -m telestream_devstack.clickhouse_server --path DIR --port N`: one process per data path."""

from __future__ import annotations

import argparse
import fcntl
import logging
import sys
from pathlib import Path

import uvicorn

from telestream_devstack.clickhouse_server.engine import Engine
from telestream_devstack.clickhouse_server.http import Application

WORKERS = 6

# A laptop's share: what a query may take, and caches that otherwise grow to gigabytes.
CONFIG = """<clickhouse>
  <logger><level>warning</level></logger>
  <max_server_memory_usage>{server_bytes}</max_server_memory_usage>
  <mark_cache_size>33554432</mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <index_mark_cache_size>8388608</index_mark_cache_size>
  <primary_index_cache_size>33554432</primary_index_cache_size>
  <query_condition_cache_size>8388608</query_condition_cache_size>
  <compiled_expression_cache_size>8388608</compiled_expression_cache_size>
  <parquet_metadata_cache_size>8388608</parquet_metadata_cache_size>
  <background_pool_size>2</background_pool_size>
  <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
  <max_thread_pool_size>300</max_thread_pool_size>
  <merge_tree>
    <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
  </merge_tree>
</clickhouse>
"""

OPTIONS = {
    "async_insert": "0",  # an insert that is acknowledged is there
    "implicit_select": "0",
    "max_memory_usage": "1200000000",
    "max_bytes_before_external_group_by": "300000000",
    "max_bytes_before_external_sort": "300000000",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="telestream_devstack.clickhouse_server", description=__doc__)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--memory", type=int, default=2_000_000_000, help="bytes the engine may take in all")
    arguments = parser.parse_args()
    arguments.path.mkdir(parents=True, exist_ok=True)
    lock = (arguments.path / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit(f"{arguments.path} is in use by another process: stop that one first") from None
    config = arguments.path / "server.xml"
    config.write_text(CONFIG.format(server_bytes=arguments.memory))
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    engine = Engine(arguments.path / "data", {"config-file": str(config), **OPTIONS})
    uvicorn.run(
        Application(engine, WORKERS),
        host=arguments.host,
        port=arguments.port,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
