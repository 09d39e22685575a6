-- Departures by hour and airport, by the time they really left: a window closes when no earlier departure can come.
-- Names in braces are filled in by cargo xtask clients flink; all else is Flink's default.
CREATE TABLE flights (
  `year` INT, `month` INT, `day` INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT, sched_arr_time INT,
  arr_delay INT, carrier STRING, flight INT, tailnum STRING, origin STRING, dest STRING, air_time INT, distance INT,
  `hour` INT, `minute` INT, time_hour STRING,
  -- A cancelled flight never left; its scheduled time still moves the watermark.
  departure AS TIMESTAMPADD(
    MINUTE, `minute` + COALESCE(dep_delay, 0), TO_TIMESTAMP(time_hour, 'yyyy-MM-dd''T''HH:mm:ss''Z''')),
  WATERMARK FOR departure AS departure - INTERVAL '{allowance}' HOUR
) WITH (
  'connector' = 'kafka',
  'topic' = '{from}',
  'properties.bootstrap.servers' = '{bootstrap}',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'csv',
  'csv.null-literal' = 'NA'
);

CREATE TABLE hours (
  `hour` STRING, origin STRING, flights BIGINT, delay INT, worst INT
) WITH (
  'connector' = 'kafka',
  'topic' = '{to}',
  'properties.bootstrap.servers' = '{bootstrap}',
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = '{to}',
  'format' = 'csv',
  'csv.disable-quote-character' = 'true'
);

INSERT INTO hours
SELECT DATE_FORMAT(window_start, 'yyyy-MM-dd HH:mm'), origin, COUNT(*), SUM(dep_delay), MAX(dep_delay)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departure), INTERVAL '1' HOUR))
WHERE dep_delay IS NOT NULL
GROUP BY window_start, window_end, origin;
