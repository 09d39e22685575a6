//! The cluster and its brokers.

use forebay_types::BrokerId;
use forebay_wire::kafka::messages::{DescribeClusterRequest, DescribeClusterResponse};

use super::Admin;
use crate::ClientError;
use crate::cluster::{Repeat, Target, retriable};
use crate::kafka::{check, malformed, optional_text};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    pub id: String,
    pub controller: Option<BrokerId>,
    /// By id.
    pub brokers: Vec<BrokerEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerEndpoint {
    pub id: BrokerId,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

impl Admin {
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, ClientError> {
        let what = "describe the cluster";
        let build = |_| DescribeClusterRequest::default();
        let again = |r: &DescribeClusterResponse| retriable([r.error_code].into_iter());
        let response = self.client.call(what, Target::Any, Repeat::Harmless, build, again).await?;
        check(what, response.error_code, response.error_message.as_ref())?;
        let mut brokers = Vec::new();
        for broker in response.brokers {
            brokers.push(BrokerEndpoint {
                id: BrokerId::new(broker.broker_id.0).map_err(|error| malformed(what, error.to_string()))?,
                host: broker.host.to_string(),
                port: u16::try_from(broker.port).map_err(|_| malformed(what, format!("port {}", broker.port)))?,
                rack: optional_text(broker.rack.as_ref()),
            });
        }
        brokers.sort_unstable_by_key(|broker| broker.id);
        let controller = BrokerId::new(response.controller_id.0).ok();
        Ok(ClusterDescription { id: response.cluster_id.to_string(), controller, brokers })
    }

    /// Every broker's id, for what each broker knows only of itself.
    pub(super) async fn nodes(&self) -> Result<Vec<BrokerId>, ClientError> {
        Ok(self.describe_cluster().await?.brokers.into_iter().map(|broker| broker.id).collect())
    }
}
