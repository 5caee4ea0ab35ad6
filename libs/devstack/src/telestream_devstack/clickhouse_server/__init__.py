"""ClickHouse in this process (chdb) behind ClickHouse's own HTTP interface, so that every client is a real one."""
