//! How the readers of one partition go: where each of them stopped, and how far ahead of it to read.
//!
//! A read that begins where an earlier one ended is that reader going on. Readers do not say who they are, and need not.

use std::sync::Arc;

use forebay_types::Offset;
use parking_lot::Mutex;

use super::extents::Page;

/// Sequential readers of one partition that are told apart. Of more, those that read least lately count as new each time.
pub(super) const TRAILS_MAX: usize = 4;

/// Pieces that are read ahead of one reader at most; each is a GET.
pub(super) const READ_AHEAD_PIECES_MAX: usize = 8;

/// What the readers of one partition have done. Small, because every partition has one.
#[derive(Debug, Default)]
pub(crate) struct ReadPattern(Mutex<Vec<Trail>>);

/// One reader's.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    /// Where its last read ended: one that begins here goes on with it.
    next: Offset,
    /// How many pieces to read ahead, whatever the read itself needs: grows from 0 while reads go on.
    pub ahead: usize,
    /// The extents around `next`, if they were looked up.
    pub page: Option<Arc<Page>>,
}

impl ReadPattern {
    /// The trail of the reader that goes on at `from`, or a new one. It stays known until [`Self::end`], for a reader that
    /// has to try again.
    pub(super) fn begin(&self, from: Offset) -> Trail {
        match self.0.lock().iter().find(|trail| trail.next == from) {
            Some(trail) => Trail { ahead: (trail.ahead * 2).clamp(1, READ_AHEAD_PIECES_MAX), ..trail.clone() },
            None => Trail { next: from, ahead: 0, page: None },
        }
    }

    /// The reader has come to `next`. `done`: there is no more to read for now, so there is nothing to remember.
    pub(super) fn end(&self, trail: Trail, next: Offset, done: bool) {
        let mut trails = self.0.lock();
        // Its own, and that of another that went the same way.
        trails.retain(|other| other.next != trail.next && other.next != next);
        if done {
            trails.shrink_to_fit();
            return;
        }
        if trails.len() == TRAILS_MAX {
            trails.remove(0);
        }
        trails.push(Trail { next, ..trail });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::new(raw).expect("not negative")
    }

    /// A read of ten offsets; how far ahead it was to read.
    fn read(pattern: &ReadPattern, from: i64) -> usize {
        let trail = pattern.begin(offset(from));
        let ahead = trail.ahead;
        pattern.end(trail, offset(from + 10), false);
        ahead
    }

    #[test]
    fn readers_that_take_turns_are_told_apart() {
        let pattern = ReadPattern::default();
        let ahead: Vec<usize> = (0..6).flat_map(|n| [read(&pattern, n * 10), read(&pattern, 1_000 + n * 10)]).collect();
        assert_eq!(ahead, [0, 0, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8]);
        assert_eq!(read(&pattern, 500), 0, "from anywhere");
        assert_eq!((read(&pattern, 60), read(&pattern, 1_060)), (8, 8), "it disturbs nobody");
        // Who is not sequential, and there are many, drives the others out.
        (0..TRAILS_MAX).for_each(|n| assert_eq!(read(&pattern, 5_000 + i64::try_from(n).expect("small") * 100), 0));
        assert_eq!(read(&pattern, 70), 0);
        assert_eq!(pattern.0.lock().len(), TRAILS_MAX);
    }

    #[test]
    fn two_on_the_same_way_are_one_and_the_end_is_forgotten() {
        let pattern = ReadPattern::default();
        read(&pattern, 0);
        let (one, other) = (pattern.begin(offset(10)), pattern.begin(offset(10)));
        assert_eq!((one.ahead, other.ahead), (1, 1), "both go on");
        pattern.end(one, offset(20), false);
        pattern.end(other, offset(20), false);
        assert_eq!(pattern.0.lock().len(), 1);
        let last = pattern.begin(offset(20));
        assert_eq!(last.ahead, 2);
        pattern.end(last, offset(30), true);
        assert_eq!(pattern.0.lock().capacity(), 0, "an idle partition keeps nothing");
    }
}
