-- A first exactly-once job for `forebay dev`: nothing is said about the broker but its address, and the topic is made by
-- the first record. docs/flink.md leads here.
SET 'execution.checkpointing.interval' = '3 s';

CREATE TABLE numbers (
  n BIGINT
) WITH (
  'connector' = 'datagen',
  'rows-per-second' = '500',
  'fields.n.kind' = 'sequence',
  'fields.n.start' = '1',
  'fields.n.end' = '15000'
);

CREATE TABLE squares (
  n BIGINT, square BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = 'squares',
  'properties.bootstrap.servers' = 'localhost:9092',
  'format' = 'json',
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = 'squares'
);

INSERT INTO squares SELECT n, n * n FROM numbers;
