//! One object: there, of the right size, its footer whole and in agreement with the metadata, every block's checksum
//! right. With `deep` also every batch's.

use std::sync::Arc;

use bytes::Bytes;
use forebay_env::Env;
use forebay_format::{
    BlockIndex, Footer, FooterParse, FormatError, ObjectHead, ObjectName, Section, WalObject, WalObjectParse,
};
use forebay_store::{Key, Span, Store, StoreError, StoreErrorKind};
use forebay_types::{LogId, Offset, OffsetRange, TopicPartition};
use forebay_wire::{Batches, batch};

use super::logs::last_before;
use super::{Finding, PIECE_SIZE, Severity};
use crate::catalog::{Catalog, Named, Use};

/// The end of an object that is read first where the metadata does not say where the footer begins.
pub(super) const TAIL_SIZE: u64 = 64 << 10;

/// What the checks of objects work with.
#[derive(Clone)]
pub(super) struct Checker {
    pub env: Env,
    pub store: Arc<dyn Store>,
    pub catalog: Arc<Catalog>,
    pub deep: bool,
}

/// What one object gave.
#[derive(Default)]
pub(super) struct Checked {
    pub findings: Vec<Finding>,
    pub blocks: u64,
    pub records: u64,
    pub batches: u64,
    pub fences: u64,
}

/// Blocks that lie one behind the other: the section of each, and its place.
type Run = Vec<(usize, BlockIndex)>;

impl Checker {
    /// An object that the metadata names; its size there.
    pub async fn named(self, name: Arc<str>) -> (u64, Checked) {
        let catalog = Arc::clone(&self.catalog);
        let named = &catalog.objects[&name];
        let mut checked = Checked::default();
        match (name.parse::<ObjectName>(), Key::new(&name)) {
            (Ok(kind), Ok(key)) => self.kind(&key, kind, named, &mut checked).await,
            _ => checked.findings = self.spoiled(&name, named, "no object can have this name"),
        }
        (named.size, checked)
    }

    async fn kind(&self, key: &Key, name: ObjectName, named: &Named, checked: &mut Checked) {
        match name {
            ObjectName::Data { .. } | ObjectName::Wal { .. } => self.data(key, name, named, checked).await,
            ObjectName::ProducerSnapshot { .. } => self.producers(key, named, checked).await,
            ObjectName::CoordinatorSnapshot { .. } => self.coordinator(key, named, checked).await,
            ObjectName::Journal { .. } => {
                checked.findings = self.spoiled(key.as_str(), named, "a journal entry is named as if it held records");
            }
        }
    }

    async fn data(&self, key: &Key, name: ObjectName, named: &Named, checked: &mut Checked) {
        let footer = match self.footer(key, named).await {
            Ok(footer) => footer,
            Err(what) => {
                checked.findings = self.spoiled(key.as_str(), named, &what);
                return;
            }
        };
        if let Err(what) = self.belongs(&footer.head, name) {
            checked.findings = self.spoiled(key.as_str(), named, &what);
            return;
        }
        for used in &named.uses {
            checked.findings.extend(self.agrees(key, &footer, used));
        }
        let in_use = |section: &Section, block: &BlockIndex| self.is_in_use(named, section, block);
        self.blocks(key, Arc::new(footer), &in_use, checked).await;
    }

    /// An object of an `object` WAL that may hold acknowledged records and is not committed.
    pub async fn wal_object(&self, name: &str) -> Checked {
        let mut checked = Checked::default();
        let parsed = match (name.parse::<ObjectName>(), Key::new(name)) {
            (Ok(parsed), Ok(key)) => self.wal_contents(&key).await.map(|contents| (key, parsed, contents)),
            _ => Err("no object can have this name".to_owned()),
        };
        match parsed {
            Ok((_, _, WalObject::Fence(_))) => checked.fences = 1,
            Ok((key, parsed, WalObject::Data(footer))) => match self.belongs(&footer.head, parsed) {
                Ok(()) => self.blocks(&key, Arc::new(footer), &|_, _| true, &mut checked).await,
                Err(what) => checked.findings.push(Finding::new(Severity::Error, what).in_object(name)),
            },
            Err(what) => {
                let what = format!("{what}; acknowledged records may be behind it");
                checked.findings.push(Finding::new(Severity::Error, what).in_object(name));
            }
        }
        checked
    }

    async fn wal_contents(&self, key: &Key) -> Result<WalObject, String> {
        let mut span = Span::Last(TAIL_SIZE);
        loop {
            let object = self.store.read(key, span).await.map_err(|error| told(&error, None))?;
            match WalObject::parse(&object.bytes, object.meta.size).map_err(|error| unreadable(&error))? {
                WalObjectParse::Whole(contents) => return Ok(contents),
                WalObjectParse::NeedMore { from } if from < object.start => span = Span::From(from),
                WalObjectParse::NeedMore { .. } => return Err("its footer lies past its beginning".to_owned()),
            }
        }
    }

    async fn footer(&self, key: &Key, named: &Named) -> Result<Footer, String> {
        let mut span = named.footer_position.map_or(Span::Last(TAIL_SIZE), Span::From);
        loop {
            let object = self.store.read(key, span).await.map_err(|error| told(&error, Some(named.size)))?;
            if object.meta.size != named.size {
                return Err(wrong_size(object.meta.size, named.size));
            }
            match Footer::parse(&object.bytes, object.meta.size).map_err(|error| unreadable(&error))? {
                FooterParse::Whole(footer) => return Ok(footer),
                FooterParse::NeedMore { from } if from < object.start => span = Span::From(from),
                FooterParse::NeedMore { .. } => return Err("its footer lies past its beginning".to_owned()),
            }
        }
    }

    /// Whether a footer is the one of that name.
    fn belongs(&self, head: &ObjectHead, name: ObjectName) -> Result<(), String> {
        if head.cluster != self.catalog.cluster {
            return Err(format!("its footer says that it is of cluster {}", head.cluster));
        }
        match name {
            ObjectName::Data { broker, epoch, sequence } | ObjectName::Wal { broker, epoch, sequence }
                if (broker, epoch, sequence) != (head.broker, head.broker_epoch, head.sequence) =>
            {
                let ObjectHead { broker, broker_epoch, sequence, .. } = head;
                Err(format!("its footer says that it is number {sequence} of broker {broker} in epoch {broker_epoch}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the footer has what the metadata says is there.
    fn agrees(&self, key: &Key, footer: &Footer, used: &Use) -> Vec<Finding> {
        let Use::Range { partition, log, range, bytes } = *used else {
            return vec![
                Finding::new(Severity::Error, "it is named as a snapshot and holds records").in_object(key.as_str()),
            ];
        };
        let finding = |what: String, range: OffsetRange| {
            let finding = Finding::new(Severity::Error, what).in_object(key.as_str()).of(self.catalog.place(partition));
            finding.with_offsets(range.start(), last_before(range.end()))
        };
        let sections: Vec<&Section> = footer.sections_of(partition, log).collect();
        let (Some(first), Some(last)) = (sections.first(), sections.last()) else {
            return vec![finding(format!("its footer has nothing of log {log}"), range)];
        };
        let (start, end) = (first.range.start(), last.range.end());
        let follow = sections.windows(2).all(|pair| pair[0].range.end() == pair[1].range.start());
        if (start, end) != (range.start(), range.end()) || !follow {
            return vec![finding(format!("its footer has offsets [{start}, {end}) of log {log}"), range)];
        }
        let held: u64 = sections.iter().map(|section| section.bytes).sum();
        let mut found = Vec::new();
        if held != bytes {
            found.push(finding(format!("its footer has {held} bytes of them, the metadata says {bytes}"), range));
        }
        let log_start = self.log_start(partition);
        for lost in sections.iter().flat_map(|section| &section.lost).filter(|lost| lost.end() > log_start) {
            let what = "these records were acknowledged and then lost to a corrupt WAL block";
            found.push(finding(what.to_owned(), *lost));
        }
        found
    }

    fn log_start(&self, partition: TopicPartition) -> Offset {
        self.catalog.partitions.get(&partition).map_or(Offset::ZERO, |row| row.log_start)
    }

    /// Whether a reader may ask for what is in a block.
    fn is_in_use(&self, named: &Named, section: &Section, block: &BlockIndex) -> bool {
        let of_section =
            |partition: TopicPartition, log: LogId| (partition, log) == (section.head.partition, section.head.log);
        let names_it = |used: &Use| match used {
            Use::Range { partition, log, range, .. } => {
                of_section(*partition, *log) && range.contains(block.base_offset)
            }
            Use::Producers { .. } | Use::Coordinator { .. } => false,
        };
        block.last_offset >= self.log_start(section.head.partition) && named.uses.iter().any(names_it)
    }

    /// Every block of an object.
    async fn blocks(
        &self,
        key: &Key,
        footer: Arc<Footer>,
        in_use: &(dyn Fn(&Section, &BlockIndex) -> bool + Send + Sync),
        checked: &mut Checked,
    ) {
        for run in runs(&footer) {
            let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else { continue };
            let (start, end) = (first.position, last.position + u64::from(last.length));
            checked.blocks += run.len() as u64;
            let bad = match self.store.get_range(key, start..end).await {
                Ok(bytes) => {
                    let (of, deep) = (Arc::clone(&footer), self.deep);
                    let work = move || check_run(&of, &run, start, &bytes, deep);
                    let (bad, batches) = self.env.blocking("check-blocks", work).await;
                    checked.batches += batches;
                    bad
                }
                Err(error) => {
                    let what = told(&error, None);
                    run.into_iter().map(|(section, block)| (section, block, what.clone())).collect()
                }
            };
            for (section, block, what) in bad {
                let section = &footer.sections[section];
                let (severity, what) = if in_use(section, &block) {
                    (Severity::Error, what)
                } else {
                    (Severity::Warning, format!("{what}; nobody can read these records any more"))
                };
                let finding = Finding::new(severity, what).in_object(key.as_str()).at_block(block.position);
                let finding = finding.of(self.catalog.place(section.head.partition));
                checked.findings.push(finding.with_offsets(block.base_offset, block.last_offset));
            }
        }
        checked.records += footer.sections.iter().map(|section| section.records).sum::<u64>();
    }

    /// Damage to an object as a whole, told for everything that is in it.
    pub fn spoiled(&self, object: &str, named: &Named, what: &str) -> Vec<Finding> {
        if named.uses.is_empty() {
            return vec![Finding::new(Severity::Warning, format!("{what}; nothing in it is in use")).in_object(object)];
        }
        let one = |used: &Use| {
            let finding =
                Finding::new(Severity::Error, what).in_object(object).of(self.catalog.place(used.partition()));
            match used {
                Use::Range { range, .. } => finding.with_offsets(range.start(), last_before(range.end())),
                Use::Producers { .. } | Use::Coordinator { .. } => finding,
            }
        };
        named.uses.iter().map(one).collect()
    }
}

/// An object's blocks in order, cut where a read would get longer than [`PIECE_SIZE`].
fn runs(footer: &Footer) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut size = PIECE_SIZE;
    for (section, of_section) in footer.sections.iter().enumerate() {
        for block in &of_section.blocks {
            if size + u64::from(block.length) > PIECE_SIZE {
                runs.push(Vec::new());
                size = 0;
            }
            size += u64::from(block.length);
            runs.last_mut().expect("one was begun").push((section, *block));
        }
    }
    runs
}

/// The blocks of a run that are not as they were written, and how many batches were checked.
fn check_run(
    footer: &Footer,
    run: &[(usize, BlockIndex)],
    start: u64,
    bytes: &Bytes,
    deep: bool,
) -> (Vec<(usize, BlockIndex, String)>, u64) {
    let (mut bad, mut batches) = (Vec::new(), 0);
    for (section, block) in run {
        let at = usize::try_from(block.position - start).expect("within what was read");
        let block_bytes = bytes.slice(at..at + block.length as usize);
        let whole = footer.sections[*section].parse_block(&block_bytes, block).map_err(|error| unreadable(&error));
        let checked = match whole {
            Ok(payload) if deep => check_batches(&payload, block),
            Ok(_) => Ok(0),
            Err(what) => Err(what),
        };
        match checked {
            Ok(count) => batches += count,
            Err(what) => bad.push((*section, *block, what)),
        }
    }
    (bad, batches)
}

/// The batches of a block: each whole, in offset order, and together what the index says.
fn check_batches(payload: &Bytes, block: &BlockIndex) -> Result<u64, String> {
    let mut count = 0;
    let mut next = block.base_offset.get();
    for batch in Batches::new(payload) {
        let batch = batch.map_err(|error| format!("a batch behind offset {next} cannot be read: {error}"))?;
        let (first, last) = (batch.header.base_offset, batch.header.last_offset());
        batch::check_crc(batch.bytes).map_err(|error| format!("the batch at offset {first} is damaged: {error}"))?;
        if first < next || (count == 0 && first != next) || last > block.last_offset.get() {
            return Err(format!("a batch has offsets {first} to {last}, which are not in order here"));
        }
        next = last + 1;
        count += 1;
    }
    if next != block.last_offset.get() + 1 {
        return Err(format!("its batches end at offset {}, its index says {}", next - 1, block.last_offset));
    }
    Ok(count)
}

fn wrong_size(found: u64, wanted: u64) -> String {
    format!("it has {found} bytes, the metadata says {wanted}")
}

/// A failed read in words. `size` is what the metadata says.
pub(super) fn told(error: &StoreError, size: Option<u64>) -> String {
    match (error.kind(), size) {
        (StoreErrorKind::NotFound, _) => "it is missing".to_owned(),
        (StoreErrorKind::OutOfRange { size: found }, Some(wanted)) if found != wanted => wrong_size(found, wanted),
        _ => format!("it could not be read: {error}"),
    }
}

/// What is wrong with bytes; where they are the finding says.
pub(super) fn unreadable(error: &FormatError) -> String {
    format!("the {} at byte {} cannot be read: {}", error.layout(), error.position(), error.fault())
}
