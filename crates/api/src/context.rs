//! What handlers work with: one broker epoch, put together by `broker`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use forebay_coordinator::Coordinators;
use forebay_env::Env;
use forebay_log::Partitions;
use forebay_metadata::{BrokerLife, Metadata};
use forebay_types::{BrokerId, ClusterId};
use forebay_wal::Wal;

use crate::config::BrokerConfig;
use crate::counters::Counters;
use crate::memory::Memory;
use crate::sessions::FetchSessions;

/// Where clients find a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A text that is not `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not HOST:PORT")]
pub struct HostPortError(String);

impl FromStr for HostPort {
    type Err = HostPortError;

    /// An IPv6 address stands in brackets.
    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let refuse = || HostPortError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port = port.parse().map_err(|_| refuse())?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|inner| inner.contains(':')).ok_or_else(refuse)?,
            None if host.contains(':') => return Err(refuse()),
            None => host,
        };
        if host.is_empty() || host.contains(char::is_whitespace) || host.contains('/') {
            return Err(refuse());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// How long a request waits for partitions that it has brought about: clients give up after 30 seconds by default.
const FOLLOW_TIME_MAX: Duration = Duration::from_secs(10);

/// One broker epoch, as requests see it.
pub struct Context {
    pub env: Env,
    pub cluster: ClusterId,
    pub life: BrokerLife,
    /// What clients are told to connect to.
    pub advertised: HostPort,
    pub metadata: Arc<dyn Metadata>,
    pub partitions: Arc<Partitions>,
    pub coordinators: Arc<Coordinators>,
    pub wal: Wal,
    pub config: Arc<BrokerConfig>,
    pub counters: Counters,
    pub memory: Memory,
    pub sessions: FetchSessions,
    /// A planted bug: DeleteRecords deletes all that is there, up to whatever offset it was asked.
    pub sabotage_cut_too_far: bool,
}

impl Context {
    pub fn broker(&self) -> BrokerId {
        self.life.broker
    }

    /// Waits until what was just changed in the metadata is served here, or for [`FOLLOW_TIME_MAX`]: what is not open
    /// by then answers codes to try again on.
    pub(crate) async fn caught_up(&self) {
        let followed = self.env.timeout(FOLLOW_TIME_MAX, self.partitions.caught_up(&*self.metadata)).await;
        if followed.is_none() {
            tracing::warn!("a change of topics is answered before all of their partitions are open");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown reads back, and what names no host and port is refused.
    #[test]
    fn addresses_read_back() {
        for text in ["localhost:9092", "127.0.0.1:0", "[::1]:9092"] {
            assert_eq!(text.parse::<HostPort>().expect(text).to_string(), text);
        }
        for text in ["", "localhost", ":9092", "::1:9092", "[::1]", "[x]:1", "h:65536", "a b:1", "http://h:1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
    }
}
