//! The aborted transactions of one partition: a `read_committed` fetch is told of those that reach into what it gets.
//!
//! Owns: finding them without looking at all, and forgetting them with the log start. Leaves to others: which transactions
//! are open or aborted (`producers`).
//!
//! They are in the order of their markers, so where a fetch's range begins is found by bisection. Where to stop is not: any
//! later marker may end a transaction that began before the range's end. So they lie in chunks, and each chunk knows below
//! which offset no transaction of a later one begins: those begin with what was still open at its last marker, or behind it.
//! Kafka notes the same with every entry of its transaction index (`lastStableOffset`).
//!
//! Invariants:
//! 1. No chunk is empty, and markers rise from one transaction to the next.
//! 2. The cost of a look-up does not grow with history. It looks at those whose marker lies in the range, goes on while one
//!    is open that began below the range's end and is aborted later, and ends with a whole chunk.
//! 3. Memory follows retained history: 24 bytes for each transaction whose marker is not below the log start, and one or two
//!    for its part of the chunk.
//!
//! Source: Kafka's `TransactionIndex`.

use std::collections::VecDeque;

use forebay_format::AbortedTxn;
use forebay_types::Offset;

/// Transactions in one chunk: few enough to be walked over without thinking, enough that chunks cost next to nothing.
const CHUNK_LENGTH: usize = 64;

const _: () = assert!(size_of::<AbortedTxn>() == 24 && size_of::<Chunk>() <= 32, "an aborted transaction has grown");

#[derive(Debug, Default)]
pub(crate) struct AbortedTxns {
    chunks: VecDeque<Chunk>,
}

#[derive(Debug)]
struct Chunk {
    txns: Vec<AbortedTxn>,
    /// No transaction of a later chunk begins below.
    later_first: Offset,
}

impl Chunk {
    fn last_marker(&self) -> Offset {
        self.txns.last().expect("no chunk is empty").last_offset
    }
}

impl AbortedTxns {
    /// Adds the transaction that was just aborted; `first_open` is where the first of those begins that are still open.
    pub fn push(&mut self, txn: AbortedTxn, first_open: Option<Offset>) {
        self.put(txn, first_later(&txn, first_open));
    }

    /// Adds transactions in the order of their markers, and knows only what is open behind the last of them.
    pub fn extend(&mut self, txns: &[AbortedTxn], first_open: Option<Offset>) {
        let Some(last) = txns.last() else { return };
        let mut first = first_later(last, first_open);
        let behind = |txn: &AbortedTxn| {
            let later_first = first;
            first = first.min(txn.first_offset);
            later_first
        };
        let later_firsts: Vec<Offset> = txns.iter().rev().map(behind).collect();
        for (txn, later_first) in txns.iter().zip(later_firsts.into_iter().rev()) {
            self.put(*txn, later_first);
        }
    }

    fn put(&mut self, txn: AbortedTxn, later_first: Offset) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.txns.len() < CHUNK_LENGTH => {
                chunk.txns.push(txn);
                chunk.later_first = later_first;
            }
            _ => self.chunks.push_back(Chunk { txns: vec![txn], later_first }),
        }
    }

    /// Those that reach into `[from, end)`, by their first offset.
    pub fn between(&self, from: Offset, end: Offset) -> Vec<AbortedTxn> {
        let mut found: Vec<_> = self.looked_at(from, end).filter(|txn| txn.first_offset < end).copied().collect();
        found.sort_by_key(|txn| txn.first_offset);
        found
    }

    /// From the first whose marker is not below `from` up to the end of a chunk behind which none begins below `end`.
    fn looked_at(&self, from: Offset, end: Offset) -> impl Iterator<Item = &AbortedTxn> {
        let first = self.chunks.partition_point(|chunk| chunk.last_marker() < from);
        let mut more = true;
        let chunks = self.chunks.range(first..).take_while(move |chunk| {
            let wanted = more;
            more = chunk.later_first < end;
            wanted
        });
        chunks.flat_map(move |chunk| &chunk.txns[chunk.txns.partition_point(|txn| txn.last_offset < from)..])
    }

    /// Those whose marker lies below `end`, in the order of markers.
    pub fn below(&self, end: Offset) -> Vec<AbortedTxn> {
        let all = self.chunks.iter().flat_map(|chunk| &chunk.txns);
        all.take_while(|txn| txn.last_offset < end).copied().collect()
    }

    /// Forgets those whose marker lies below the log start: nobody can read their records.
    pub fn forget_below(&mut self, log_start: Offset) {
        while self.chunks.pop_front_if(|chunk| chunk.last_marker() < log_start).is_some() {}
        if let Some(chunk) = self.chunks.front_mut() {
            chunk.txns.drain(..chunk.txns.partition_point(|txn| txn.last_offset < log_start));
        }
    }
}

/// Below this no transaction begins that is aborted after `txn`.
fn first_later(txn: &AbortedTxn, first_open: Option<Offset>) -> Offset {
    let behind = txn.last_offset.next();
    first_open.map_or(behind, |first| first.min(behind))
}

#[cfg(test)]
mod tests {
    use forebay_types::ProducerId;
    use proptest::prelude::*;

    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::new(raw).expect("not negative")
    }

    fn txn(producer: i64, first: i64, last: i64) -> AbortedTxn {
        let producer = ProducerId::new(producer).expect("not negative");
        AbortedTxn { producer, first_offset: offset(first), last_offset: offset(last) }
    }

    /// What a log does next: each takes one offset, but for the last two.
    #[derive(Clone, Debug)]
    enum Step {
        /// A producer's transaction begins, or goes on.
        Write(i64),
        Commit(i64),
        Abort(i64),
        /// The log start moves up by so many parts of a hundred.
        Retire(i64),
        /// Everything is read back: so many parts of a hundred from a snapshot, and the rest from footers of so many each.
        Reopen(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let producer = || prop_oneof![4 => 0..4_i64, 1 => 0..40_i64];
        prop_oneof![
            80 => producer().prop_map(Step::Write),
            8 => producer().prop_map(Step::Commit),
            80 => producer().prop_map(Step::Abort),
            1 => (0..30_i64).prop_map(Step::Retire),
            1 => (0..=100_usize, 1..100_usize).prop_map(|(part, each)| Step::Reopen(part, each)),
        ]
    }

    /// A log that knows its aborted transactions in both ways.
    #[derive(Default)]
    struct Log {
        end: i64,
        start: i64,
        /// First offsets by producer.
        open: std::collections::BTreeMap<i64, i64>,
        /// What happened, to be read back: the log end then, which transaction was aborted, where the first open one began.
        history: Vec<(i64, Option<AbortedTxn>, Option<Offset>)>,
        naive: Vec<AbortedTxn>,
        indexed: AbortedTxns,
    }

    impl Log {
        fn take(&mut self, step: &Step) {
            let first_open = |open: &std::collections::BTreeMap<i64, i64>| open.values().min().copied().map(offset);
            let mut aborted = None;
            match *step {
                Step::Write(producer) => {
                    self.open.entry(producer).or_insert(self.end);
                }
                Step::Commit(producer) => {
                    self.open.remove(&producer);
                }
                Step::Abort(producer) => {
                    aborted = self.open.remove(&producer).map(|first| txn(producer, first, self.end));
                    if let Some(aborted) = aborted {
                        self.naive.push(aborted);
                        self.indexed.push(aborted, first_open(&self.open));
                    }
                }
                Step::Retire(part) => {
                    self.start += (self.end - self.start) * part / 100;
                    self.naive.retain(|txn| txn.last_offset >= offset(self.start));
                    return self.indexed.forget_below(offset(self.start));
                }
                Step::Reopen(part, each) => {
                    self.indexed = AbortedTxns::default();
                    let (snapshot, footers) = self.history.split_at(self.history.len() * part / 100);
                    for range in std::iter::once(snapshot).chain(footers.chunks(each)) {
                        let txns: Vec<_> = range.iter().filter_map(|(_, aborted, _)| *aborted).collect();
                        self.indexed.extend(&txns, range.last().and_then(|(_, _, open)| *open));
                    }
                    return self.indexed.forget_below(offset(self.start));
                }
            }
            self.end += 1;
            self.history.push((self.end, aborted, first_open(&self.open)));
        }

        fn naive_between(&self, from: i64, end: i64) -> Vec<AbortedTxn> {
            let reaches = |txn: &&AbortedTxn| txn.last_offset.get() >= from && txn.first_offset.get() < end;
            let mut found: Vec<_> = self.naive.iter().filter(reaches).copied().collect();
            found.sort_by_key(|txn| txn.first_offset);
            found
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Whatever was begun, aborted, retired and read back: a look-up finds what looking at all of them finds.
        #[test]
        fn a_look_up_finds_what_a_walk_finds(
            steps in prop::collection::vec(step(), 0..1_500),
            (part, each) in (0..=100_usize, 1..1_000_usize),
            asked in prop::collection::vec((0..1_000_i64, 0..1_000_i64), 20),
        ) {
            let mut log = Log::default();
            for step in &steps {
                log.take(step);
            }
            for _ in 0..2 {
                prop_assert_eq!(log.indexed.below(offset(log.end)), log.naive.clone());
                prop_assert!(log.indexed.chunks.iter().all(|chunk| !chunk.txns.is_empty()));
                for (from, length) in &asked {
                    let from = log.start + (log.end - log.start) * from / 1_000;
                    let end = from + (log.end - from) * length / 1_000;
                    prop_assert_eq!(log.indexed.between(offset(from), offset(end)), log.naive_between(from, end));
                }
                log.take(&Step::Reopen(part, each));
            }
        }
    }

    /// A look-up in a hundred thousand looks at a chunk or two, wherever it is; what one transaction kept open for long
    /// makes it look at ends with that.
    #[test]
    fn a_look_up_looks_at_few() {
        const COUNT: i64 = 100_000;
        let mut txns = AbortedTxns::default();
        // Each has a record and a marker, and one more is open from the middle on for a thousand of them.
        let slow = (COUNT, COUNT + 2_000);
        for at in (0..COUNT).map(|n| 2 * n) {
            let is_open = (slow.0..slow.1).contains(&at);
            if at == slow.1 {
                txns.push(txn(2, slow.0, at), None);
            } else {
                txns.push(txn(1, at, at + 1), is_open.then(|| offset(slow.0)));
            }
        }
        let looked_at = |from: i64| txns.looked_at(offset(from), offset(from + 10)).count();
        for from in [0, 1_000, slow.0 - 1_000, slow.1 + 1_000, 2 * COUNT - 10] {
            assert!(looked_at(from) <= 2 * CHUNK_LENGTH, "{} from {from} on", looked_at(from));
        }
        assert!(looked_at(slow.0) >= 1_000, "the slow one is found behind them");
        assert!(looked_at(slow.0) <= 1_000 + 2 * CHUNK_LENGTH);
        assert_eq!(txns.between(offset(slow.0), offset(slow.0 + 2)).len(), 2);
    }

    /// What lies below the log start costs nothing any more.
    #[test]
    fn what_is_forgotten_is_freed() {
        let mut txns = AbortedTxns::default();
        for at in (0..10_000).map(|n| 2 * n) {
            txns.push(txn(1, at, at + 1), None);
        }
        assert_eq!(txns.chunks.len(), 10_000_usize.div_ceil(CHUNK_LENGTH));
        txns.forget_below(offset(19_001));
        assert_eq!(txns.below(offset(20_000)).len(), 500);
        assert!(txns.chunks.len() <= 500 / CHUNK_LENGTH + 2);
        txns.forget_below(offset(20_000));
        assert!(txns.chunks.is_empty());
    }
}
