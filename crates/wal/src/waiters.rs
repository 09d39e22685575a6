//! Who waits for which position, in order: a step forward wakes those it reaches and nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_types::WalPosition;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{WalEnded, WalError};

#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    durable: WalPosition,
    ended: Option<Arc<WalError>>,
    waiting: BTreeMap<(WalPosition, u64), oneshot::Sender<()>>,
    next_ticket: u64,
}

impl Waiters {
    pub fn durable(&self) -> WalPosition {
        self.0.lock().durable
    }

    pub fn ended(&self) -> Option<WalEnded> {
        self.0.lock().ended.clone().map(|reason| WalEnded { reason })
    }

    /// Returns once `position` is durable. Cancel safe.
    pub async fn wait(&self, position: WalPosition) -> Result<(), WalEnded> {
        let (key, woken) = {
            let mut state = self.0.lock();
            if state.durable >= position {
                return Ok(());
            }
            if let Some(reason) = &state.ended {
                return Err(WalEnded { reason: Arc::clone(reason) });
            }
            let key = (position, state.next_ticket);
            state.next_ticket += 1;
            let (wake, woken) = oneshot::channel();
            state.waiting.insert(key, wake);
            (key, woken)
        };
        let _place = Place { waiters: self, key };
        // Woken by a step or by the end; which of them, the state says.
        let _ = woken.await;
        let state = self.0.lock();
        if state.durable >= position {
            return Ok(());
        }
        let reason = state.ended.clone().expect("a waiter is woken when its position is durable or the WAL has ended");
        Err(WalEnded { reason })
    }

    /// Everything up to `position` is durable.
    pub fn advance(&self, position: WalPosition) {
        let reached = {
            let mut state = self.0.lock();
            assert!(position > state.durable, "the durable position only grows: {position} after {}", state.durable);
            assert!(state.ended.is_none(), "nothing becomes durable after the end");
            state.durable = position;
            let beyond = state.waiting.split_off(&(position.next(), 0));
            std::mem::replace(&mut state.waiting, beyond)
        };
        wake(reached);
    }

    /// Nothing more becomes durable. The first reason stays.
    pub fn end(&self, reason: Arc<WalError>) {
        let all = {
            let mut state = self.0.lock();
            state.ended.get_or_insert(reason);
            std::mem::take(&mut state.waiting)
        };
        wake(all);
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }
}

fn wake(waiting: BTreeMap<(WalPosition, u64), oneshot::Sender<()>>) {
    for wake in waiting.into_values() {
        // A waiter that has gone needs no waking.
        let _ = wake.send(());
    }
}

/// A place in the order, given up when the waiter is dropped.
struct Place<'a> {
    waiters: &'a Waiters,
    key: (WalPosition, u64),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiters.0.lock().waiting.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_step_wakes_those_it_reaches_and_the_end_wakes_the_rest() {
        let waiters = Waiters::default();
        let at = WalPosition::new;
        let (mut one, mut three) = (pin!(waiters.wait(at(1))), pin!(waiters.wait(at(3))));
        let mut gone = Box::pin(waiters.wait(at(2)));
        assert!((&mut one).now_or_never().is_none());
        assert!((&mut three).now_or_never().is_none());
        assert!((&mut gone).now_or_never().is_none());
        assert_eq!(waiters.waiting(), 3);
        drop(gone);
        assert_eq!(waiters.waiting(), 2, "who is dropped leaves no place behind");
        waiters.advance(at(2));
        assert!((&mut one).now_or_never().expect("woken").is_ok());
        assert!((&mut three).now_or_never().is_none());
        assert!(waiters.wait(at(2)).now_or_never().expect("at once").is_ok());
        waiters.end(Arc::new(WalError::Stopped));
        assert!((&mut three).now_or_never().expect("woken").is_err());
        assert!(waiters.wait(at(2)).now_or_never().expect("at once").is_ok(), "durable stays durable");
        assert!(waiters.wait(at(3)).now_or_never().expect("at once").is_err());
    }
}
