-- How far the sink has written. Written after the rows it speaks for; the farthest wins, so a late sink cannot turn it back.
CREATE TABLE IF NOT EXISTS {database}.sink_position
(
    topic String,
    partition UInt32,
    topic_id String,
    generation UInt32,
    kind LowCardinality(String),
    subject LowCardinality(String),
    next_offset UInt64,
    src_next Nullable(UInt64),
    written_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(next_offset)
ORDER BY (topic, partition, topic_id);

-- Which generation of each type people see. One row is one activation: every view reads the newest in one scalar
-- subquery, so a single insert switches them all at once, also within a statement that reads several.
CREATE TABLE IF NOT EXISTS {database}.activation
(
    version UInt64,
    generations Map(String, UInt32),
    activated_at DateTime64(3, 'UTC'),
    reason String
)
ENGINE = MergeTree
ORDER BY version;

INSERT INTO {database}.activation
SELECT 1, map('cdr', toUInt32(1), 'network', toUInt32(1)), now64(3, 'UTC'), 'first installation'
WHERE (SELECT count() FROM {database}.activation) = 0;
