//! `POST /topics/undelete` on the broker's admin address, as `forebay topic undelete` sends it.

use std::io;
use std::time::Duration;

use forebay_env::{Env, Stream};
use forebay_types::TopicName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ADMIN_PORT: u16 = 9640;

/// Longer than the broker takes over one request.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);

/// Far more than any answer.
const ANSWER_SIZE_MAX: u64 = 64 << 10;

/// Asks `host` to bring a topic back: the status that it answered with.
///
/// # Errors
/// No answer, or none that is HTTP: the topic may be back or not.
pub async fn undelete(env: &Env, host: &str, topic: &TopicName) -> io::Result<u16> {
    let asked = async {
        let mut stream = env.network().connect(&format!("{host}:{ADMIN_PORT}")).await?;
        ask(&mut *stream, host, topic).await
    };
    env.timeout(ANSWER_LIMIT, asked).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask(stream: &mut dyn Stream, host: &str, topic: &TopicName) -> io::Result<u16> {
    let request = format!(
        "POST /topics/undelete?name={topic} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_SIZE_MAX).read_to_end(&mut answer).await?;
    // `HTTP/1.1 200 OK`
    let status = answer.split(|byte| *byte == b' ').nth(1).and_then(|status| std::str::from_utf8(status).ok());
    status.and_then(|status| status.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
