//! Groups: list, describe, delete.

use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, ListGroupsRequest,
    ListGroupsResponse,
};

use super::Admin;
use crate::ClientError;
use crate::cluster::{CoordinatorKind, Repeat, Target, retriable};
use crate::group::decode_assignment;
use crate::kafka::{Partition, check, code, malformed, only, optional_text, wire_group};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    pub group: String,
    /// `consumer` for consumers; empty for a group that only holds offsets.
    pub protocol_type: String,
    /// From brokers that tell it: `Stable`, `Empty` …
    pub state: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub group: String,
    /// `Dead` where there is no such group.
    pub state: String,
    pub protocol_type: String,
    /// The assignor chosen.
    pub protocol: String,
    pub members: Vec<GroupMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub host: String,
    /// Of a consumer group in balance.
    pub assigned: Vec<Partition>,
}

impl Admin {
    /// The groups of all brokers, by name.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, ClientError> {
        let what = "list groups";
        let mut groups = Vec::new();
        for node in self.nodes().await? {
            let build = |_| ListGroupsRequest::default();
            let again = |r: &ListGroupsResponse| retriable([r.error_code].into_iter());
            let target = Target::Node(node.get());
            let response = self.client.call(what, target, Repeat::Harmless, build, again).await?;
            check(what, response.error_code, None)?;
            groups.extend(response.groups.into_iter().map(|group| GroupListing {
                group: group.group_id.to_string(),
                protocol_type: group.protocol_type.to_string(),
                state: optional_text(Some(&group.group_state)),
            }));
        }
        groups.sort_unstable();
        Ok(groups)
    }

    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, ClientError> {
        let what = format!("describe group {group}");
        let build = |_| DescribeGroupsRequest::default().with_groups(vec![wire_group(group)]);
        let again = |r: &DescribeGroupsResponse| retriable(r.groups.iter().map(|group| group.error_code));
        let target = Target::Coordinator(CoordinatorKind::Group, group);
        let response = self.client.call(&what, target, Repeat::Harmless, build, again).await?;
        let found = only(&what, response.groups)?;
        // Versions from 6 on answer with a code what earlier ones call a dead group.
        if code(found.error_code) != ErrorCode::GroupIdNotFound {
            check(&what, found.error_code, found.error_message.as_ref())?;
        }
        let is_consumer = found.protocol_type.as_str() == "consumer";
        let mut members = Vec::new();
        for member in found.members {
            let assigned = if is_consumer { decode_assignment(&member.member_assignment) } else { Ok(Vec::new()) };
            members.push(GroupMember {
                member: member.member_id.to_string(),
                instance: optional_text(member.group_instance_id.as_ref()),
                client_id: member.client_id.to_string(),
                host: member.client_host.to_string(),
                assigned: assigned.map_err(|reason| malformed(&what, reason))?,
            });
        }
        members.sort_unstable_by(|a, b| a.member.cmp(&b.member));
        Ok(GroupDescription {
            group: group.to_owned(),
            state: found.group_state.to_string(),
            protocol_type: found.protocol_type.to_string(),
            protocol: found.protocol_data.to_string(),
            members,
        })
    }

    /// Deletes a group without members, its offsets with it.
    pub async fn delete_group(&self, group: &str) -> Result<(), ClientError> {
        let what = format!("delete group {group}");
        let build = |_| DeleteGroupsRequest::default().with_groups_names(vec![wire_group(group)]);
        let again = |r: &DeleteGroupsResponse| retriable(r.results.iter().map(|group| group.error_code));
        let target = Target::Coordinator(CoordinatorKind::Group, group);
        let response = self.client.call(&what, target, Repeat::Harmful, build, again).await?;
        check(&what, only(&what, response.results)?.error_code, None)
    }
}
