//! Runs other programs: says which, fails with what they said.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A command that starts in the workspace's root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

pub fn say(what: &str) {
    println!("── {what}");
}

/// Runs to the end with our own output; fails where it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs to the end and returns what it printed; fails with both outputs where it fails.
pub fn output(command: &mut Command) -> Result<String> {
    output_with_input(command, "")
}

/// As [`output`], with something to read.
pub fn output_with_input(command: &mut Command, input: &str) -> Result<String> {
    let shown = show(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {shown}"))?;
    let mut stdin = child.stdin.take().expect("stdin was asked for");
    let input = input.to_owned();
    // On a thread of its own: a program that prints before it has read all would otherwise wait for us, and we for it.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let done = child.wait_with_output().with_context(|| format!("wait for {shown}"))?;
    let written = writer.join().expect("writing to a pipe does not panic");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if !done.status.success() {
        bail!("{shown}: {}\n{out}{err}", done.status);
    }
    written.with_context(|| format!("write to {shown}"))?;
    Ok(out.into_owned())
}

/// Runs to the end and hands over each line of its standard output as it comes; tells whether it succeeded.
pub fn stream(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let shown = show(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("start {shown}"))?;
    let stdout = child.stdout.take().expect("stdout was asked for");
    for text in BufReader::new(stdout).lines() {
        let text = text.with_context(|| format!("read from {shown}"))?;
        line(&text);
    }
    Ok(child.wait().with_context(|| format!("wait for {shown}"))?.success())
}

/// As [`stream`], with the lines of its standard error; its standard output is ours.
pub fn stream_errors(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let shown = show(command);
    let mut child = command.stderr(Stdio::piped()).spawn().with_context(|| format!("start {shown}"))?;
    let stderr = child.stderr.take().expect("stderr was asked for");
    for text in BufReader::new(stderr).lines() {
        let text = text.with_context(|| format!("read from {shown}"))?;
        line(&text);
    }
    Ok(child.wait().with_context(|| format!("wait for {shown}"))?.success())
}

/// The command as one would type it, without what is set in the environment.
fn show(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    parts.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Where a program is, if it is in the path.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
