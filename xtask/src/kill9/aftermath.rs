//! What is left behind, judged by `forebay bucket fsck --deep` as an operator would run it: clean as it is; and with one
//! byte flipped, the damage by its object, its block and the records behind it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{shell, workspace};

/// Exit codes of `forebay`.
const GOOD: i32 = 0;
const UNHEALTHY: i32 = 10;

/// A block's header, and where in it the bytes of payload stand (docs/formats.md).
const BLOCK_HEADER_SIZE: u64 = 32;
const BLOCK_MAGIC: &[u8] = b"FBDB";
const PAYLOAD_SIZE_AT: usize = 12;

/// What was looked at in a clean bucket.
#[derive(Clone, Copy, Default)]
pub(super) struct Looked {
    pub records: u64,
    pub batches: u64,
}

/// Wants a data folder that no process uses to be whole, its write-ahead log too.
pub(super) fn is_clean(data: &Path) -> Result<Looked> {
    let (code, report) = fsck(data)?;
    if code != GOOD || report["clean"] != true || report["walsNotChecked"] != 0 {
        bail!("fsck ends with {code} on {}:\n{report:#}", data.display());
    }
    let number = |name: &str| report[name].as_u64().with_context(|| format!("the report has no {name}"));
    let looked = Looked { records: number("records")?, batches: number("batchesChecked")? };
    ensure!(looked.records > 0 && looked.batches > 0, "fsck has looked at nothing:\n{report:#}");
    Ok(looked)
}

/// Flips one byte inside a block of a data object that holds committed records, wants it named, and takes it back. Gives
/// the finding as it is printed.
pub(super) fn flipped_byte_is_named(data: &Path) -> Result<String> {
    let object = some_object(data)?;
    let file = data.join("bucket").join(&object);
    let whole = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let mut damaged = whole.clone();
    let at = inside_first_block(&whole).with_context(|| format!("{object} does not begin with a block"))?;
    damaged[at] ^= 1;
    fs::write(&file, damaged).with_context(|| format!("write {}", file.display()))?;
    let (code, report) = fsck(data)?;
    fs::write(&file, whole).with_context(|| format!("write {}", file.display()))?;
    let told = || format!("fsck ends with {code} after byte {at} of {object} was flipped:\n{report:#}");
    ensure!(code == UNHEALTHY && report["clean"] == false, "{}", told());
    let found = report["findings"].as_array().with_context(told)?;
    let [finding] = &found.iter().filter(|finding| finding["severity"] == "error").collect::<Vec<_>>()[..] else {
        bail!("{}", told());
    };
    ensure!(finding["object"] == *object && finding["block"] == 0, "{}", told());
    let text = |name: &str| finding[name].as_str().with_context(told);
    let number = |name: &str| finding[name].as_u64().with_context(told);
    let (partition, first, last) = (text("partition")?, number("firstOffset")?, number("lastOffset")?);
    ensure!(!partition.is_empty() && first <= last, "{}", told());
    is_clean(data).context("after the byte was put back")?;
    Ok(format!("{object}, block at byte 0: {partition}, offsets {first} to {last}: {}", text("what")?))
}

/// Exit code and report of a deep check. An error where it printed none.
fn fsck(data: &Path) -> Result<(i32, Value)> {
    let mut command = forebay(data, &["fsck", "--deep"]);
    let done = command.output().context("start forebay bucket fsck")?;
    let code = done.status.code().context("forebay bucket fsck was killed")?;
    let report = serde_json::from_slice(&done.stdout);
    let report = report.with_context(|| format!("fsck ends with {code}: {}", String::from_utf8_lossy(&done.stderr)))?;
    Ok((code, report))
}

fn forebay(data: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = shell::command(workspace::release_binary("forebay"));
    command.args(["--format", "json", "bucket"]).args(arguments).arg("--data").arg(data);
    command.env_remove("FOREBAY_BUCKET");
    command
}

/// The object with the first committed records of the first topic that has any.
fn some_object(data: &Path) -> Result<String> {
    let listing: Value =
        serde_json::from_str(&shell::output(&mut forebay(data, &["ls"]))?).context("read the listing")?;
    let topics = listing["topics"].as_array().into_iter().flatten();
    let partitions = topics.filter_map(|topic| topic["partitions"].as_array()).flatten();
    let mut objects = partitions.filter_map(|partition| partition.pointer("/extents/0/object")?.as_str());
    objects.next().map(str::to_owned).context("no topic has committed records")
}

/// The middle of the first block's payload.
fn inside_first_block(object: &[u8]) -> Option<usize> {
    let size = object.get(PAYLOAD_SIZE_AT..PAYLOAD_SIZE_AT + 4)?;
    let size = u64::from(u32::from_le_bytes(size.try_into().ok()?));
    let at = usize::try_from(BLOCK_HEADER_SIZE + size / 2).ok()?;
    (object.starts_with(BLOCK_MAGIC) && size > 0 && at < object.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are no block, or one without a payload, have no place to flip.
    #[test]
    fn a_byte_is_flipped_inside_a_block_only() {
        let block = |magic: &[u8], size: u32, rest: usize| {
            let mut bytes = magic.to_vec();
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.resize(32 + rest, 0);
            inside_first_block(&bytes)
        };
        assert_eq!(block(b"FBDB", 100, 100), Some(82));
        assert_eq!(block(b"FBDB", 0, 100), None);
        assert_eq!(block(b"FBPB", 100, 100), None);
        assert_eq!(block(b"FBDB", 100, 10), None);
        assert_eq!(inside_first_block(b"FBDB"), None);
    }
}
