//! What hostile bytes cost in memory, measured by a counting allocator: never a reservation that a length alone asks
//! for, and never more than a known number of times the bytes sent.
//!
//! One test, since the counters are the process's.

#![allow(unsafe_code, reason = "an allocator that counts can be written no other way")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{BufMut, Bytes, BytesMut};
use forebay_wire::kafka::messages::{DescribeLogDirsRequest, FindCoordinatorRequest, MetadataRequest};
use forebay_wire::{decode_produce, decode_request, fuzz};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory in use at once during `run`, beyond what was in use before.
fn peak(run: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    run();
    PEAK.load(Relaxed) - before
}

/// Every request of every version with a body that claims as much as its first lengths can.
fn claims() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for key in fuzz::KEYS {
        for version in key.valid_versions().min..=key.valid_versions().max {
            // Nothing but the largest compact length; the largest `i32`; either after plausible first fields.
            for claim in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0x7f, 0xff, 0xff, 0xff]] {
                for lead in
                    [&[][..], &[0; 1], &[0; 2], &[0; 4], &[0; 6], &[1, 0, 0, 0, 0, 0], &[0, 1, b'g'], &[2, b'g']]
                {
                    let ids = [(*key as i16).to_be_bytes(), version.to_be_bytes()].concat();
                    inputs.push([&ids, lead, claim, &[0; 40]].concat());
                }
            }
        }
    }
    inputs
}

fn batch_with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = include_bytes!("../corpus/batch/kafka-plain.bin").to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    batch
}

/// What errors with their texts, and our own buffers, may take.
const SMALL: usize = 32 * 1024;

/// The size of an honest body of many small items.
const SENT: usize = 1 << 20;

#[test]
fn memory_follows_bytes_not_claims() {
    // 1. Claims of gigabytes in a hundred bytes.
    let inputs = claims();
    for input in &inputs {
        let cost = peak(|| fuzz::request_any(input));
        assert!(cost < SMALL, "{cost} bytes for {:?}…", &input[..12]);
    }
    for version in 3..=13 {
        for claim in [[0x7f, 0xff, 0xff, 0xff, 0xff], [0xff, 0xff, 0xff, 0xff, 0x0f]] {
            let cost =
                peak(|| fuzz::produce(&[&[version, 0xff, 0xff, 0, 1, 0, 0, 0, 0], &claim[..], &[0; 40]].concat()));
            assert!(cost < SMALL, "{cost} bytes for produce {version}");
        }
    }
    for (at, bytes) in [(57, [0x7f, 0xff, 0xff, 0xff]), (8, [0x7f, 0xff, 0xff, 0xff]), (61, [0xfe, 0xff, 0xff, 0xff])] {
        let batch = batch_with(at, &bytes);
        let cost = peak(|| fuzz::records(&batch));
        assert!(cost < SMALL, "{cost} bytes for a batch with byte {at} changed");
    }
    let cost = peak(|| fuzz::frame(&[0, 0x0f, 0xff, 0xff, 0, 18, 0, 3]));
    assert!(cost <= 80 * 1024, "{cost} bytes for a frame that claims 1 MiB");

    // 2. As many and as small items as there can be, honestly sent: what a byte becomes at worst. These figures stand
    // behind `REQUEST_BYTES_MAX`.
    let mut names = BytesMut::with_capacity(SENT + 16);
    names.put_u8(0);
    put_varint(&mut names, SENT + 1);
    names.put_bytes(1, SENT);
    names.put_u8(0);
    let names = names.freeze();
    let mut decoded = None;
    let cost = peak(|| decoded = decode_request::<FindCoordinatorRequest>(names, 4).ok());
    assert!(decoded.is_some_and(|r| r.coordinator_keys.len() == SENT));
    assert!(cost < 100 * SENT, "empty names: {} times", cost / SENT);

    let topic = [&[0; 16][..], &[0, 1, 9, 0]].concat();
    let topics = many(&topic, SENT, &[0, 0, 0]);
    let mut decoded = None;
    let cost = peak(|| decoded = decode_request::<MetadataRequest>(topics, 12).ok());
    assert!(decoded.is_some_and(|r| r.topics.is_some_and(|t| t.len() == SENT / topic.len())));
    assert!(cost < 100 * SENT, "topics with an unknown tag: {} times", cost / SENT);

    let dir = [1, 1, 1, 9, 0];
    let topics = many(&dir, SENT, &[0]);
    let mut decoded = None;
    let cost = peak(|| decoded = decode_request::<DescribeLogDirsRequest>(topics, 4).ok());
    assert!(decoded.is_some_and(|r| r.topics.is_some_and(|t| t.len() == SENT / dir.len())));
    assert!(cost < 200 * SENT, "tiny topics with an unknown tag: {} times", cost / SENT);

    // The hand-written reader is the one that gets 100 MiB: empty topics, the smallest there are.
    let mut body = BytesMut::from(&[0, 0, 1, 0, 0, 0, 0][..]);
    put_varint(&mut body, SENT / 3 + 1);
    (0..SENT / 3).for_each(|_| body.put_slice(&[1, 1, 0]));
    body.put_u8(0);
    let mut decoded = None;
    let cost = peak(|| decoded = decode_produce(body, 9).ok());
    assert!(decoded.is_some_and(|r| r.topics.len() == SENT / 3));
    assert!(cost < 100 * SENT, "empty topics: {} times", cost / SENT);
}

fn many(item: &[u8], bytes: usize, end: &[u8]) -> Bytes {
    let count = bytes / item.len();
    let mut body = BytesMut::with_capacity(bytes + 16);
    put_varint(&mut body, count + 1);
    (0..count).for_each(|_| body.put_slice(item));
    body.put_slice(end);
    body.freeze()
}

fn put_varint(buf: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        buf.put_u8(0x80 | u8::try_from(value & 0x7f).expect("seven bits"));
        value >>= 7;
    }
    buf.put_u8(u8::try_from(value).expect("below 0x80"));
}
