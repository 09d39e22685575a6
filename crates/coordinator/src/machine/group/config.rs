//! The limits and times that groups live by.

use std::time::Duration;

/// Defaults are Kafka's, but for the retention: committed offsets are kept until their group or topic is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: i32,
    /// `group.max.size`.
    pub members_max: usize,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members after its first.
    pub initial_rebalance_delay: Duration,
    /// `offset.metadata.max.bytes`; Kafka counts UTF-16 units.
    pub offset_metadata_size_max: usize,
    /// `offsets.retention.minutes`; `None` keeps offsets.
    pub offsets_retention: Option<Duration>,
    /// `offsets.retention.check.interval.ms`: how often groups that nothing is left of are looked for.
    pub sweep_interval: Duration,
    /// Bytes of the largest record: a generation that needs more is refused.
    pub record_size_max: usize,
    /// Bytes that the members of all groups in one partition may take up: their metadata and assignments, for the most
    /// part. A join beyond it is refused as beyond `group.max.size`.
    pub member_bytes_max: usize,
    /// A planted bug: a rebalance gives partitions anew in the generation that was there.
    pub sabotage_keep_generation: bool,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            members_max: usize::MAX,
            initial_rebalance_delay: Duration::from_secs(3),
            offset_metadata_size_max: 4096,
            offsets_retention: None,
            sweep_interval: Duration::from_mins(10),
            record_size_max: 8 << 20,
            member_bytes_max: 64 << 20,
            sabotage_keep_generation: false,
        }
    }
}
