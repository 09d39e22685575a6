//! One suite that every provider passes, alone or under the layers: what [`crate::Store`] promises, shown from outside.
//!
//! Each check works below a prefix of its own, so that all can run on one store. Creates go through
//! [`create_exact`](crate::create_exact) and single attempts are repeated while transient, so the suite holds under
//! injected faults too.

use std::sync::Arc;

use bytes::Bytes;
use forebay_env::Env;
use futures::future::join_all;

use crate::{
    Body, CreateError, Created, Key, ObjectMeta, Prefix, Span, Store, StoreError, StoreErrorKind, Version, create_exact,
};

/// Writers that race for one name.
const RACERS: u8 = 16;
/// Names that they race for, one after the other.
const RACES: u32 = 8;
/// An object that no layer may take for a small one, and no whole number of anything.
const BIG: usize = 20 * 1024 * 1024 + 12_345;

/// Runs every check.
///
/// # Panics
/// The store breaks a promise; the message names it.
pub async fn run(env: &Env, store: Arc<dyn Store>) {
    let kit = Kit { env, store: &*store };
    kit.objects_read_back_as_written().await;
    kit.what_is_not_there_is_not_found().await;
    kit.a_name_is_created_once().await;
    kit.one_racer_wins_each_name().await;
    kit.a_repeat_of_ones_own_create_is_known().await;
    kit.ranges_are_cut_or_refused_at_the_end().await;
    kit.an_empty_object_is_an_object().await;
    kit.listings_are_in_order_and_page().await;
    kit.a_big_object_is_whole().await;
    kit.a_deleted_name_is_free().await;
    kit.a_put_overwrites().await;
    kit.a_replace_needs_the_version().await;
    kit.time_is_told().await;
}

struct Kit<'a> {
    env: &'a Env,
    store: &'a dyn Store,
}

fn key(text: &str) -> Key {
    Key::new(text).expect("the suite's keys are legal")
}

fn body(bytes: impl Into<Vec<u8>>) -> Body {
    Body::from(bytes.into())
}

/// `len` bytes that differ from place to place.
fn noise(len: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&(state >> 16).to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

fn names(objects: &[ObjectMeta]) -> Vec<&str> {
    objects.iter().map(|object| object.key.as_str()).collect()
}

impl Kit<'_> {
    async fn create(&self, name: &str, bytes: &[u8]) {
        let created = create_exact(self.env, self.store, &key(name), body(bytes)).await;
        created.unwrap_or_else(|error| panic!("creating {name}: {error}"));
    }

    /// The final word on a request that is a single attempt.
    async fn settled<T, R>(&self, request: impl Fn() -> R) -> Result<T, StoreError>
    where
        R: Future<Output = Result<T, StoreError>>,
    {
        for _ in 0..crate::retry::ATTEMPTS_MAX {
            match request().await {
                Err(error) if error.is_transient() => {}
                other => return other,
            }
        }
        panic!("nothing but transient errors");
    }

    async fn kind<T>(&self, request: impl Future<Output = Result<T, StoreError>>) -> StoreErrorKind {
        request.await.err().expect("this has to be refused").kind()
    }

    async fn objects_read_back_as_written(&self) {
        let at = key("kit/back/one");
        let chunks = vec![Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defgh")];
        let created = create_exact(self.env, self.store, &at, Body::new(chunks)).await;
        assert!(created.is_ok(), "{created:?}");
        assert_eq!(self.store.get(&at).await.expect("written"), "abcdefgh");
        let meta = self.store.head(&at).await.expect("written");
        assert_eq!((meta.key, meta.size), (at, 8));
    }

    async fn what_is_not_there_is_not_found(&self) {
        self.create("kit/missing/folder/object", b"x").await;
        // A folder is no object, nor is anything below an object.
        for name in ["kit/missing/nothing", "kit/missing/folder", "kit/nowhere/at/all"] {
            let at = key(name);
            assert_eq!(self.kind(self.store.get(&at)).await, StoreErrorKind::NotFound, "get {name}");
            assert_eq!(self.kind(self.store.get_range(&at, 0..1)).await, StoreErrorKind::NotFound, "range of {name}");
            assert_eq!(self.kind(self.store.head(&at)).await, StoreErrorKind::NotFound, "head {name}");
        }
        self.store.delete(&key("kit/missing/nothing")).await.expect("deleting nothing is fine");
        self.store.delete(&key("kit/nowhere/at/all")).await.expect("deleting nothing is fine");
        let nothing = self.store.list(&Prefix::new("kit/nowhere").expect("legal"), None, 10).await;
        assert!(nothing.expect("an empty listing").is_empty());
    }

    async fn a_name_is_created_once(&self) {
        let at = key("kit/once/name");
        self.create("kit/once/name", b"first").await;
        let again = self.settled(|| self.store.create(&at, body(*b"second"))).await;
        assert_eq!(again.expect_err("the name is taken").kind(), StoreErrorKind::AlreadyExists);
        assert_eq!(self.store.get(&at).await.expect("there"), "first", "the loser changed nothing");
        match create_exact(self.env, self.store, &at, body(*b"second")).await {
            Err(CreateError::Theirs { key, found }) => assert_eq!((key, &found[..]), (at, b"first".as_slice())),
            other => panic!("the name is another's: {other:?}"),
        }
    }

    async fn one_racer_wins_each_name(&self) {
        for race in 0..RACES {
            let at = key(&format!("kit/race/{race:03}"));
            // Of different lengths, so that a mixture of two would show.
            let entries: Vec<Vec<u8>> = (0..RACERS).map(|i| vec![b'a' + i; 3000 + usize::from(i)]).collect();
            let runs = entries.iter().map(|bytes| create_exact(self.env, self.store, &at, body(bytes.clone())));
            let results = join_all(runs).await;
            let winners: Vec<usize> = (0..results.len()).filter(|i| results[*i].is_ok()).collect();
            assert_eq!(winners.len(), 1, "race {race}: {winners:?} all won the name");
            let stored = self.store.get(&at).await.expect("won");
            assert_eq!(stored, entries[winners[0]], "race {race}: the winner's bytes are there");
            for lost in results.into_iter().filter_map(Result::err) {
                match lost {
                    CreateError::Theirs { found, .. } => {
                        assert_eq!(found, stored, "race {race}: losers see the winner");
                    }
                    CreateError::Store(error) => panic!("race {race}: a loser was told {error}"),
                }
            }
        }
    }

    async fn a_repeat_of_ones_own_create_is_known(&self) {
        self.create("kit/mine/name", b"the same bytes").await;
        let again = create_exact(self.env, self.store, &key("kit/mine/name"), body(*b"the same bytes")).await;
        assert_eq!(again.expect("the bytes are ours"), Created::Mine);
    }

    async fn ranges_are_cut_or_refused_at_the_end(&self) {
        let at = key("kit/range/ten");
        self.create("kit/range/ten", b"0123456789").await;
        let read = |span: Span| async move {
            let object = self.store.read(&key("kit/range/ten"), span).await.expect("within the object");
            assert_eq!(object.meta.size, 10, "the whole object's size is told");
            (object.start, object.bytes)
        };
        assert_eq!(read(Span::All).await, (0, Bytes::from_static(b"0123456789")));
        assert_eq!(read(Span::Range(3..5)).await, (3, Bytes::from_static(b"34")));
        assert_eq!(read(Span::Range(8..99)).await, (8, Bytes::from_static(b"89")));
        assert_eq!(read(Span::From(7)).await, (7, Bytes::from_static(b"789")));
        assert_eq!(read(Span::Last(4)).await, (6, Bytes::from_static(b"6789")));
        assert_eq!(read(Span::Last(99)).await, (0, Bytes::from_static(b"0123456789")));

        assert_eq!(self.store.get_range(&at, 0..10).await.expect("all of it"), "0123456789");
        assert_eq!(self.store.get_range(&at, 9..10).await.expect("the last byte"), "9");
        assert!(self.store.get_range(&at, 4..4).await.expect("nothing asked for").is_empty());
        let past = StoreErrorKind::OutOfRange { size: 10 };
        for range in [9..11, 10..11, 500..501] {
            assert_eq!(self.kind(self.store.get_range(&at, range.clone())).await, past, "{range:?} of ten bytes");
        }
        assert_eq!(self.kind(self.store.read(&at, Span::From(10))).await, past);
    }

    async fn an_empty_object_is_an_object(&self) {
        let at = key("kit/empty/object");
        self.create("kit/empty/object", b"").await;
        assert!(self.store.get(&at).await.expect("there").is_empty());
        assert_eq!(self.store.head(&at).await.expect("there").size, 0);
        assert_eq!(self.kind(self.store.get_range(&at, 0..1)).await, StoreErrorKind::OutOfRange { size: 0 });
        let again = self.settled(|| self.store.create(&at, body(*b"x"))).await;
        assert_eq!(again.expect_err("taken").kind(), StoreErrorKind::AlreadyExists);
    }

    async fn listings_are_in_order_and_page(&self) {
        let mut expected: Vec<String> = (0..25).map(|i| format!("kit/list/a/{:020}", i * 7 % 25)).collect();
        // Names that sort before, within and behind a folder of nearly the same name.
        for name in ["a-b", "a.b", "a0/x", "a_/y", "b/c/d/e", "B", "0"] {
            expected.push(format!("kit/list/{name}"));
        }
        for name in &expected {
            self.create(name, name.as_bytes()).await;
        }
        expected.sort_unstable();
        let all = Prefix::new("kit/list").expect("legal");
        let list = |after: Option<Key>, limit| {
            let all = all.clone();
            async move { self.store.list(&all, after.as_ref(), limit).await.expect("listed") }
        };

        let whole = list(None, 1000).await;
        assert_eq!(names(&whole), expected, "all, in byte order");
        assert!(whole.iter().all(|object| object.size == object.key.as_str().len() as u64), "with their sizes");

        let mut paged = Vec::new();
        loop {
            let page = list(paged.last().map(|last: &ObjectMeta| last.key.clone()), 4).await;
            let last = page.len() < 4;
            paged.extend(page);
            if last {
                break;
            }
        }
        assert_eq!(names(&paged), expected, "the pages together are the whole");

        // The place to start after need not be an object, nor lie below the prefix.
        assert_eq!(
            names(&list(Some(key("kit/list/a/00000000000000000023x")), 2).await),
            ["kit/list/a/00000000000000000024", "kit/list/a0/x"]
        );
        assert_eq!(list(Some(key("kit/a")), 1000).await.len(), expected.len());
        assert!(list(Some(key("kit/z")), 1000).await.is_empty());
        assert!(list(None, 0).await.is_empty());

        let folder = Prefix::new("kit/list/a").expect("legal");
        let below = self.store.list(&folder, None, 1000).await.expect("listed");
        assert_eq!(below.len(), 25, "a, and neither a-b, a.b, a0 nor a_: {:?}", names(&below));
        let one = Prefix::new("kit/list/a-b").expect("legal");
        assert!(self.store.list(&one, None, 10).await.expect("listed").is_empty(), "an object is not below itself");
    }

    async fn a_big_object_is_whole(&self) {
        let at = key("kit/big/object");
        let bytes = noise(BIG);
        // In odd chunks, which no layer may take for its own unit.
        let chunks = (0..BIG).step_by(777_777).map(|from| bytes.slice(from..BIG.min(from + 777_777))).collect();
        let created = create_exact(self.env, self.store, &at, Body::new(chunks)).await;
        assert!(created.is_ok(), "{created:?}");
        assert!(self.store.get(&at).await.expect("written") == bytes, "twenty MiB come back as they were");
        for (from, to) in [(0, 1), (4095, 4097), (1 << 20, (1 << 20) + 333), (BIG - 5, BIG)] {
            let part = self.store.get_range(&at, from as u64..to as u64).await.expect("within");
            assert!(part == bytes.slice(from..to), "bytes {from}..{to}");
        }
        let end = self.store.read(&at, Span::Last(12_345)).await.expect("within");
        assert!(end.bytes == bytes.slice(BIG - 12_345..), "the footer");
        self.store.delete(&at).await.expect("deleted");
    }

    async fn a_deleted_name_is_free(&self) {
        let at = key("kit/delete/name");
        self.create("kit/delete/name", b"first").await;
        self.store.delete(&at).await.expect("deleted");
        assert_eq!(self.kind(self.store.get(&at)).await, StoreErrorKind::NotFound);
        let folder = Prefix::new("kit/delete").expect("legal");
        assert!(self.store.list(&folder, None, 10).await.expect("listed").is_empty());
        self.create("kit/delete/name", b"second").await;
        assert_eq!(self.store.get(&at).await.expect("there"), "second");
    }

    async fn a_put_overwrites(&self) {
        let at = key("kit/put/name");
        for bytes in [b"one".as_slice(), b"a longer two", b"3"] {
            self.store.put(&at, body(bytes)).await.expect("put");
            assert_eq!(self.store.get(&at).await.expect("there"), *bytes);
        }
        let again = self.settled(|| self.store.create(&at, body(*b"x"))).await;
        assert_eq!(again.expect_err("taken").kind(), StoreErrorKind::AlreadyExists);
    }

    async fn a_replace_needs_the_version(&self) {
        let at = key("kit/replace/name");
        self.create("kit/replace/name", b"one").await;
        let version = self.store.head(&at).await.expect("there").version;
        if !self.store.can_replace() {
            let never = Version::new("\"x\"");
            let kind = self.kind(self.store.replace(&at, body(*b"two"), &never)).await;
            assert_eq!(kind, StoreErrorKind::Refused, "a store that cannot replace says so");
            assert_eq!(self.store.get(&at).await.expect("there"), "one");
            return;
        }
        let old = version.expect("a store that replaces has versions");
        // After a lost answer the store is right to say that the version has changed: it was us.
        match self.settled(|| self.store.replace(&at, body(*b"two"), &old)).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Changed),
        }
        assert_eq!(self.store.get(&at).await.expect("there"), "two");
        let stale = self.settled(|| self.store.replace(&at, body(*b"three"), &old)).await;
        assert_eq!(stale.expect_err("another version is there").kind(), StoreErrorKind::Changed);
        assert_eq!(self.store.get(&at).await.expect("there"), "two");
        let nothing = key("kit/replace/nothing");
        let absent = self.settled(|| self.store.replace(&nothing, body(*b"x"), &old)).await;
        assert_eq!(absent.expect_err("nothing is there").kind(), StoreErrorKind::Changed);
    }

    async fn time_is_told(&self) {
        let before = self.env.now();
        self.create("kit/time/name", b"x").await;
        let after = self.env.now();
        let modified = self.store.head(&key("kit/time/name")).await.expect("there").modified;
        // To the second, and never earlier than it was: who waits for an age must wait long enough.
        assert!(modified.saturating_add(1000) > before, "{modified} is before {before}");
        assert!(after.saturating_add(1000) > modified, "{modified} is after {after}");
        let now = self.store.now().expect("the store has answered requests, so its clock is known");
        assert!(now.saturating_add(2000) > before && self.env.now().saturating_add(2000) > now, "{now} is not now");
    }
}
