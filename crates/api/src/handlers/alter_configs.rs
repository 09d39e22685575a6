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
    let named = request.resources.iter().map(|it| (it.resource_type, it.resource_name.as_str(), change(it)));
    let altered = alter_all(context, named.collect(), request.validate_only).await;
    let responses = request.resources.iter().zip(altered).map(|(resource, altered)| {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match altered {
            Ok(()) => response.with_error_message(None),
            Err(Refused { code, message }) => {
                response.with_error_code(code.code()).with_error_message(Some(text(message)))
            }
        }
    });
    call.answer(&AlterConfigsResponse::default().with_responses(responses.collect()))
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

/// Changes resources by their kinds and names, and waits for the partitions to follow. None that is named twice is changed.
pub(super) async fn alter_all(
    context: &Context,
    named: Vec<(i8, &str, Result<ConfigChange, Refused>)>,
    validate_only: bool,
) -> Vec<Result<(), Refused>> {
    let mut times = BTreeMap::new();
    for (kind, name, _) in &named {
        *times.entry((*kind, *name)).or_insert(0) += 1;
    }
    let mut altered = Vec::with_capacity(named.len());
    for (kind, name, change) in named {
        altered.push(match change {
            _ if times[&(kind, name)] > 1 => Err(duplicate()),
            Ok(change) => alter(context, kind, name, change, validate_only).await,
            Err(refused) => Err(refused),
        });
    }
    context.caught_up().await;
    altered
}

async fn alter(
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
