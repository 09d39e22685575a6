//! DescribeConfigs, key 32, versions 1 to 4. KIP-133, KIP-226 (synonyms), KIP-412 (loggers), KIP-569 (types, docs).
//!
//! Every key of a resource is told, set or not: Streams, Connect and schema registries check keys that nobody set
//! (semantic 34).
//!
//! Differs from Kafka: a broker has its own and Kafka's keys that mean something here, all read-only while it runs; one
//! logger, `root`.

use std::collections::BTreeSet;

use forebay_types::TopicName;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::describe_configs_request::DescribeConfigsResource;
use forebay_wire::kafka::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use forebay_wire::kafka::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::described::{self, Described};
use crate::errors::Refused;
use crate::handlers::alter_configs::duplicate;
use crate::lookup::{self, text};

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;

/// What the client wants to know beside names and values.
#[derive(Clone, Copy)]
struct Terms {
    synonyms: bool,
    docs: bool,
}

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: DescribeConfigsRequest = call.decode()?;
    let terms = Terms { synonyms: request.include_synonyms, docs: request.include_documentation };
    let mut seen = BTreeSet::new();
    let results = request.resources.iter().map(|asked| {
        // Answers are some thousand times longer than questions: each is given once.
        let once = seen.insert((asked.resource_type, asked.resource_name.as_str()));
        let result = DescribeConfigsResult::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone())
            .with_error_message(None);
        let described =
            if once { describe(context, asked.resource_type, &asked.resource_name) } else { Err(duplicate()) };
        match described {
            Ok(keys) => {
                let wanted = keys.into_iter().filter(|key| is_wanted(asked, key.name));
                result.with_configs(wanted.map(|key| entry(key, terms)).collect())
            }
            Err(Refused { code, message }) => {
                result.with_error_code(code.code()).with_error_message(Some(text(message)))
            }
        }
    });
    call.answer(&DescribeConfigsResponse::default().with_results(results.collect()))
}

/// Null and empty both ask for every key.
fn is_wanted(asked: &DescribeConfigsResource, name: &str) -> bool {
    match &asked.configuration_keys {
        Some(keys) if !keys.is_empty() => keys.iter().any(|key| key.as_str() == name),
        _ => true,
    }
}

fn describe(context: &Context, kind: i8, name: &str) -> Result<Vec<Described>, Refused> {
    match kind {
        TOPIC => {
            let valid = TopicName::new(name);
            valid.map_err(|error| Refused::new(ErrorCode::InvalidTopicException, error.to_string()))?;
            let row = lookup::row(context, name).ok_or_else(Refused::unknown_topic)?;
            Ok(described::topic(&context.config, &row.config))
        }
        // The empty name stands for what was changed for all brokers while they run: nothing can be.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER => check_broker(context, name).map(|()| described::broker(&context.config)),
        BROKER_LOGGER => check_broker(context, name).map(|()| vec![described::logger()]),
        other => Err(Refused::invalid(format!("resource type {other} has no configuration here"))),
    }
}

pub(super) fn check_broker(context: &Context, name: &str) -> Result<(), Refused> {
    let this = context.broker().get();
    match name.parse::<i32>() {
        Ok(id) if id == this => Ok(()),
        Ok(id) => Err(Refused::invalid(format!("Unexpected broker id, expected {this}, but received {id}"))),
        Err(_) => Err(Refused::invalid(format!("Broker id must be an integer, but it is: {name}"))),
    }
}

fn entry(key: Described, terms: Terms) -> DescribeConfigsResourceResult {
    let synonyms = key.synonyms.into_iter().filter(|_| terms.synonyms).map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(synonym.name.into())
            .with_value(Some(text(synonym.value)))
            .with_source(synonym.source as i8)
    });
    DescribeConfigsResourceResult::default()
        .with_name(key.name.into())
        .with_value(key.value.map(text))
        .with_read_only(key.read_only)
        .with_config_source(key.source as i8)
        .with_synonyms(synonyms.collect())
        .with_config_type(described::kind_number(key.kind))
        .with_documentation(terms.docs.then(|| key.doc.into()))
}
