//! Any bytes into one of `forebay_wire::fuzz`'s functions, the one that `TARGET` names.
#![cfg_attr(feature = "libfuzzer", no_main)]

use std::sync::LazyLock;

use forebay_wire::fuzz;

static FUNCTION: LazyLock<fn(&[u8])> = LazyLock::new(|| match std::env::var("TARGET").as_deref() {
    Ok("batch") => fuzz::batch,
    Ok("frame") => fuzz::frame,
    Ok("produce") => fuzz::produce,
    Ok("records") => fuzz::records,
    Ok("request_any") => fuzz::request_any,
    other => panic!("TARGET={other:?} is none of batch, frame, produce, records, request_any"),
});

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| FUNCTION(data));

/// Without the fuzzer: over the files that are named.
#[cfg(not(feature = "libfuzzer"))]
fn main() -> std::io::Result<()> {
    std::env::args_os().skip(1).try_for_each(|file| std::fs::read(file).map(|data| FUNCTION(&data)))
}
