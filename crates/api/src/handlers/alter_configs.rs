//! AlterConfigs, key 33, versions 0 to 2. KIP-133. Sets a topic's whole configuration: what is not named goes back to its
//! default. IncrementalAlterConfigs shares everything but the form of the change.
//!
//! Differs from Kafka: a broker's configuration is read when it starts and cannot be changed while it runs.

use std::collections::BTreeMap;

use forebay_metadata::Command;
use forebay_metadata::command::ConfigChange;
use forebay_metadata::config as topic_config;
use forebay_wire::kafka::messages::alter_configs_request::AlterConfigsResource;
use forebay_wire::kafka::messages::alter_configs_response::AlterConfigsResourceResponse;
use forebay_wire::kafka::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors::Refused;
use crate::handlers::describe_configs::{BROKER, BROKER_LOGGER, TOPIC, check_broker};
use crate::lookup::{self, text};

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: AlterConfigsRequest = call.decode()?;
    let mut times = BTreeMap::new();
    for resource in &request.resources {
        *times.entry((resource.resource_type, resource.resource_name.as_str())).or_insert(0) += 1;
    }
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
        let altered = match (times[&(kind, name)], change(resource)) {
            (1, Ok(change)) => alter(context, kind, name, change, request.validate_only).await,
            (1, Err(refused)) => Err(refused),
            _ => Err(duplicate()),
        };
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(kind)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match altered {
            Ok(()) => response.with_error_message(None),
            Err(Refused { code, message }) => {
                response.with_error_code(code.code()).with_error_message(Some(text(message)))
            }
        });
    }
    context.caught_up().await;
    call.answer(&AlterConfigsResponse::default().with_responses(responses))
}

fn change(resource: &AlterConfigsResource) -> Result<ConfigChange, Refused> {
    let mut config = BTreeMap::new();
    for entry in &resource.configs {
        let value = entry.value.as_ref().ok_or_else(|| no_value(&entry.name))?;
        if config.insert(entry.name.to_string(), value.to_string()).is_some() {
            return Err(Refused::invalid(format!("config {} is named twice", entry.name)));
        }
    }
    Ok(ConfigChange::Replace(config))
}

pub(super) fn duplicate() -> Refused {
    Refused::invalid("Each resource must appear at most once.")
}

pub(super) fn no_value(name: &str) -> Refused {
    Refused::invalid(format!("Null value not supported for : {name}"))
}

/// Changes one resource's configuration. The caller waits for the partitions to follow.
pub(super) async fn alter(
    context: &Context,
    kind: i8,
    name: &str,
    change: ConfigChange,
    validate_only: bool,
) -> Result<(), Refused> {
    match kind {
        TOPIC => {}
        BROKER | BROKER_LOGGER => {
            if !(kind == BROKER && name.is_empty()) {
                check_broker(context, name)?;
            }
            return Err(Refused::invalid("the broker's configuration is read at its start: change it there"));
        }
        other => return Err(Refused::invalid(format!("resource type {other} has no configuration here"))),
    }
    let row = lookup::row(context, name).ok_or_else(Refused::unknown_topic)?;
    topic_config::change(&row.config, &change)?;
    if !validate_only {
        context.metadata.submit(Command::AlterTopicConfig { topic: row.id, change }).await?;
    }
    Ok(())
}
