-- Every way in which a bounded source finds its beginning and its end, and every column that a record brings beside its
-- value. Names in braces are filled in by cargo xtask clients flink, which knows what each query must print.
SET 'execution.runtime-mode' = 'batch';
SET 'sql-client.execution.result-mode' = 'tableau';
SET 'parallelism.default' = '2';

CREATE TABLE flights (
  carrier STRING,
  line STRING,
  part INT METADATA FROM 'partition' VIRTUAL,
  place BIGINT METADATA FROM 'offset' VIRTUAL,
  written TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  kind STRING METADATA FROM 'timestamp-type' VIRTUAL,
  epoch INT METADATA FROM 'leader-epoch' VIRTUAL,
  headers MAP<STRING, BYTES> METADATA VIRTUAL,
  topic STRING METADATA VIRTUAL
) WITH (
  'connector' = 'kafka',
  'topic' = '{topic}',
  'properties.bootstrap.servers' = '{bootstrap}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'key.format' = 'raw',
  'key.fields' = 'carrier',
  'value.format' = 'raw',
  'value.fields-include' = 'EXCEPT_KEY'
);

CREATE TABLE by_pattern (
  line STRING, topic STRING METADATA VIRTUAL
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '{pattern}',
  'properties.bootstrap.servers' = '{bootstrap}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'raw'
);

SELECT 'whole' AS query, part, COUNT(*) AS n, MIN(place) AS low, MAX(place) AS high FROM flights GROUP BY part;

SELECT 'offsets' AS query, part, COUNT(*) AS n, MIN(place) AS low, MAX(place) AS high
FROM flights /*+ OPTIONS(
  'scan.startup.mode' = 'specific-offsets', 'scan.startup.specific-offsets' = '{from-offsets}',
  'scan.bounded.mode' = 'specific-offsets', 'scan.bounded.specific-offsets' = '{to-offsets}') */
GROUP BY part;

SELECT 'times' AS query, part, COUNT(*) AS n, MIN(place) AS low, MAX(place) AS high
FROM flights /*+ OPTIONS(
  'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = '{from-time}',
  'scan.bounded.mode' = 'timestamp', 'scan.bounded.timestamp-millis' = '{to-time}') */
GROUP BY part;

-- A time that no record has reached: the source begins at the end.
SELECT 'future' AS query, COUNT(*) AS n
FROM flights /*+ OPTIONS('scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = '{future}') */;

-- The group has committed in every partition, and these offsets are where it goes on.
SELECT 'group' AS query, part, COUNT(*) AS n, MIN(place) AS low, MAX(place) AS high
FROM flights /*+ OPTIONS('scan.startup.mode' = 'group-offsets', 'properties.group.id' = '{group}') */
GROUP BY part;

-- A group that nobody knows.
SELECT 'reset' AS query, COUNT(*) AS n
FROM flights /*+ OPTIONS(
  'scan.startup.mode' = 'group-offsets', 'properties.group.id' = '{group}-unknown',
  'properties.auto.offset.reset' = 'earliest') */;

-- Up to where a group has committed.
SELECT 'up to' AS query, part, COUNT(*) AS n, MIN(place) AS low, MAX(place) AS high
FROM flights /*+ OPTIONS('scan.bounded.mode' = 'group-offsets', 'properties.group.id' = '{group}') */
GROUP BY part;

SELECT 'columns' AS query, topic, kind, COUNT(*) AS n, MIN(CARDINALITY(headers)) AS headers,
  COUNT(epoch) AS epochs, COUNT(DISTINCT carrier) AS carriers, MAX(UNIX_TIMESTAMP(CAST(written AS STRING))) > 0 AS timed
FROM flights GROUP BY topic, kind;

SELECT 'pattern' AS query, topic, COUNT(*) AS n FROM by_pattern GROUP BY topic;
