//! Any bytes into one of `forebay_format::fuzz`'s functions, the one that `TARGET` names.
#![cfg_attr(feature = "libfuzzer", no_main)]

use std::sync::LazyLock;

use forebay_format::fuzz::{TARGETS, Target};

static FUNCTION: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    let names = || TARGETS.iter().map(|(target, _)| *target).collect::<Vec<_>>().join(", ");
    found.unwrap_or_else(|| panic!("TARGET={name:?} is none of {}", names())).1
});

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| FUNCTION(data));

/// Without the fuzzer: over the files that are named.
#[cfg(not(feature = "libfuzzer"))]
fn main() -> std::io::Result<()> {
    std::env::args_os().skip(1).try_for_each(|file| std::fs::read(file).map(|data| FUNCTION(&data)))
}
