"""What the sink decides: pure, without Kafka, ClickHouse or a clock."""
