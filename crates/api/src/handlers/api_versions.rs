//! ApiVersions, key 18, versions 0 to 4. KIP-35, KIP-511 (unknown versions, client software), KIP-584 (features).
//!
//! Differs from Kafka: no features, neither supported nor finalised. `transaction.version` is left out on purpose: a
//! client that finds it goes over to Transactions V2.

use forebay_wire::ErrorCode;
use forebay_wire::encode_response;
use forebay_wire::kafka::messages::api_versions_response::ApiVersion;
use forebay_wire::kafka::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::apis::{APIS, Api};
use crate::call::{Call, CallError, Reply};
use crate::context::Context;

/// The first version that names the client's software.
const SOFTWARE_VERSION: i16 = 3;

pub(crate) async fn handle(_: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: ApiVersionsRequest = call.decode()?;
    let named = is_software(&request.client_software_name) && is_software(&request.client_software_version);
    if call.version() >= SOFTWARE_VERSION && !named {
        let code = ErrorCode::InvalidRequest.code();
        return call.answer(&ApiVersionsResponse::default().with_error_code(code));
    }
    call.answer(&ApiVersionsResponse::default().with_api_keys(APIS.iter().map(row).collect()))
}

/// Answers a version that is not known, in version 0 and with this API's own row.
pub(crate) fn unsupported(api: &Api, call: &Call<'_>) -> Result<Reply, CallError> {
    let response = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(vec![row(api)]);
    Ok(Reply::Now(vec![encode_response(call.header.correlation_id, 0, &response)?.freeze()]))
}

fn row(api: &Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key)
        .with_min_version(api.advertised_from)
        .with_max_version(api.version_max())
}

/// Letters, digits, dots and dashes, a letter or digit at both ends (KIP-511).
fn is_software(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    name.bytes().all(inner) && end(name.as_bytes().first()) && end(name.as_bytes().last())
}
