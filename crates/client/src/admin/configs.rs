//! Configs of topics and brokers: describe, change one by one.

use std::fmt;

use forebay_types::{BrokerId, TopicName};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::describe_configs_request::DescribeConfigsResource;
use forebay_wire::kafka::messages::describe_configs_response::DescribeConfigsResourceResult;
use forebay_wire::kafka::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use forebay_wire::kafka::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};

use super::Admin;
use crate::ClientError;
use crate::cluster::{Repeat, Target, retriable};
use crate::kafka::{check, only, optional_text, text};

/// Whose configs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    Topic(TopicName),
    Broker(BrokerId),
    /// The defaults that all brokers share.
    AllBrokers,
}

impl ConfigResource {
    fn raw(&self) -> (i8, String) {
        match self {
            Self::Topic(name) => (2, name.to_string()),
            Self::Broker(id) => (4, id.to_string()),
            Self::AllBrokers => (4, String::new()),
        }
    }

    /// A broker answers for its own configs; anybody for the rest.
    fn target(&self) -> Target<'static> {
        match self {
            Self::Broker(id) => Target::Node(id.get()),
            Self::Topic(_) | Self::AllBrokers => Target::Any,
        }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Broker(id) => write!(f, "broker {id}"),
            Self::AllBrokers => f.write_str("all brokers"),
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    Topic,
    /// Set while running, for one broker or for all.
    DynamicBroker,
    StaticBroker,
    Default,
    /// A source that this client has no word for.
    Other(i8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None` where it is sensitive, or has no value.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub is_read_only: bool,
    pub is_sensitive: bool,
    pub documentation: Option<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    Set(String),
    /// Back to the default.
    Delete,
    /// To a list: add or take away items.
    Append(String),
    Subtract(String),
}

impl Admin {
    /// All configs of a resource, by name.
    pub async fn describe_configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>, ClientError> {
        let what = format!("describe configs of {resource}");
        let (kind, name) = resource.raw();
        let build = |version: i16| {
            let one = DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(&name))
                .with_configuration_keys(None);
            let request = DescribeConfigsRequest::default().with_resources(vec![one]);
            if version >= 3 { request.with_include_documentation(true) } else { request }
        };
        let again = |r: &DescribeConfigsResponse| retry_code(r.results.iter().map(|result| result.error_code));
        let response = self.client.call(&what, resource.target(), Repeat::Harmless, build, again).await?;
        let found = only(&what, response.results)?;
        check(&what, found.error_code, found.error_message.as_ref())?;
        let mut entries: Vec<_> = found.configs.into_iter().map(entry).collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Changes some configs of a resource and leaves the others; all changes take effect or none.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[(String, ConfigChange)],
    ) -> Result<(), ClientError> {
        let what = format!("alter configs of {resource}");
        let (kind, name) = resource.raw();
        let build = |_| {
            let config = |(name, change): &(String, ConfigChange)| {
                let (operation, value) = match change {
                    ConfigChange::Set(value) => (0, Some(value)),
                    ConfigChange::Delete => (1, None),
                    ConfigChange::Append(value) => (2, Some(value)),
                    ConfigChange::Subtract(value) => (3, Some(value)),
                };
                AlterableConfig::default()
                    .with_name(text(name))
                    .with_config_operation(operation)
                    .with_value(value.map(|value| text(value)))
            };
            let one = AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(&name))
                .with_configs(changes.iter().map(config).collect());
            IncrementalAlterConfigsRequest::default().with_resources(vec![one])
        };
        let again = |r: &IncrementalAlterConfigsResponse| retry_code(r.responses.iter().map(|one| one.error_code));
        // Items can be appended twice; a value can only be set.
        let twice = |change: &ConfigChange| matches!(change, ConfigChange::Append(_) | ConfigChange::Subtract(_));
        let repeat = if changes.iter().any(|(_, change)| twice(change)) { Repeat::Harmful } else { Repeat::Harmless };
        let response = self.client.call(&what, resource.target(), repeat, build, again).await?;
        let found = only(&what, response.responses)?;
        check(&what, found.error_code, found.error_message.as_ref())
    }
}

/// A topic that is not there stays so, though Kafka calls that retriable.
fn retry_code(raw: impl Iterator<Item = i16>) -> Option<ErrorCode> {
    retriable(raw).filter(|code| *code != ErrorCode::UnknownTopicOrPartition)
}

fn entry(found: DescribeConfigsResourceResult) -> ConfigEntry {
    let source = match found.config_source {
        1 => ConfigSource::Topic,
        2 | 3 => ConfigSource::DynamicBroker,
        4 => ConfigSource::StaticBroker,
        5 => ConfigSource::Default,
        other => ConfigSource::Other(other),
    };
    ConfigEntry {
        name: found.name.to_string(),
        value: found.value.map(|value| value.to_string()),
        source,
        is_read_only: found.read_only,
        is_sensitive: found.is_sensitive,
        documentation: optional_text(found.documentation.as_ref()),
    }
}
