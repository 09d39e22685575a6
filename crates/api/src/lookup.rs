//! What a request names, found: topics and partitions that this broker serves, or the code that says why not.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use forebay_log::{OpenTopic, Partition};
use forebay_metadata::service::TopicRow;
use forebay_types::{PartitionIndex, TopicId, TopicName};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::protocol::StrBytes;
use uuid::Uuid;

use crate::context::Context;
use crate::errors;

/// An open topic or why there is none: one look-up serves all partitions that a request names of it.
pub(crate) type Topic = Result<Arc<OpenTopic>, ErrorCode>;

/// A name that cannot be a topic's is one that no topic has.
pub(crate) fn by_name(context: &Context, name: &str) -> Topic {
    let name = TopicName::new(name).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    context.partitions.by_name(&name).map_err(errors::unavailable)
}

pub(crate) fn by_id(context: &Context, id: Uuid) -> Topic {
    let id = TopicId::new(id).map_err(|_| ErrorCode::UnknownTopicId)?;
    context.partitions.by_id(id).map_err(|why| match errors::unavailable(why) {
        ErrorCode::UnknownTopicOrPartition => ErrorCode::UnknownTopicId,
        code => code,
    })
}

pub(crate) fn partition(topic: &Topic, index: i32) -> Result<Arc<Partition>, ErrorCode> {
    let topic = topic.as_ref().map_err(|code| *code)?;
    let index = PartitionIndex::new(index).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    topic.partition(index).cloned().map_err(errors::unavailable)
}

/// The live topic of a name as the metadata has it, open or not.
pub(crate) fn row(context: &Context, name: &str) -> Option<Arc<TopicRow>> {
    context.metadata.topics().by_name(&TopicName::new(name).ok()?)
}

/// The live topic of an id as the metadata has it, open or not.
pub(crate) fn row_by_id(context: &Context, id: Uuid) -> Option<Arc<TopicRow>> {
    context.metadata.topics().by_id(TopicId::new(id).ok()?).filter(|row| row.is_live())
}

/// Names of live topics by what they would be called where `.` and `_` are the same: looked up once for a whole request.
pub(crate) struct Collisions<'a> {
    context: &'a Context,
    names: OnceLock<BTreeMap<String, TopicName>>,
}

impl<'a> Collisions<'a> {
    pub fn new(context: &'a Context) -> Self {
        Self { context, names: OnceLock::new() }
    }

    /// The live topic that has this name, or one that collides with it.
    pub fn find(&self, name: &TopicName) -> Option<&TopicName> {
        let key = |name: &TopicName| name.as_str().replace('.', "_");
        let names = self.names.get_or_init(|| {
            self.context.metadata.topics().list().iter().map(|row| (key(&row.name), row.name.clone())).collect()
        });
        names.get(&key(name))
    }
}

/// Text for an answer.
pub(crate) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}
