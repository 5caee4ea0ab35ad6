"""Topics to ClickHouse: ordered and idempotent."""
