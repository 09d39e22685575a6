//! The JobManager's REST interface, over plain sockets: one request a connection, JSON in and out.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// How long an answer may take: a job's submission compiles its plan before it answers.
const ANSWER_LIMIT: Duration = Duration::from_mins(2);

/// An answer's length, far above any that is asked for here.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Copy)]
pub struct Rest {
    address: SocketAddr,
}

impl Rest {
    pub fn new(port: u16) -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call("POST", path, Some(("application/json", body.to_string().into_bytes())))
    }

    /// Asks for a job's end without waiting for it.
    pub fn cancel(&self, job: &str) -> Result<()> {
        self.call("PATCH", &format!("/jobs/{job}?mode=cancel"), None)?;
        Ok(())
    }

    /// Hands over a jar; returns the id by which it can be run.
    pub fn upload(&self, jar: &Path) -> Result<String> {
        let bytes = std::fs::read(jar).with_context(|| format!("read {}", jar.display()))?;
        let boundary = "a-jar-holds-no-line-like-this";
        let mut body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"jarfile\"; filename=\"job.jar\"\r\n\
             Content-Type: application/x-java-archive\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(&bytes);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={boundary}");
        let answer = self.call("POST", "/jars/upload", Some((&kind, body)))?;
        let file = answer["filename"].as_str().with_context(|| format!("no file name in {answer}"))?;
        let id = file.rsplit('/').next().unwrap_or(file);
        Ok(id.to_owned())
    }

    /// Runs a jar's main class; returns the job's id.
    pub fn run(&self, jar: &str, class: &str, arguments: &[String], restore: Option<&str>) -> Result<String> {
        let mut body = json!({ "entryClass": class, "programArgsList": arguments });
        if let Some(path) = restore {
            body["savepointPath"] = path.into();
        }
        let answer = self.post(&format!("/jars/{jar}/run"), &body)?;
        answer["jobid"].as_str().map(str::to_owned).with_context(|| format!("no job in {answer}"))
    }

    fn call(&self, method: &str, path: &str, body: Option<(&str, Vec<u8>)>) -> Result<Value> {
        let shown = || format!("{method} {path} at {}", self.address);
        let answer = self.exchange(method, path, body).with_context(shown)?;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{}: no whole answer", shown()))?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{}: {status}: {body}", shown());
        if body.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(body).with_context(|| format!("{}: {body:?}", shown()))
    }

    fn exchange(&self, method: &str, path: &str, body: Option<(&str, Vec<u8>)>) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5)).context("connect")?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let (kind, body) = body.unwrap_or(("application/json", Vec::new()));
        // In the old version of HTTP an answer is neither cut into chunks nor is the connection kept.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).context("send the head")?;
        stream.write_all(&body).context("send the body")?;
        let mut answer = Vec::new();
        let read = (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer).context("read the answer")?;
        if read as u64 == ANSWER_BYTES_MAX {
            bail!("the answer has {ANSWER_BYTES_MAX} bytes or more");
        }
        String::from_utf8(answer).context("the answer is not UTF-8")
    }
}
