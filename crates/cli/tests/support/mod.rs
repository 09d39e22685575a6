//! The real binary, and brokers that it runs.

#![allow(dead_code)] // Each test file uses its part.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

/// The binary, in an environment without keys of ours.
pub fn forebay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    // What the machine's environment says about brokers is not of this test.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOREBAY_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running broker; killed when dropped.
pub struct Broker {
    process: Child,
    _stdout: BufReader<ChildStdout>,
    pub kafka: String,
    pub admin: String,
}

impl Broker {
    /// `forebay dev` on free ports.
    pub fn start(data: &Path) -> Self {
        let mut dev = forebay();
        dev.args(["dev", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(data);
        Self::of(dev)
    }

    /// A command that runs a broker, once it says that it is ready.
    pub fn of(mut command: Command) -> Self {
        let mut process = command
            .args(["--format", "json"])
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
    pub fn run(&self, arguments: &str, input: &str) -> (i32, String, String) {
        let arguments: Vec<_> = arguments.split(' ').chain(["-b", &self.kafka]).collect();
        told(&run(&arguments, input))
    }

    pub fn ok(&self, arguments: &str, input: &str) -> String {
        let (code, out, error) = self.run(arguments, input);
        assert_eq!(code, 0, "{arguments}: {error}");
        out
    }

    pub fn json(&self, arguments: &str) -> Value {
        let out = self.ok(&format!("--format json {arguments}"), "");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments}: {error}: {out}"))
    }

    /// SIGTERM, and the exit code after it.
    pub fn stop(mut self) -> i32 {
        terminate(&self.process);
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

/// SIGTERM.
pub fn terminate(process: &Child) {
    let pid = i32::try_from(process.id()).expect("a process id");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id is not 0");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str], input: &str) -> Output {
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

/// Exit code, standard output, standard error.
pub fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
