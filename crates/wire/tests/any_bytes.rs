//! Bytes made at random, and requests damaged at random, go through every fuzz target: none may panic.

use bytes::BytesMut;
use forebay_wire::fuzz;
use proptest::prelude::*;

/// Noise, with the small numbers that lengths and counts are made of more often than chance has them.
fn noise(bytes_max: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => any::<u8>(), 2 => 0..4u8, 1 => Just(0xff), 1 => Just(0x7f)];
    proptest::collection::vec(byte, 0..bytes_max)
}

fn damage(bytes: &mut [u8], at: &[(prop::sample::Index, u8)]) {
    for (at, byte) in at {
        bytes[at.index(bytes.len())] = *byte;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn noise_panics_nowhere(data in noise(300)) {
        fuzz::frame(&data);
        fuzz::produce(&data);
        fuzz::batch(&data);
        fuzz::records(&data);
        fuzz::request_any(&data);
    }

    /// As above, with the first bytes such that the rest is looked at.
    #[test]
    fn requests_of_noise_panic_nowhere(key in prop::sample::select(fuzz::KEYS), version in 0..16i16, body in noise(300)) {
        let mut data = (key as i16).to_be_bytes().to_vec();
        data.extend(version.to_be_bytes());
        data.extend(&body);
        fuzz::request_any(&data);
        let mut frame = BytesMut::new();
        frame.extend_from_slice(&i32::try_from(data.len()).expect("small").to_be_bytes());
        frame.extend_from_slice(&data);
        fuzz::frame(&frame);
    }

    #[test]
    fn damaged_batches_panic_nowhere(
        which in 0..4usize,
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let batches: [&[u8]; 4] = [
            include_bytes!("../corpus/batch/kafka-plain.bin"),
            include_bytes!("../corpus/batch/kafka-two.bin"),
            include_bytes!("../corpus/batch/kafka-snappy.bin"),
            include_bytes!("../corpus/batch/kafka-commit.bin"),
        ];
        let mut batch = batches[which].to_vec();
        damage(&mut batch, &at);
        fuzz::batch(&batch);
        fuzz::records(&batch);
        fuzz::batch(&batch[..cut.index(batch.len())]);
    }
}
