//! DescribeCluster, key 60, versions 0 to 1. KIP-700, KIP-919 (endpoint type).

use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::describe_cluster_response::DescribeClusterBroker;
use forebay_wire::kafka::messages::{DescribeClusterRequest, DescribeClusterResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::handlers::metadata::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED};
use crate::lookup::text;

/// The endpoint types of KIP-919.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: DescribeClusterRequest = call.decode()?;
    let refuse = |code: ErrorCode, message: &'static str| {
        DescribeClusterResponse::default()
            .with_error_code(code.code())
            .with_error_message(Some(message.into()))
            .with_controller_id((-1).into())
            .with_cluster_authorized_operations(OPERATIONS_NOT_ASKED)
    };
    let operations =
        if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { OPERATIONS_NOT_ASKED };
    let response = match request.endpoint_type {
        BROKERS => DescribeClusterResponse::default()
            .with_error_message(None)
            .with_cluster_id(text(context.cluster.as_str()))
            .with_controller_id(context.broker().get().into())
            .with_brokers(vec![
                DescribeClusterBroker::default()
                    .with_broker_id(context.broker().get().into())
                    .with_host(text(&*context.advertised.host))
                    .with_port(i32::from(context.advertised.port))
                    .with_rack(None),
            ])
            .with_cluster_authorized_operations(operations),
        CONTROLLERS => refuse(ErrorCode::MismatchedEndpointType, "This is an endpoint of brokers, not of controllers."),
        _ => refuse(ErrorCode::UnsupportedEndpointType, "There are no endpoints of this type."),
    };
    call.answer(&response)
}
