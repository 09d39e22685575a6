//! Which version of each API to speak: what the message types can encode, capped by what this client means.

use std::collections::BTreeMap;
use std::fmt;

use forebay_wire::kafka::messages::{ApiKey, ApiVersionsResponse};
use forebay_wire::kafka::protocol::{Message, Request};

/// What a broker offers, by API key.
pub(crate) struct Versions(BTreeMap<i16, Range>);

/// Versions from `min` to `max`, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

impl Versions {
    /// Before the negotiation.
    pub(crate) fn unknown() -> Self {
        Self(BTreeMap::new())
    }

    pub(crate) fn of(response: &ApiVersionsResponse) -> Self {
        let range = |key: &forebay_wire::kafka::messages::api_versions_response::ApiVersion| {
            (key.api_key, Range { min: key.min_version, max: key.max_version })
        };
        Self(response.api_keys.iter().map(range).collect())
    }

    /// The highest version of `R` that both sides speak, or what the broker offers instead.
    pub(crate) fn choose<R: Request>(&self, at_most: i16) -> Result<i16, String> {
        let ours = ours::<R>(at_most);
        let Some(theirs) = self.0.get(&R::KEY) else { return Err("none".to_owned()) };
        let version = ours.max.min(theirs.max);
        if version >= ours.min.max(theirs.min) { Ok(version) } else { Err(theirs.to_string()) }
    }
}

/// The versions of `R` that this client speaks, at most `at_most`.
pub(crate) fn ours<R: Request>(at_most: i16) -> Range {
    let all = <R as Message>::VERSIONS;
    Range { min: all.min, max: all.max.min(at_most).min(cap(R::KEY)) }
}

/// Caps where a newer version means another protocol than the one spoken here: Transactions V2 (KIP-890: Produce 12,
/// EndTxn 5, TxnOffsetCommit 5, AddPartitionsToTxn 4 between brokers), topic ids in place of names (Produce 13,
/// OffsetCommit and OffsetFetch 10), prepared transactions (KIP-939: InitProducerId 6).
fn cap(key: i16) -> i16 {
    match ApiKey::try_from(key) {
        Ok(ApiKey::Produce) => 11,
        Ok(ApiKey::Fetch) => 17,
        Ok(ApiKey::OffsetCommit | ApiKey::OffsetFetch) => 9,
        Ok(ApiKey::InitProducerId) => 5,
        Ok(ApiKey::AddPartitionsToTxn) => 3,
        Ok(ApiKey::EndTxn | ApiKey::TxnOffsetCommit) => 4,
        _ => i16::MAX,
    }
}

#[cfg(test)]
mod tests {
    use forebay_wire::kafka::messages::api_versions_response::ApiVersion;
    use forebay_wire::kafka::messages::{EndTxnRequest, FetchRequest, ProduceRequest};

    use super::*;

    /// The highest common version is chosen, within the caps, and a gap between both ranges is named.
    #[test]
    fn the_highest_common_version_wins() {
        let offer = |key, min, max| ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max);
        let response =
            ApiVersionsResponse::default().with_api_keys(vec![offer(0, 0, 13), offer(26, 0, 2), offer(1, 99, 100)]);
        let versions = Versions::of(&response);
        assert_eq!(versions.choose::<ProduceRequest>(i16::MAX), Ok(11), "capped below Transactions V2");
        assert_eq!(versions.choose::<ProduceRequest>(7), Ok(7), "the caller's own cap");
        assert_eq!(versions.choose::<EndTxnRequest>(i16::MAX), Ok(2), "the broker's cap");
        assert_eq!(versions.choose::<FetchRequest>(i16::MAX), Err("99 to 100".to_owned()));
        assert_eq!(Versions::unknown().choose::<FetchRequest>(i16::MAX), Err("none".to_owned()));
    }
}
