//! IncrementalAlterConfigs, key 44, versions 0 to 1. KIP-339. Changes single keys, and lists by their items.
//!
//! Differs from Kafka: as AlterConfigs.

use std::collections::{BTreeMap, BTreeSet};

use forebay_metadata::command::{ConfigChange, ConfigOp};
use forebay_wire::kafka::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use forebay_wire::kafka::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use forebay_wire::kafka::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors::Refused;
use crate::handlers::alter_configs::{alter, duplicate, no_value};
use crate::lookup::text;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: IncrementalAlterConfigsRequest = call.decode()?;
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
    call.answer(&IncrementalAlterConfigsResponse::default().with_responses(responses))
}

fn change(resource: &AlterConfigsResource) -> Result<ConfigChange, Refused> {
    let mut names = BTreeSet::new();
    let ops = resource.configs.iter().map(|entry| {
        if !names.insert(entry.name.as_str()) {
            return Err(Refused::invalid(format!("config {} is named twice", entry.name)));
        }
        Ok((entry.name.to_string(), op(entry)?))
    });
    Ok(ConfigChange::Incremental(ops.collect::<Result<_, _>>()?))
}

fn op(entry: &AlterableConfig) -> Result<ConfigOp, Refused> {
    let value = || entry.value.as_ref().map(ToString::to_string).ok_or_else(|| no_value(&entry.name));
    match entry.config_operation {
        0 => Ok(ConfigOp::Set(value()?)),
        1 => Ok(ConfigOp::Delete),
        2 => Ok(ConfigOp::Append(value()?)),
        3 => Ok(ConfigOp::Subtract(value()?)),
        other => Err(Refused::invalid(format!("Unknown operation type {other} for config {}", entry.name))),
    }
}
