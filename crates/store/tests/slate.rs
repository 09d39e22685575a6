//! The store as SlateDB sees it.

use std::sync::Arc;

use bytes::Bytes;
use forebay_env::Env;
use forebay_env::simulated::{SimDisk, Trace, parts};
use forebay_store::memory::MemoryStore;
use forebay_store::slate::{TRAILER_SIZE, adapter};
use forebay_store::{Body, Bucket, Fault, FaultRates, Faulty, Key, Operation, Purpose, Store};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};
use slatedb_common::retry::NonRetryable;

struct Rig {
    faulty: Arc<Faulty>,
    plain: Arc<dyn Store>,
    slate: Arc<dyn ObjectStore>,
}

fn rig() -> Rig {
    let env = Env::new(parts(3, &SimDisk::new(3, Trace::default())));
    let faulty = Arc::new(Faulty::with_seed(&env, Arc::new(MemoryStore::new(&env)), 3));
    let plain = Bucket::over(&env, Arc::<Faulty>::clone(&faulty)).store(Purpose::Metadata);
    let slate = adapter(&env, Arc::clone(&plain));
    Rig { faulty, plain, slate }
}

fn options(mode: PutMode) -> PutOptions {
    PutOptions::from(mode)
}

#[tokio::test(start_paused = true)]
async fn objects_look_as_they_were_put() {
    // Sizes, ranges and listings leave our trailer out; in the bucket it is there, in the bytes that are documented.
    let Rig { plain, slate, .. } = rig();
    let at = Path::from("metadata/manifest/00000000000000000001.manifest");
    let attributes: Attributes =
        [(Attribute::Metadata("slatedbputid".into()), "01ARZ3NDEKTSV4RRFFQ69G5FAV")].into_iter().collect();
    let create = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
    slate.put_opts(&at, PutPayload::from_static(b"0123456789"), create).await.expect("created");

    assert_eq!(slate.head(&at).await.expect("there").size, 10);
    assert_eq!(slate.get(&at).await.expect("there").bytes().await.expect("read"), "0123456789");
    assert_eq!(slate.get_range(&at, 2..5).await.expect("within"), "234");
    assert_eq!(slate.get_range(&at, 8..40).await.expect("cut at the end"), "89");
    assert!(slate.get_range(&at, 10..11).await.is_err(), "the trailer is not to be had");
    let parts = slate.get_ranges(&at, &[0..1, 9..10]).await.expect("within");
    assert_eq!(parts, [Bytes::from_static(b"0"), Bytes::from_static(b"9")]);
    for (range, expected) in [
        (object_store::GetRange::Suffix(3), b"789".as_slice()),
        (object_store::GetRange::Suffix(50), b"0123456789"),
        (object_store::GetRange::Offset(4), b"456789"),
    ] {
        let found =
            slate.get_opts(&at, GetOptions { range: Some(range), ..GetOptions::default() }).await.expect("within");
        assert_eq!((found.meta.size, found.range.end), (10, 10));
        assert_eq!(found.bytes().await.expect("read"), *expected);
    }

    let raw = plain.get(&Key::new(at.as_ref()).expect("legal")).await.expect("there");
    let golden = [
        &b"0123456789FBSL"[..],
        &[2, 0, 0, 0],
        // The bits of the ULID.
        &[0x01, 0x56, 0x3e, 0x3a, 0xb5, 0xd3, 0xd6, 0x76, 0x4c, 0x61, 0xef, 0xb9, 0x93, 0x02, 0xbd, 0x5b],
        &[0, 0, 0, 0],
        // CRC32C of the ten bytes.
        &[0x9e, 0x06, 0x0c, 0x28],
    ];
    assert_eq!(raw, golden.concat());
    assert_eq!(raw.len() as u64, 10 + TRAILER_SIZE);
    let older = Key::new("metadata/older").expect("legal");
    plain.put(&older, Body::from(b"0123456789FBSL\x01\x1a01ARZ3NDEKTSV4RRFFQ69G5FAV")).await.expect("put");
    let older = slate.get(&Path::from("metadata/older")).await.expect("a trailer without a checksum is still read");
    assert_eq!(older.bytes().await.expect("read"), "0123456789");
    plain.put(&Key::new("metadata/stranger").expect("legal"), Body::from(vec![b'x'; 99])).await.expect("put");
    let stranger = slate.get(&Path::from("metadata/stranger")).await.expect_err("not written through here");
    assert!(stranger.to_string().contains("metadata/stranger"), "{stranger}");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_went_wrong_is_read_again_and_damage_is_final() {
    let Rig { faulty, plain, slate } = rig();
    let (at, key) = (Path::from("manifest/1"), Key::new("manifest/1").expect("legal"));
    slate.put(&at, PutPayload::from_static(b"the manifest, which has no checksum of its own")).await.expect("put");
    for _ in 0..50 {
        faulty.script(Operation::Read, Fault::Corrupt);
        let read = slate.get(&at).await.expect("there").bytes().await.expect("read");
        assert_eq!(read, "the manifest, which has no checksum of its own");
    }
    let whole = plain.get(&key).await.expect("there");
    let mut damaged = whole.to_vec();
    damaged[7] ^= 4;
    for (damage, tells) in [(damaged.into(), "checksum"), (whole.slice(..9), "trailer"), (whole.slice(..40), "trailer")]
    {
        plain.put(&key, Body::from(damage)).await.expect("put");
        let before = faulty.requests();
        let error = slate.get(&at).await.expect_err("damaged");
        assert!(NonRetryable::find(&error).is_some(), "SlateDB would ask for ever: {error}");
        let cause = NonRetryable::find(&error).and_then(|e| e.0.source()).map(ToString::to_string).unwrap_or_default();
        assert!(error.to_string().contains("manifest/1") && cause.contains(tells), "{error}: {cause}");
        assert_eq!(faulty.requests() - before, 3, "the read may be wrong, and not the object");
    }
}

/// A part of SlateDB's write-ahead log is as good as the whole: one wrong bit anywhere is not handed on.
#[tokio::test(start_paused = true)]
async fn parts_of_a_write_ahead_log_are_checked_with_the_whole() {
    let Rig { faulty, slate, .. } = rig();
    let at = Path::from("metadata/wal/00000000000000000001.sst");
    slate.put(&at, PutPayload::from_static(b"0123456789")).await.expect("put");
    for _ in 0..50 {
        faulty.script(Operation::Read, Fault::Corrupt);
        assert_eq!(slate.get_range(&at, 2..5).await.expect("within"), "234");
    }
    for (range, start, expected) in [
        (object_store::GetRange::Bounded(8..40), 8, b"89".as_slice()),
        (object_store::GetRange::Suffix(3), 7, b"789"),
        (object_store::GetRange::Suffix(50), 0, b"0123456789"),
        (object_store::GetRange::Offset(4), 4, b"456789"),
    ] {
        let found =
            slate.get_opts(&at, GetOptions { range: Some(range), ..GetOptions::default() }).await.expect("within");
        assert_eq!((found.meta.size, found.range.clone()), (10, start..10));
        assert_eq!(found.bytes().await.expect("read"), *expected);
    }
    assert!(slate.get_range(&at, 10..11).await.is_err(), "there is nothing behind its end");
}

#[tokio::test(start_paused = true)]
async fn a_create_has_one_winner_though_the_bytes_are_the_same() {
    // Two databases write the very same manifest: one wins. The answer of each is lost, and still each is told right.
    let Rig { faulty, slate, .. } = rig();
    let at = Path::from("manifest/2");
    faulty.script(Operation::Create, Fault::LostAnswer);
    let bytes = || PutPayload::from_static(b"the very same");
    slate.put_opts(&at, bytes(), options(PutMode::Create)).await.expect("the first is known as its own");
    faulty.script(Operation::Create, Fault::LostAnswer);
    let second = slate.put_opts(&at, bytes(), options(PutMode::Create)).await.expect_err("the name is taken");
    assert!(matches!(second, Error::AlreadyExists { .. }), "{second}");
    assert!(faulty.script_is_done());
}

#[tokio::test(start_paused = true)]
async fn an_update_needs_the_version_that_is_there() {
    let Rig { faulty, slate, .. } = rig();
    let at = Path::from("gc/manifest.boundary");
    let put = |bytes: &'static [u8], mode| slate.put_opts(&at, PutPayload::from_static(bytes), options(mode));
    let first = put(b"1", PutMode::Create).await.expect("created");
    faulty.script(Operation::Replace, Fault::LostAnswer);
    let second = put(b"2", PutMode::Update(first.clone().into())).await.expect("its own success is known");
    let stale = put(b"3", PutMode::Update(first.into())).await.expect_err("another version is there");
    assert!(matches!(stale, Error::Precondition { .. }), "{stale}");
    let unchanged = GetOptions { if_none_match: second.e_tag.clone(), ..GetOptions::default() };
    assert!(matches!(slate.get_opts(&at, unchanged).await, Err(Error::NotModified { .. })));
    let version = UpdateVersion { e_tag: None, version: None };
    assert!(matches!(put(b"4", PutMode::Update(version)).await, Err(Error::NotImplemented { .. })));
}

#[tokio::test(start_paused = true)]
async fn listings_and_deletes_go_through() {
    let Rig { slate, .. } = rig();
    for name in ["db/wal/1.sst", "db/wal/2.sst", "db/manifest/1", "db/top", "other/x"] {
        slate.put(&Path::from(name), PutPayload::from_static(b"abc")).await.expect("put");
    }
    let names = |objects: Vec<object_store::ObjectMeta>| {
        objects.into_iter().map(|o| o.location.to_string()).collect::<Vec<_>>()
    };
    let db = Path::from("db");
    let all: Vec<_> = slate.list(Some(&db)).try_collect().await.expect("listed");
    assert!(all.iter().all(|object| object.size == 3));
    assert_eq!(names(all), ["db/manifest/1", "db/top", "db/wal/1.sst", "db/wal/2.sst"]);
    let rest: Vec<_> =
        slate.list_with_offset(Some(&db), &Path::from("db/wal/1.sst")).try_collect().await.expect("listed");
    assert_eq!(names(rest), ["db/wal/2.sst"]);
    let here = slate.list_with_delimiter(Some(&db)).await.expect("listed");
    assert_eq!(names(here.objects), ["db/top"]);
    assert_eq!(here.common_prefixes, [Path::from("db/manifest"), Path::from("db/wal")]);

    slate.copy(&Path::from("db/top"), &Path::from("db/copy")).await.expect("copied");
    assert_eq!(slate.get(&Path::from("db/copy")).await.expect("there").bytes().await.expect("read"), "abc");
    assert!(slate.copy_if_not_exists(&Path::from("db/top"), &Path::from("db/copy")).await.is_err());

    let gone = ["db/wal/1.sst", "db/wal/2.sst", "db/nothing"].map(|name| Ok(Path::from(name)));
    let deleted: Vec<_> =
        slate.delete_stream(futures::stream::iter(gone).boxed()).try_collect().await.expect("deleted");
    assert_eq!(deleted.len(), 3, "deleting nothing is fine");
    assert!(matches!(slate.head(&Path::from("db/wal/1.sst")).await, Err(Error::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_multipart_upload_is_one_object() {
    let Rig { slate, .. } = rig();
    let at = Path::from("db/compacted/big.sst");
    let mut upload = slate.put_multipart(&at).await.expect("begun");
    for part in [b"abc".as_slice(), b"", b"defg"] {
        upload.put_part(PutPayload::from(Bytes::copy_from_slice(part))).await.expect("gathered");
    }
    assert!(matches!(slate.head(&at).await, Err(Error::NotFound { .. })), "not there before it is complete");
    upload.complete().await.expect("put");
    assert_eq!(slate.get(&at).await.expect("there").bytes().await.expect("read"), "abcdefg");
    let piece = PutPayload::from(vec![0; 100 << 20]);
    let mut upload = slate.put_multipart(&at).await.expect("begun");
    upload.put_part(piece.clone()).await.expect("within the limit");
    upload.put_part(piece.clone()).await.expect("within the limit");
    let refused = upload.put_part(piece).await.expect_err("300 MiB are not held in memory");
    assert!(refused.to_string().contains("db/compacted/big.sst"), "{refused}");
}

#[tokio::test]
async fn a_database_lives_on_it_in_a_storm() {
    // SlateDB itself: written, flushed, closed, opened again and read, while one request in ten meets trouble.
    let env = forebay_env::real::env();
    let faulty = Arc::new(Faulty::with_seed(&env, Arc::new(MemoryStore::new(&env)), 5));
    let bucket = Bucket::over(&env, Arc::<Faulty>::clone(&faulty));
    let slate = adapter(&env, bucket.store(Purpose::Metadata));
    faulty.set_rates(FaultRates { unavailable: 60, lost_answer: 40, false_conflict: 20, ..FaultRates::default() });
    for round in 0..3_u8 {
        let db = slatedb::Db::open("metadata", Arc::clone(&slate)).await.expect("opens");
        for earlier in 0..round {
            let found = db.get([earlier]).await.expect("read").expect("written in an earlier round");
            assert_eq!(found, vec![earlier; 1000]);
        }
        db.put([round], vec![round; 1000]).await.expect("written");
        db.flush().await.expect("flushed");
        db.close().await.expect("closed");
    }
    let creates = bucket.meter().row(Operation::Create, Purpose::Metadata);
    assert!(creates.requests > 6 && creates.failures > 0, "it wrote through our store, and met trouble: {creates:?}");
}
