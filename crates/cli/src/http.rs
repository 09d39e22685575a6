//! One request to the admin address over HTTP/1.1: enough for a tool, and no more.
//!
//! Owns: a request that closes its connection, and reading status and body. Bound: an answer is at most
//! [`ANSWER_SIZE_MAX`] bytes and comes within [`ANSWER_LIMIT`].

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use forebay_env::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ANSWER_SIZE_MAX: u64 = 1 << 20;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Nobody listens at an admin address.
#[derive(Debug, thiserror::Error)]
#[error("nothing was sent to the admin address {address}")]
pub struct Unreached {
    address: String,
    source: std::io::Error,
}

pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Posts an empty body to `path`, which is escaped already.
pub async fn post(env: &Env, address: &str, path: &str) -> Result<Answer> {
    let asked = async {
        let connected = env.network().connect(address).await;
        let mut stream = connected.map_err(|source| Unreached { address: address.to_owned(), source })?;
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_SIZE_MAX).read_to_end(&mut answer).await?;
        parse(&answer)
    };
    env.timeout(ANSWER_LIMIT, asked)
        .await
        .ok_or_else(|| anyhow!("{address} did not answer within {} s", ANSWER_LIMIT.as_secs()))?
        .with_context(|| format!("POST {path} to {address}"))
}

fn parse(answer: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("the answer ends before its body") };
    let mut words = head.split(' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| word.parse().ok());
    match status {
        Some(status) if version.starts_with("HTTP/1.") => Ok(Answer { status, body: body.trim().to_owned() }),
        _ => bail!("the answer is not HTTP"),
    }
}

/// Text as part of a query.
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status and body are taken apart, and what is not HTTP is refused.
    #[test]
    fn answers_are_taken_apart() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\nx: y\r\n\r\nno topic orders\n").expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (404, "no topic orders"));
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
        assert!(parse(b"\x00\x00\x00\x10 1\r\n\r\n").is_err());
        assert_eq!(escape("a b/c.d-e_ä"), "a%20b%2Fc.d-e_%C3%A4");
    }
}
