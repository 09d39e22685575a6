-- Flights and minutes of delay by carrier, without a window: every departure changes its carrier's row.
-- Names in braces are filled in by cargo xtask clients flink; all else is Flink's default.
CREATE TABLE flights (
  `year` INT, `month` INT, `day` INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT, sched_arr_time INT,
  arr_delay INT, carrier STRING, flight INT, tailnum STRING, origin STRING, dest STRING, air_time INT, distance INT,
  `hour` INT, `minute` INT, time_hour STRING
) WITH (
  'connector' = 'kafka',
  'topic' = '{from}',
  'properties.bootstrap.servers' = '{bootstrap}',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'csv',
  'csv.null-literal' = 'NA'
);

CREATE TABLE carriers (
  carrier STRING, flights BIGINT, delay INT, PRIMARY KEY (carrier) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = '{to}',
  'properties.bootstrap.servers' = '{bootstrap}',
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = '{to}',
  'key.format' = 'csv',
  'value.format' = 'csv',
  'value.csv.null-literal' = 'NA'
);

INSERT INTO carriers SELECT carrier, COUNT(*), SUM(dep_delay) FROM flights GROUP BY carrier;
