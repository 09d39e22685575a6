//! The task around one transaction machine.
//!
//! Invariants:
//! 1. An answer waits for what it rests on, not for all that the machine has appended: a verification of an old
//!    transaction does not wait for another's new one.
//! 2. Of each ending transaction the markers are carried out at most once at a time; when the last is durable, the
//!    machine is told in this task.
//! 3. An id expires only while this clock and the store's agree (D10). Transactions time out by a clock that never jumps
//!    and that stands still with the WAL; what waits in line is taken before time is up for anybody.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_format::CoordinatorKind;
use forebay_types::{Offset, PartitionIndex, WalPosition};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};

use super::held::Held;
use super::ledger::{Ended, Ledger};
use super::load::{Entry, LoadError, Loaded, Loader, load};
use super::markers::carry_out;
use super::seats::{Progress, in_line};
use super::snapshots::{Snapshots, Taken};
use super::{Coordinators, Shared};
use crate::machine::txn::{Answer, Input, Markers, Request, TxnLoader, TxnMachine, TxnOutput};
use crate::machine::{Now, Token};

/// Transactions of one machine whose markers are under way at once. Others wait in line: each is one that the machine
/// holds as ending, so the line is no longer than the machine is large.
const CARRIED_MAX: usize = 1_024;

/// Between looks at clocks that do not agree, once an id would have expired.
const CLOCKS_WAIT: Duration = Duration::from_mins(1);

/// A request to a transaction machine.
pub(super) struct TxnInput {
    pub request: Request,
    pub reply: oneshot::Sender<Answer>,
}

/// The transactional id that a request is about.
pub(super) fn id_of(request: &Request) -> &str {
    match request {
        Request::InitProducerId(init) => &init.transactional_id,
        Request::AddPartitions(add) => &add.transactional_id,
        Request::EndTxn(end) => &end.transactional_id,
        Request::Verify(verify) => &verify.transactional_id,
        Request::Describe { transactional_id } => transactional_id,
        Request::List(_) => panic!("a listing is about all transactional ids"),
    }
}

impl Loader for TxnLoader {
    const KIND: CoordinatorKind = CoordinatorKind::Transaction;

    fn new(shared: &Shared) -> Self {
        Self::new(shared.config.txns)
    }

    fn restore(shared: &Shared, payload: &[u8]) -> Result<Self, LoadError> {
        Ok(Self::restore(shared.config.txns, payload)?)
    }

    fn take(&mut self, entry: Entry<'_>) -> Result<(), LoadError> {
        match entry {
            Entry::Record { offset, key, value, headers, .. } => Ok(self.replay(offset, key, value, headers)?),
            // Nobody writes in a transaction here.
            Entry::Marker { .. } => Ok(()),
        }
    }

    fn known_end(&self) -> Option<Offset> {
        Some(self.log_end())
    }
}

/// Opens the partition's machine, and runs it until the broker epoch or the host ends.
pub(super) async fn run(
    shared: Arc<Shared>,
    host: Weak<Coordinators>,
    index: PartitionIndex,
    inputs: mpsc::Receiver<TxnInput>,
    progress: watch::Sender<Progress>,
) {
    let Some(loaded) = load::<TxnLoader>(&shared, index).await else { return };
    let Loaded { loader, partition, snapshot_at, replayed } = loaded;
    let (now, leader_epoch, log_end) = (shared.now(), partition.leader_epoch(), partition.log_end());
    let open = move || loader.open(now, leader_epoch, log_end);
    let (machine, opened) = shared.env.blocking("coordinator-open", open).await;
    let task = TxnTask {
        ledger: Ledger::new(Arc::clone(&shared), Arc::clone(&partition), replayed),
        held: Held::start(&shared.env, &shared.wal),
        snapshots: Snapshots::new(Arc::clone(&shared), partition, CoordinatorKind::Transaction, snapshot_at),
        deadline: None,
        in_line: VecDeque::new(),
        carried: FuturesUnordered::new(),
        host,
        shared,
    };
    tracing::debug!(partition = %index, replayed, ids = machine.ids(), "transaction coordinator open");
    task.run(machine, opened, inputs, progress).await;
}

struct TxnTask {
    shared: Arc<Shared>,
    host: Weak<Coordinators>,
    ledger: Ledger,
    held: Held,
    snapshots: Snapshots,
    /// When the machine wants to be told the time.
    deadline: Option<Duration>,
    /// Markers to carry out, with the position of their Prepare record.
    in_line: VecDeque<(Markers, WalPosition)>,
    carried: FuturesUnordered<BoxFuture<'static, Result<Input, Ended>>>,
}

impl TxnTask {
    async fn run(
        mut self,
        machine: TxnMachine,
        opened: TxnOutput,
        mut inputs: mpsc::Receiver<TxnInput>,
        progress: watch::Sender<Progress>,
    ) {
        let Ok(machine) = self.serve(machine, opened, &mut inputs, progress).await else { return };
        drop(inputs);
        if self.ledger.records() > 0 {
            self.snapshot(machine).await;
        }
        self.held.release().await;
        self.snapshots.finish().await;
    }

    /// Gives the machine back when the host stops.
    async fn serve(
        &mut self,
        mut machine: TxnMachine,
        opened: TxnOutput,
        inputs: &mut mpsc::Receiver<TxnInput>,
        progress: watch::Sender<Progress>,
    ) -> Result<TxnMachine, Ended> {
        self.settle(opened, None).await?;
        progress.send_replace(Progress::Open);
        loop {
            self.do_what_is_due(&mut machine, inputs).await?;
            if self.ledger.records() >= self.shared.config.records_per_snapshot && self.snapshots.is_idle() {
                machine = self.snapshot(machine).await;
            }
            self.carry_next();
            let (shared, wake) = (Arc::clone(&self.shared), self.deadline);
            let due = async {
                match wake {
                    Some(wake) => shared.sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.shared.stopping.triggered() => return Ok(machine),
                Some(written) = self.carried.next(), if !self.carried.is_empty() => {
                    let output = machine.handle(self.shared.now(), written?);
                    self.settle(output, None).await?;
                }
                input = inputs.recv() => match input {
                    Some(input) => self.take(&mut machine, input).await?,
                    None => return Ok(machine),
                },
                () = due => {}
            }
        }
    }

    async fn do_what_is_due(
        &mut self,
        machine: &mut TxnMachine,
        inputs: &mut mpsc::Receiver<TxnInput>,
    ) -> Result<(), Ended> {
        let is_due = |deadline: Option<Duration>, now: Now| deadline.is_some_and(|deadline| deadline <= now.uptime);
        if is_due(self.deadline, self.shared.now()) {
            for input in in_line(inputs) {
                self.take(machine, input).await?;
            }
        }
        let now = self.shared.now();
        if !is_due(self.deadline, now) {
            return Ok(());
        }
        if self.shared.clocks_agree(now) {
            return self.settle(machine.handle(now, Input::Tick), None).await;
        }
        self.settle(machine.handle(now, Input::TimeOuts), None).await?;
        let again = now.uptime + CLOCKS_WAIT;
        self.deadline = Some(self.deadline.map_or(again, |deadline| deadline.min(again)));
        Ok(())
    }

    fn carry_next(&mut self) {
        while self.carried.len() < CARRIED_MAX
            && let Some((markers, prepared)) = self.in_line.pop_front()
        {
            let (shared, host) = (Arc::clone(&self.shared), Weak::clone(&self.host));
            self.carried.push(Box::pin(carry_out(shared, host, markers, prepared)));
        }
    }

    async fn take(&mut self, machine: &mut TxnMachine, input: TxnInput) -> Result<(), Ended> {
        let TxnInput { request, reply } = input;
        let fresh = match &request {
            Request::InitProducerId(init) => init.fresh,
            _ => None,
        };
        // Each request is answered in its own output, so one token is enough.
        let output = machine.handle(self.shared.now(), Input::Request { token: Token(0), request });
        if let (Some(unused), false) = (fresh, output.took_fresh) {
            self.shared.ids.give_back(unused);
        }
        self.settle(output, Some(reply)).await
    }

    async fn settle(&mut self, output: TxnOutput, caller: Option<oneshot::Sender<Answer>>) -> Result<(), Ended> {
        assert_eq!(output.base_offset, self.ledger.end(), "the machine and its log agree on the next offset");
        self.ledger.append(&output.records, None).await?;
        self.deadline = output.deadline;
        for markers in output.markers {
            let prepared = self.ledger.position_of(markers.prepare_offset.next());
            self.in_line.push_back((markers, prepared));
        }
        if let (Some(caller), Some(reply)) = (caller, output.replies.into_iter().next()) {
            let position = self.ledger.position_of(reply.rests_on);
            self.held.hold(position, move || drop(caller.send(reply.answer))).await;
        }
        Ok(())
    }

    async fn snapshot(&mut self, machine: TxnMachine) -> TxnMachine {
        let position = self.ledger.position();
        let work = move || {
            let snapshot = machine.snapshot();
            (machine, snapshot)
        };
        let (machine, snapshot) = self.shared.env.blocking("coordinator-snapshot", work).await;
        assert_eq!(snapshot.log_end, self.ledger.end(), "a snapshot holds what was appended");
        self.snapshots.write(Taken { at: snapshot.log_end, position, payload: snapshot.bytes }).await;
        self.ledger.begin_anew();
        machine
    }
}
