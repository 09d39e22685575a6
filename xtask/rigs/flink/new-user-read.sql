-- What new-user.sql left, read by Flink itself: committed records up to the end of the topic.
SET 'execution.runtime-mode' = 'batch';
SET 'sql-client.execution.result-mode' = 'tableau';

CREATE TABLE squares (
  n BIGINT, square BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = 'squares',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.isolation.level' = 'read_committed',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json'
);

SELECT COUNT(*) AS numbers, COUNT(DISTINCT n) AS distinct_numbers, MAX(n) AS last FROM squares;
