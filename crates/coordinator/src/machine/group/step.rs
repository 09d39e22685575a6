//! One call of the machine while it runs: what it was given, and what is to come out.

use std::sync::Arc;

use bytes::Bytes;
use forebay_types::Offset;

use super::config::GroupConfig;
use super::request::Reply;
use super::state::Group;
use crate::machine::{Now, Output, Record, Token};
use crate::schema::GroupMetadataKey;

pub(super) struct Step {
    pub config: Arc<GroupConfig>,
    pub now: Now,
    /// Where the next record will stand.
    next: Offset,
    pub out: Output<Reply>,
    /// What members may take up beyond what they do.
    pub member_bytes_left: usize,
}

impl Step {
    pub fn new(config: &Arc<GroupConfig>, now: Now, at: Offset) -> Self {
        Self { config: Arc::clone(config), now, next: at, out: Output::default(), member_bytes_left: usize::MAX }
    }

    pub fn reply(&mut self, token: Token, reply: Reply) {
        self.out.replies.push((token, reply));
    }

    /// Appends a record, and says where it will stand.
    pub fn append(&mut self, key: Bytes, value: Option<Bytes>, headers: Vec<(&'static str, Bytes)>) -> Offset {
        self.out.records.push(Record { key, value, headers });
        let offset = self.next;
        self.next = offset.next();
        offset
    }

    /// Records the group's generation as it is now. `false`: it does not fit a record, and nothing was done.
    #[must_use]
    pub fn record(&mut self, group: &mut Group) -> bool {
        let value = group.to_record().encode();
        if value.len() > self.config.record_size_max {
            return false;
        }
        self.append(GroupMetadataKey::encode(&group.id), Some(value.clone()), Vec::new());
        group.recorded = Some(value);
        group.recorded_end = self.next;
        true
    }
}
