//! IncrementalAlterConfigs, key 44, versions 0 to 1. KIP-339. Changes single keys, and lists by their items.
//!
//! Differs from Kafka: as AlterConfigs.

use std::collections::BTreeSet;

use forebay_metadata::command::{ConfigChange, ConfigOp};
use forebay_wire::kafka::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use forebay_wire::kafka::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use forebay_wire::kafka::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors::Refused;
use crate::handlers::alter_configs::{alter_all, no_value};
use crate::lookup::text;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: IncrementalAlterConfigsRequest = call.decode()?;
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
    call.answer(&IncrementalAlterConfigsResponse::default().with_responses(responses.collect()))
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
