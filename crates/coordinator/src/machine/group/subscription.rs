//! What a consumer says it is subscribed to, in the bytes that only its own kind understands.
//!
//! Sources: Kafka's `ConsumerProtocolSubscription`: version, topics, user data and more that is not needed here.

use crate::schema::{Reader, SchemaError};

/// The protocol type whose members' bytes are subscriptions.
pub(super) const CONSUMER: &str = "consumer";

/// The topics of a subscription of any version: what versions add stands behind them.
pub(super) fn topics(bytes: &[u8]) -> Result<Vec<String>, SchemaError> {
    let mut reader = Reader::new("ConsumerProtocolSubscription", bytes);
    reader.i16("version")?;
    let count = reader.count("topics", false)?.unwrap_or(0);
    (0..count).map(|_| reader.string("topics", false)).collect()
}
