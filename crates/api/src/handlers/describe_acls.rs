//! DescribeAcls, key 29, versions 1 to 3. KIP-140. There is no authorizer, and tools are told so in Kafka's way.

use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::{DescribeAclsRequest, DescribeAclsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;

pub(crate) async fn handle(_: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let _: DescribeAclsRequest = call.decode()?;
    let response = DescribeAclsResponse::default()
        .with_error_code(ErrorCode::SecurityDisabled.code())
        .with_error_message(Some("No Authorizer is configured.".into()));
    call.answer(&response)
}
