//! Snapshots: there, whole, and holding the state that the metadata says they hold.

use bytes::Bytes;
use forebay_format::{CoordinatorSnapshot, ProducerSnapshotIndex, SnapshotIndexParse};
use forebay_store::{Key, Span};
use forebay_types::{Offset, TopicPartition};

use super::object::{Checked, Checker, TAIL_SIZE, told, unreadable};
use super::{Finding, Severity};
use crate::catalog::{Named, Use};

impl Checker {
    /// A producer snapshot, for each partition that names it.
    pub(super) async fn producers(&self, key: &Key, named: &Named, checked: &mut Checked) {
        let index = match self.producer_index(key, named).await {
            Ok(index) => index,
            Err(what) => {
                checked.findings = self.spoiled(key.as_str(), named, &what);
                return;
            }
        };
        for used in &named.uses {
            let result = match used {
                Use::Producers { partition, at } => self.producers_of(key, &index, *partition, *at).await,
                Use::Range { .. } | Use::Coordinator { .. } => {
                    Err("it is named as something else than a producer snapshot".to_owned())
                }
            };
            checked.blocks += 1;
            checked.findings.extend(result.err().map(|what| self.of_use(key, used, what)));
        }
    }

    async fn producer_index(&self, key: &Key, named: &Named) -> Result<ProducerSnapshotIndex, String> {
        let mut span = Span::Last(TAIL_SIZE);
        loop {
            let object = self.store.read(key, span).await.map_err(|error| told(&error, Some(named.size)))?;
            let size = object.meta.size;
            if size != named.size {
                return Err(format!("it has {size} bytes, the metadata says {}", named.size));
            }
            match ProducerSnapshotIndex::parse(&object.bytes, size).map_err(|error| unreadable(&error))? {
                SnapshotIndexParse::Whole(index) => return Ok(index),
                SnapshotIndexParse::NeedMore { from } if from < object.start => span = Span::From(from),
                SnapshotIndexParse::NeedMore { .. } => return Err("its footer lies past its beginning".to_owned()),
            }
        }
    }

    async fn producers_of(
        &self,
        key: &Key,
        index: &ProducerSnapshotIndex,
        partition: TopicPartition,
        at: Offset,
    ) -> Result<(), String> {
        let log = self.catalog.partitions.get(&partition).map(|row| row.log);
        let found = log.and_then(|log| index.find(partition, log)).filter(|found| found.at == at);
        let Some(place) = found else {
            return Err(format!("it has no producer state of the partition at offset {at}"));
        };
        let end = place.position + u64::from(place.length);
        let bytes: Bytes = self.store.get_range(key, place.position..end).await.map_err(|error| told(&error, None))?;
        place.parse(&bytes).map(drop).map_err(|error| unreadable(&error))
    }

    /// A coordinator's snapshot.
    pub(super) async fn coordinator(&self, key: &Key, named: &Named, checked: &mut Checked) {
        let parsed = match self.store.get(key).await {
            Ok(bytes) => CoordinatorSnapshot::parse(&bytes).map_err(|error| unreadable(&error)),
            Err(error) => Err(told(&error, Some(named.size))),
        };
        let snapshot = match parsed {
            Ok(snapshot) => snapshot,
            Err(what) => {
                checked.findings = self.spoiled(key.as_str(), named, &what);
                return;
            }
        };
        for used in &named.uses {
            let agrees = matches!(used, Use::Coordinator { partition, at }
                if (*partition, *at) == (snapshot.partition, snapshot.at));
            if !agrees {
                let what = format!("it is of partition {} at offset {}", snapshot.partition, snapshot.at);
                checked.findings.push(self.of_use(key, used, what));
            }
        }
    }

    fn of_use(&self, key: &Key, used: &Use, what: String) -> Finding {
        Finding::new(Severity::Error, what).in_object(key.as_str()).of(self.catalog.place(used.partition()))
    }
}
