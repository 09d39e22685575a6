//! The commands as a person runs them: the real binary, a broker that it starts, a folder that is thrown away.

mod support;

use serde_json::Value;

use support::{Broker, run, told};

/// The first hour: make a topic, write, read, look at it, change it, read as a group and seek, stop, look into the bucket.
#[test]
fn the_first_hour() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let broker = Broker::start(&data);

    assert_eq!(broker.ok("topic create orders --partitions 2", ""), "created orders with 2 partitions\n");
    let (code, _, error) = broker.run("topic create orders", "");
    assert_eq!(code, 1);
    assert!(error.contains("TOPIC_ALREADY_EXISTS") && error.contains("hint: `forebay topic alter`"), "{error}");
    assert_eq!(broker.json("topic list")[0]["partitions"], 2);

    let produced = broker.ok("topic produce orders --partition 1 -k :", "a:1\nb:2\na:3\n");
    assert_eq!(produced, "3 records acknowledged\n  orders-1: 3, the last at offset 2\n");
    assert_eq!(broker.ok("topic consume orders --to-end", ""), "1\n2\n3\n");
    let record: Value =
        serde_json::from_str(&broker.ok("topic consume orders -p 1 --offset 2 -n 1 --format json", "")).expect("JSON");
    assert_eq!((&record["key"], &record["value"], &record["offset"]), (&"a".into(), &"3".into(), &2.into()));

    broker.ok("topic alter orders --config retention.ms=-1 --partitions 3", "");
    let described = broker.json("topic describe orders");
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        (&described["partitions"][1]["endOffset"], &described["configs"][0]["name"]),
        (&3.into(), &"retention.ms".into())
    );
    let (code, _, error) = broker.run("topic alter orders --config retention.sm=1", "");
    assert_eq!(code, 1);
    assert!(error.contains("retention.ms"), "the nearest key is named: {error}");

    assert_eq!(broker.ok("topic consume orders --group g --from-beginning -n 3", ""), "1\n2\n3\n");
    assert_eq!(broker.json("group describe g")["lag"], 0);
    broker.ok("group seek g --topic orders --to earliest", "");
    assert_eq!(broker.json("group describe g")["lag"], 3);
    assert!(broker.ok("group list", "").contains('g'));
    for printed in ["1\n", "2\n", "3\n"] {
        let one = broker.ok("topic consume orders --group g -n 1", "");
        assert_eq!(one, printed, "a limit cuts inside of a fetch, and the group goes on behind it");
    }
    assert_eq!(broker.json("group describe g")["lag"], 0);
    broker.ok("group delete g", "");
    let (code, _, error) = broker.run("group describe g", "");
    assert_eq!(code, 1, "{error}");

    broker.ok("topic delete orders", "");
    assert_eq!(broker.json("topic list"), Value::Array(Vec::new()));
    broker.ok(&format!("topic undelete orders --admin {}", broker.admin), "");
    assert_eq!(broker.ok("topic consume orders --to-end", ""), "1\n2\n3\n");

    assert_eq!(broker.stop(), 0, "SIGTERM drains");
    let data = data.to_str().expect("UTF-8");
    let (code, out, error) = told(&run(&["bucket", "ls", "--data", data], ""));
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("orders-1"), "{out}");
    let (code, out, error) = told(&run(&["bucket", "fsck", "--data", data], ""));
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.ends_with("clean: everything can be read\n"), "{out}");
}

/// What cannot be followed is usage: exit code 2, and what was probably meant.
#[test]
fn slips_are_told_before_anything_is_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("server.properties");
    std::fs::write(&config, "log.dir = x\n").expect("written");
    let config = config.to_str().expect("UTF-8");
    for (arguments, part) in [
        (vec!["serve", "--config", config], "did you mean log.dirs?"),
        (vec!["dev", "--kafka", "192.0.2.7:9092"], "use a loopback address, or forebay serve"),
        (vec!["dev", "--bucket", "ftp://x"], "a bucket is written"),
        (vec!["topic", "create"], "Usage:"),
        (vec!["topic", "list", "-b", "localhost"], "\"localhost\" is not HOST:PORT"),
        (vec!["topic", "list", "-b", "localhost:9092,other"], "\"other\" is not HOST:PORT"),
        (vec!["bucket", "ls", "--data", "/nonexistent/folder"], "--data names the data folder"),
    ] {
        let (code, _, error) = told(&run(&arguments, ""));
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

/// What is not there is told at once, and a tool that only looks makes nothing.
#[test]
fn what_is_not_there_is_not_made_by_looking() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(folder.path());
    for arguments in [
        "topic consume missing --to-end",
        "topic consume missing --group g -n 1",
        "group seek g --topic missing --to earliest",
        "topic describe missing",
    ] {
        let (code, _, error) = broker.run(arguments, "");
        assert_eq!(code, 1, "{arguments}: {error}");
        assert!(error.contains("UNKNOWN_TOPIC_OR_PARTITION") && error.contains("`forebay topic list`"), "{error}");
    }
    assert_eq!(broker.json("topic list"), Value::Array(Vec::new()));
    broker.ok("topic create orders --partitions 2", "");
    for arguments in ["topic produce orders -p 2", "topic consume orders -p 2 --to-end"] {
        let (code, _, error) = broker.run(arguments, "a\n");
        assert_eq!(code, 1, "{arguments}: {error}");
        assert!(error.contains("partition 2 of orders") && error.contains("2 partitions, counted from 0"), "{error}");
    }
    let (code, _, error) = broker.run("topic alter orders --partitions 1", "");
    assert_eq!(code, 1);
    assert!(error.starts_with("error: give topic orders 1 partitions"), "{error}");

    let data = folder.path().to_str().expect("UTF-8");
    let (code, out, error) = told(&run(&["bucket", "fsck", "--data", data], ""));
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.contains("is in use by a running broker") && out.contains("was not checked"), "{out}{error}");
    assert_eq!(broker.stop(), 0);
}

/// A broker that is not there is told at once, with what would start one.
#[test]
fn a_broker_that_is_not_there_is_told_at_once() {
    // Port 1 needs a right that nobody uses to run a broker.
    let (code, out, error) = told(&run(&["topic", "list", "-b", "127.0.0.1:1"], ""));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("127.0.0.1:1") && error.contains("`forebay dev` starts one"), "{error}");
    let (code, out, error) = told(&run(&["topic", "undelete", "orders", "--admin", "127.0.0.1:1"], ""));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("127.0.0.1:1") && error.contains("--admin names another"), "{error}");
}

/// Two brokers in one folder: the second says which folder is in use and leaves the first alone.
#[test]
fn a_data_folder_has_one_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(folder.path());
    let data = folder.path().to_str().expect("UTF-8");
    let second = ["dev", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data];
    let (code, _, error) = told(&run(&second, ""));
    assert_eq!(code, 1);
    assert!(error.contains("is in use by another process"), "{error}");
    assert_eq!(broker.ok("topic list", ""), "no topics; `forebay topic create NAME` makes one\n");
    assert_eq!(broker.stop(), 0);
}
