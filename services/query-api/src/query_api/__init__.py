"""ClickHouse and the tail of the aggregates as REST."""
