//! The commands as a person runs them: the real binary, a broker that it starts, a folder that is thrown away.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

fn forebay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    // What the machine's environment says about brokers is not of this test.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOREBAY_") {
            command.env_remove(name);
        }
    }
    command
}

/// A broker of `forebay dev`; killed when dropped.
struct Broker {
    process: Child,
    _stdout: BufReader<ChildStdout>,
    kafka: String,
    admin: String,
}

impl Broker {
    fn start(data: &Path) -> Self {
        let mut process = forebay()
            .args(["dev", "--format", "json", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("what is ready, as JSON");
        let text = |name: &str| ready[name].as_str().expect(name).to_owned();
        Self { kafka: text("kafka"), admin: text("admin"), process, _stdout: stdout }
    }

    /// Runs a command against this broker: exit code, standard output, standard error.
    fn run(&self, arguments: &str, input: &str) -> (i32, String, String) {
        let arguments: Vec<_> = arguments.split(' ').chain(["-b", &self.kafka]).collect();
        told(&run(&arguments, input))
    }

    fn ok(&self, arguments: &str, input: &str) -> String {
        let (code, out, error) = self.run(arguments, input);
        assert_eq!(code, 0, "{arguments}: {error}");
        out
    }

    fn json(&self, arguments: &str) -> Value {
        let out = self.ok(&format!("--format json {arguments}"), "");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments}: {error}: {out}"))
    }

    /// SIGTERM, and the exit code after it.
    fn stop(mut self) -> i32 {
        let pid = i32::try_from(self.process.id()).expect("a process id");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process id is not 0");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.process.wait().expect("it ends").code().expect("it ends by itself")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Gone already where the test stopped it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut process = forebay()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = process.stdin.take().expect("piped");
    // A command that does not read it closes it, and that is its right.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    process.wait_with_output().expect("it ends")
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

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
        (vec!["bucket", "ls", "--data", "/nonexistent/folder"], "--data names the data folder"),
    ] {
        let (code, _, error) = told(&run(&arguments, ""));
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

/// A broker that is not there is told at once, with what would start one.
#[test]
fn a_broker_that_is_not_there_is_told_at_once() {
    // Port 1 needs a right that nobody uses to run a broker.
    let (code, out, error) = told(&run(&["topic", "list", "-b", "127.0.0.1:1"], ""));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("127.0.0.1:1") && error.contains("`forebay dev` starts one"), "{error}");
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
