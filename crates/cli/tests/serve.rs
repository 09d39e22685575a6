//! `forebay serve` as an operator runs it: a properties file, the environment, what is refused, and a drain.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use support::{Broker, forebay, run, terminate, told};

/// A folder with a configuration in it, and room for data.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// A configuration for this machine on free ports; `more` are further lines.
    fn config(&self, more: &str) -> PathBuf {
        let path = self.0.path().join("server.properties");
        let data = self.data();
        let lines = format!(
            "# A broker of a test\n\
             listeners = PLAINTEXT://localhost:0\n\
             forebay.admin.listener : 127.0.0.1:0\n\
             log.dirs={}\n\
             {more}\n",
            data.display()
        );
        std::fs::write(&path, lines).expect("written");
        path
    }

    fn serve(&self, more: &str) -> Command {
        let mut command = forebay();
        command.args(["serve", "--log-level", "warn", "--config"]).arg(self.config(more));
        command
    }

    /// Exit code and what is said of a configuration that no broker starts with.
    fn refused(&self, more: &str) -> (i32, String) {
        let (code, out, error) = told(&self.serve(more).output().expect("the binary runs"));
        assert_eq!(out, "", "nothing is ready");
        (code, error)
    }
}

/// A configuration's value as a client is told it, and where it comes from.
fn config_of(broker: &Broker, topic: &str, name: &str) -> (Value, Value) {
    let described = broker.json(&format!("topic describe {topic} --all"));
    let configs = described["configs"].as_array().expect("configs").clone();
    let found = configs.into_iter().find(|config| config["name"] == name).expect("every config is told");
    (found["value"].clone(), found["from"].clone())
}

/// What the file says holds, the environment counts before the file and a flag before both; after SIGTERM everything
/// acknowledged is in the bucket and nothing in the write-ahead log only, and the next start has it all.
#[test]
fn a_file_is_served_and_drained() {
    let place = Place::new();
    let keys = "num.partitions=3\n\
                log.retention.hours=2\n\
                forebay.wal=disk\n\
                message.max.bytes=100000\n\
                forebay.wal.max.bytes=1048576\n\
                forebay.wal.segment.bytes=262144\n\
                # nothing is uploaded by age while this test runs\n\
                forebay.upload.ms=86400000";
    let broker = Broker::of(place.serve(keys));
    assert_eq!(broker.ok("topic create orders", ""), "created orders with 3 partitions\n");
    assert_eq!(config_of(&broker, "orders", "retention.ms"), ("7200000".into(), "broker".into()));
    assert_eq!(config_of(&broker, "orders", "max.message.bytes"), ("100000".into(), "broker".into()));
    let produced = broker.ok("topic produce orders --partition 2", "a\nb\nc\n");
    assert_eq!(produced, "3 records acknowledged\n  orders-2: 3, the last at offset 2\n");
    assert_eq!(broker.stop(), 0, "SIGTERM drains");

    let data = place.data();
    let segments = std::fs::read_dir(data.join("wal")).expect("a write-ahead log").map(|entry| {
        let entry = entry.expect("listed");
        entry.metadata().expect("of a file").len()
    });
    assert!(segments.into_iter().all(|size| size == 262_144), "segments are as large as the file says");
    let fsck = ["--format", "json", "bucket", "fsck", "--data", data.to_str().expect("UTF-8")];
    let (code, out, error) = told(&run(&fsck, ""));
    assert_eq!(code, 0, "{error}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&report["clean"], &report["walBatches"], &report["walBytes"]), (&true.into(), &0.into(), &0.into()));

    let mut again = place.serve(keys);
    again.env("FOREBAY_NUM_PARTITIONS", "5").env("FOREBAY_ADMIN_LISTENER", "nowhere").args(["--admin", "127.0.0.1:0"]);
    let broker = Broker::of(again);
    assert_eq!(broker.ok("topic consume orders --to-end", ""), "a\nb\nc\n");
    assert_eq!(broker.ok("topic create more", ""), "created more with 5 partitions\n");
    assert_eq!(broker.stop(), 0);
}

/// What a file cannot say is told with the line's key and what it may be, before anything is made: exit code 2.
#[test]
fn a_file_that_cannot_be_followed_is_refused() {
    let place = Place::new();
    for (line, parts) in [
        ("log.retention.sm=1", vec!["server.properties: unknown broker config log.retention.sm", "log.retention.ms?"]),
        ("num.partitions=none", vec!["\"none\"", "num.partitions", "a whole number from 1 to"]),
        ("num.partitions=1\nnum.partitions=2", vec!["server.properties: line 6: num.partitions was set before"]),
        ("forebay.wal.segment.bytes=1048576", vec!["forebay.wal.segment.bytes (1048576) to 1138688 or more"]),
        ("forebay.wal.max.bytes=1000000", vec!["forebay.wal.max.bytes (1000000) has no room for two segments"]),
    ] {
        let (code, error) = place.refused(line);
        assert_eq!(code, 2, "{line}: {error}");
        for part in parts {
            assert!(error.contains(part), "{line}: {part:?} is in {error}");
        }
    }
    let (code, _, error) = told(&run(&["serve", "--config", "/nonexistent/server.properties"], ""));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("/nonexistent/server.properties"), "{error}");
    let mut variable = place.serve("");
    let (code, _, error) = told(&variable.env("FOREBAY_UPLOAD_MS", "0").output().expect("the binary runs"));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("forebay.upload.ms"), "{error}");
    let mut variable = place.serve("");
    variable.env("FOREBAY_BOOTSTRAP_SERVER", "other:9092").env("FOREBAY_UPLOAD_SM", "1");
    let (code, _, error) = told(&variable.output().expect("the binary runs"));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("FOREBAY_UPLOAD_SM is of no broker config; did you mean FOREBAY_UPLOAD_MS?"), "{error}");
    assert!(!place.data().exists(), "nothing was made");
}

/// Plaintext leaves the machine only where that was asked for by name (D20). The address here is nobody's, so that the
/// key's effect is seen and nothing is opened.
#[test]
fn plaintext_for_other_machines_wants_its_key() {
    let place = Place::new();
    let others = "FOREBAY_LISTENERS";
    let refused = |more: &str, listeners: &str| {
        let mut command = place.serve(more);
        told(&command.env(others, listeners).output().expect("the binary runs"))
    };
    let (code, _, error) = refused("", "PLAINTEXT://192.0.2.7:9092");
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("it is plaintext") && error.contains("set forebay.plaintext.public=true"), "{error}");
    let (code, _, error) = refused("forebay.plaintext.public=true", "PLAINTEXT://192.0.2.7:9092");
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("192.0.2.7:9092, which is no address of this machine"), "{error}");
    let (code, _, error) = refused("forebay.plaintext.public=true", "PLAINTEXT://0.0.0.0:9092");
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("advertised.listeners"), "{error}");
}

/// A service manager that stops a broker which is still starting is told that it stopped as asked. The bucket here takes
/// connections and never answers, and the first one tells that the start is under way.
#[test]
fn a_stop_before_it_is_ready_is_no_failure() {
    let place = Place::new();
    let bucket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut serve = forebay();
    serve
        .args(["serve", "--config"])
        .arg(place.config("forebay.bucket=s3://silent"))
        .env("AWS_ENDPOINT_URL", format!("http://{}", bucket.local_addr().expect("bound")))
        .envs([
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_REGION", "x"),
            ("AWS_ALLOW_HTTP", "true"),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let process = serve.spawn().expect("the binary starts");
    let _silent = bucket.accept().expect("the broker looks at its bucket");
    terminate(&process);
    let (code, out, error) = told(&process.wait_with_output().expect("it ends"));
    assert_eq!((code, &*out), (0, ""), "{error}");
    assert!(error.contains("stopped before the broker was ready"), "{error}");
}

/// A data folder that another version wrote, and one that another process has, are left alone and named.
#[test]
fn a_folder_that_is_not_ours_is_refused() {
    let place = Place::new();
    let marker = place.data().join("forebay-folder");
    std::fs::create_dir_all(place.data()).expect("made");
    std::fs::write(&marker, "forebay data folder\nformat 7\n").expect("written");
    let (code, error) = place.refused("");
    assert_eq!(code, 1, "{error}");
    let data = place.data().display().to_string();
    for part in [&*data, "has format 7", "reads format 1", "start the version that wrote it, or choose another folder"]
    {
        assert!(error.contains(part), "{part:?} is in {error}");
    }
    assert_eq!(std::fs::read_to_string(&marker).expect("still there"), "forebay data folder\nformat 7\n");

    std::fs::remove_file(&marker).expect("removed");
    let broker = Broker::of(place.serve(""));
    let (code, error) = place.refused("");
    assert_eq!(code, 1, "{error}");
    assert!(error.contains(&format!("the data folder {data} is in use by another process")), "{error}");
    assert_eq!(broker.stop(), 0);
}

/// The file of a data object in the embedded bucket that holds a partition's records.
fn object_of(data: &Path, partition: usize) -> (String, PathBuf) {
    let ls = ["--format", "json", "bucket", "ls", "--data", data.to_str().expect("UTF-8")];
    let (code, out, error) = told(&run(&ls, ""));
    assert_eq!(code, 0, "{error}");
    let listed: Value = serde_json::from_str(&out).expect("JSON");
    let object = &listed["topics"][0]["partitions"][partition]["extents"][0]["object"];
    let object = object.as_str().expect("its records are in an object").to_owned();
    let path = data.join("bucket").join(&object);
    (object, path)
}

/// A byte that decays in the bucket: `fsck` names the object, the block and the records behind it, a consumer of these is
/// told, and everybody else goes on.
#[test]
fn a_flipped_byte_is_named_and_takes_nothing_else() {
    let place = Place::new();
    let broker = Broker::of(place.serve(""));
    broker.ok("topic create orders --partitions 2", "");
    broker.ok("topic produce orders -p 0", "a\nb\nc\n");
    broker.ok("topic produce orders -p 1", "other\n");
    assert_eq!(broker.stop(), 0);

    let data = place.data();
    let (object, path) = object_of(&data, 0);
    let mut bytes = std::fs::read(&path).expect("the object is a file of its name");
    // The object begins with the block of its first partition: 32 bytes of header, then the batch.
    bytes[50] ^= 1;
    std::fs::write(&path, &bytes).expect("written");

    let data = data.to_str().expect("UTF-8");
    let (code, out, error) = told(&run(&["bucket", "fsck", "--data", data], ""));
    assert_eq!(code, 10, "{out}{error}");
    assert!(out.starts_with(&format!("error: {object}: block at byte 0")), "{out}");
    assert!(out.contains("orders-0, offsets 0 to 2"), "{out}");
    assert!(out.ends_with("DAMAGED: not everything can be read\n"), "{out}");
    let (code, out, _) = told(&run(&["--format", "json", "bucket", "fsck", "--data", data], ""));
    assert_eq!(code, 10);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    let finding = &report["findings"][0];
    assert_eq!(
        (&finding["object"], &finding["block"], &finding["partition"], &finding["firstOffset"], &finding["lastOffset"]),
        (&object.into(), &0.into(), &"orders-0".into(), &0.into(), &2.into())
    );

    let broker = Broker::of(place.serve(""));
    let (code, _, error) = broker.run("topic consume orders -p 0 --from-beginning -n 1", "");
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("CORRUPT_MESSAGE") && error.contains("orders-0"), "{error}");
    assert_eq!(broker.ok("topic consume orders -p 1 --to-end", ""), "other\n");
    broker.ok("topic produce orders -p 0", "d\n");
    assert_eq!(broker.ok("topic consume orders -p 0 --offset 3 -n 1", ""), "d\n");
    assert_eq!(broker.stop(), 0);
}
