//! One number for all that happened, in its order.

use std::sync::Arc;

use parking_lot::Mutex;

/// Hashes events as they come. Two runs of a seed must end with the same [`Trace::digest`]. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    hash: u64,
    events: u64,
    /// The events as text, for finding where two runs part.
    log: Option<Vec<String>>,
}

/// FNV-1a's start and multiplier, 64 bits.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

impl Default for State {
    fn default() -> Self {
        Self { hash: FNV_START, events: 0, log: None }
    }
}

impl Trace {
    /// A trace that also keeps every event as text.
    pub fn with_log() -> Self {
        Self(Arc::new(Mutex::new(State { log: Some(Vec::new()), ..State::default() })))
    }

    /// Takes in one event: what it is, what it is about, and the bytes it moved.
    pub fn observe(&self, what: &'static str, about: &str, bytes: &[u8]) {
        let mut state = self.0.lock();
        state.events += 1;
        for part in [what.as_bytes(), about.as_bytes(), bytes] {
            let mut hash = state.hash;
            for byte in part.iter().copied().chain(part.len().to_le_bytes()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
            }
            state.hash = hash;
        }
        let hash = state.hash;
        if let Some(log) = &mut state.log {
            log.push(format!("{what} {about} {} bytes -> {hash:016x}", bytes.len()));
        }
    }

    pub fn digest(&self) -> u64 {
        self.0.lock().hash
    }

    pub fn events(&self) -> u64 {
        self.0.lock().events
    }

    /// The events so far, where they are kept.
    pub fn log(&self) -> Vec<String> {
        self.0.lock().log.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_borders_count() {
        let digest = |events: &[(&'static str, &str, &[u8])]| {
            let trace = Trace::with_log();
            for (what, about, bytes) in events {
                trace.observe(what, about, bytes);
            }
            assert_eq!((trace.events(), trace.log().len()), (events.len() as u64, events.len()));
            trace.digest()
        };
        let one = digest(&[("write", "a", b"xy"), ("sync", "a", b"")]);
        assert_eq!(one, digest(&[("write", "a", b"xy"), ("sync", "a", b"")]));
        assert_ne!(one, digest(&[("sync", "a", b""), ("write", "a", b"xy")]), "order counts");
        assert_ne!(digest(&[("write", "ax", b"y")]), digest(&[("write", "a", b"xy")]), "borders count");
    }
}
