//! Topics that go: offsets committed for one go with it, once it is gone for good. While it is in the trash they stay,
//! since it may come back; nobody is told of them then (`api` asks for live topics only).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use forebay_types::{TopicId, TopicName};

use super::groups::GroupInput;
use super::{Coordinators, Shared};

/// Follows the metadata. What goes while a machine is not open it finds out when it opens.
pub(super) async fn follow(shared: Arc<Shared>, host: Weak<Coordinators>) {
    let mut changes = shared.metadata.changes();
    let mut known = topics(&shared);
    while changes.changed().await.is_ok() {
        changes.mark_unchanged();
        let now = topics(&shared);
        for (id, name) in known.iter().filter(|(id, _)| !now.contains_key(*id)) {
            // Not yet, or no more.
            let Some(machines) = host.upgrade().map(|host| host.groups.all()) else { continue };
            for machine in machines {
                machine.send(GroupInput::TopicGone { name: name.clone(), id: *id }).await;
            }
        }
        known = now;
    }
}

/// Live ones and those in the trash.
fn topics(shared: &Shared) -> BTreeMap<TopicId, TopicName> {
    shared.metadata.topics().all().into_iter().map(|row| (row.id, row.name.clone())).collect()
}
