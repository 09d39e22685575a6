//! What was read from the bucket, kept in memory for the next reader.
//!
//! Owns: the byte budget, eviction, and single flight: of many readers that miss the same piece, one fetches it and
//! all get the result. Leaves to others: what to read ahead (`log`) and the reading itself (`store`).
//!
//! Invariants:
//! 1. The cache never holds more than its budget; a piece larger than the budget is handed out but not kept.
//! 2. Objects are immutable (D4), so a piece once read is never stale; a deleted object's pieces age out. A piece can be
//!    wrong all the same, where the reading went wrong: who finds that takes it out.
//! 3. A failed fetch leaves nothing behind: the next reader tries again.
//! 4. The same calls in the same order evict the same pieces: nothing depends on a random hash.

use std::future::Future;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_types::ByteSize;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

/// What a cached value costs, in bytes.
pub trait Weigh {
    fn weight(&self) -> usize;
}

impl Weigh for bytes::Bytes {
    fn weight(&self) -> usize {
        self.len()
    }
}

impl<T: Weigh> Weigh for Arc<T> {
    fn weight(&self) -> usize {
        T::weight(self)
    }
}

/// Counts since the cache was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheCounts {
    pub hits: u64,
    pub misses: u64,
    /// Bytes held now.
    pub held: u64,
}

#[derive(Clone)]
struct ByWeight;

/// Bookkeeping of one piece: its key, hash slot and list links, about. Counted so that many tiny pieces stay in budget.
const ENTRY_OVERHEAD: u64 = 96;

impl<K, V: Weigh> Weighter<K, V> for ByWeight {
    fn weight(&self, _: &K, value: &V) -> u64 {
        u64::try_from(value.weight()).unwrap_or(u64::MAX).saturating_add(ENTRY_OVERHEAD)
    }
}

type FixedHasher = BuildHasherDefault<DefaultHasher>;

/// A cache of `V` by `K` within a byte budget.
pub struct ByteCache<K, V> {
    pieces: Cache<K, V, ByWeight, FixedHasher>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// The size a piece is expected to have, which only sizes the first table.
const PIECE_SIZE_EXPECTED: u64 = 128 << 10;

impl<K: Eq + Hash + Clone, V: Weigh + Clone> ByteCache<K, V> {
    pub fn new(budget: ByteSize) -> Self {
        let pieces = usize::try_from(budget.get() / PIECE_SIZE_EXPECTED).unwrap_or(usize::MAX).max(16);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(pieces)
            .weight_capacity(budget.get())
            .shards(1)
            .build()
            .expect("capacity and weight are both given");
        let pieces = Cache::with_options(options, ByWeight, FixedHasher::default(), DefaultLifecycle::default());
        Self { pieces, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The piece at `key`, fetched by `fetch` where it is not held. Of callers that miss together one fetches; if it
    /// fails or is dropped, the next in line does.
    ///
    /// # Errors
    /// What `fetch` gives, to the caller whose fetch failed.
    pub async fn get_or_fetch<E>(&self, key: &K, fetch: impl Future<Output = Result<V, E>>) -> Result<V, E> {
        match self.pieces.get_value_or_guard_async(key).await {
            Ok(held) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Ok(held)
            }
            Err(guard) => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                let fetched = fetch.await?;
                // Refused only where the placeholder was replaced by `insert` meanwhile: same bytes, nothing to do.
                let _ = guard.insert(fetched.clone());
                Ok(fetched)
            }
        }
    }

    /// The piece at `key` if it is held; counts neither hit nor miss.
    pub fn peek(&self, key: &K) -> Option<V> {
        self.pieces.peek(key)
    }

    /// Takes out the piece at `key` where `is_it` says so of the one that is held now: another than the one found to be
    /// wrong may have been fetched meanwhile.
    pub fn remove_if(&self, key: &K, is_it: impl FnOnce(&V) -> bool) {
        self.pieces.remove_if(key, is_it);
    }

    /// Keeps a piece that came along with another's fetch.
    pub fn insert(&self, key: K, value: V) {
        self.pieces.insert(key, value);
    }

    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            held: self.pieces.weight(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use tokio::sync::Notify;

    use super::*;

    fn piece(len: usize) -> Bytes {
        Bytes::from(vec![7; len])
    }

    #[tokio::test]
    async fn readers_that_miss_together_share_one_fetch() {
        let cache = ByteCache::new(ByteSize::mib(1));
        let (fetches, gate) = (AtomicU64::new(0), Notify::new());
        let read = || {
            cache.get_or_fetch(&1, async {
                fetches.fetch_add(1, Ordering::Relaxed);
                gate.notified().await;
                Ok::<_, Infallible>(piece(10))
            })
        };
        let open = async {
            tokio::task::yield_now().await;
            gate.notify_one();
        };
        let (a, b, c, ()) = tokio::join!(biased; read(), read(), read(), open);
        assert_eq!([a, b, c], [const { Ok(Bytes::from_static(&[7; 10])) }; 3]);
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        let counts = cache.counts();
        assert_eq!((counts.hits, counts.misses), (2, 1));
    }

    #[tokio::test]
    async fn a_failed_fetch_is_tried_again_by_the_next_reader() {
        let cache = ByteCache::<u8, Bytes>::new(ByteSize::mib(1));
        assert_eq!(cache.get_or_fetch(&1, async { Err("store is down") }).await, Err("store is down"));
        assert_eq!(cache.get_or_fetch(&1, async { Ok::<_, &str>(piece(3)) }).await, Ok(piece(3)));
    }

    #[tokio::test]
    async fn a_piece_is_taken_out_only_if_it_is_the_one_that_was_meant() {
        let cache = ByteCache::<u8, Arc<Bytes>>::new(ByteSize::mib(1));
        let (wrong, right) = (Arc::new(piece(3)), Arc::new(piece(3)));
        let is = |wanted: &Arc<Bytes>| {
            let wanted = Arc::clone(wanted);
            move |held: &Arc<Bytes>| Arc::ptr_eq(held, &wanted)
        };
        cache.insert(1, Arc::clone(&wrong));
        cache.remove_if(&1, is(&wrong));
        assert_eq!(cache.peek(&1), None);
        cache.insert(1, Arc::clone(&right));
        cache.remove_if(&1, is(&wrong));
        assert!(cache.peek(&1).is_some(), "what somebody else has fetched since stays");
        assert_eq!(cache.counts().held, 3 + ENTRY_OVERHEAD);
    }

    #[tokio::test]
    async fn the_budget_holds_whatever_comes_in() {
        let budget = ByteSize::new(100_000);
        let cache = ByteCache::new(budget);
        for key in 0..200 {
            let got = cache.get_or_fetch(&key, async { Ok::<_, Infallible>(piece(5_000)) }).await;
            assert_eq!(got.map(|p| p.len()), Ok(5_000));
            assert!(cache.counts().held <= budget.get(), "within budget after piece {key}");
        }
        assert!(cache.counts().held > budget.get() / 2, "the budget is used");
        let giant = cache.get_or_fetch(&999, async { Ok::<_, Infallible>(piece(200_000)) }).await;
        assert_eq!(giant.map(|p| p.len()), Ok(200_000), "handed out");
        assert_eq!(cache.peek(&999), None, "but not kept");
    }
}
