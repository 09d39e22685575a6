//! What goes to standard output: tables and lines for people, JSON for programs.
//!
//! Owns: the two formats, and how times are written. Invariant: standard output holds results only; progress and logs go
//! to standard error. A closed pipe is an error that ends the command quietly, not a panic.

use std::io::{self, Write};

use anyhow::Result;
use comfy_table::{CellAlignment, Table};
use forebay_types::Timestamp;
use serde_json::Value;

/// A JSON value as it is written. `serde_json`'s own macro unwraps what cannot fail: keys are text, numbers finite.
macro_rules! json {
    ($($written:tt)+) => {{
        #[allow(clippy::disallowed_methods)]
        let value = ::serde_json::json!($($written)+);
        value
    }};
}

pub(crate) use json;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// One line.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// One JSON document over several lines.
pub fn document(value: &Value) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// `text` for people, `value` for programs.
pub fn show(format: Format, text: &str, value: &Value) -> Result<()> {
    match format {
        Format::Text => line(text.trim_end())?,
        Format::Json => document(value)?,
    }
    Ok(())
}

/// Columns by name; a column whose name begins with `#` holds numbers and is set to the right.
pub fn table<const N: usize>(columns: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(columns.map(|name| name.trim_start_matches('#').to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for (index, name) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if name.starts_with('#') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A time as `2013-01-01T10:00:00Z`; milliseconds where it is beyond the calendar.
pub fn time(at: Timestamp) -> String {
    chrono::DateTime::from_timestamp_millis(at.as_millis())
        .map_or_else(|| at.as_millis().to_string(), |time| format!("{time:?}"))
}

/// A time as a person gives it: milliseconds since 1970, or RFC 3339.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(millis) = text.parse::<i64>() {
        return Ok(Timestamp::from_millis(millis));
    }
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| Timestamp::from_millis(time.timestamp_millis()))
        .map_err(|_| format!("{text:?} is no time: give milliseconds since 1970, or one like 2013-01-01T10:00:00Z"))
}

/// A count with commas.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest binary unit that leaves a whole part.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut whole = bytes;
    let mut rest = 0;
    let mut unit = None;
    for name in UNITS {
        if whole < 1024 {
            break;
        }
        rest = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = Some(name);
    }
    unit.map_or_else(|| format!("{bytes} B"), |unit| format!("{whole}.{rest} {unit}"))
}

/// `s` where there is not exactly one.
pub fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers stand to the right, names to the left, and no line ends in blanks.
    #[test]
    fn tables_are_plain_columns() {
        let rows = [["orders".to_owned(), "6".to_owned(), "x".to_owned()], ["a".into(), "128".into(), String::new()]];
        assert_eq!(
            table(["topic", "#partitions", "note"], rows),
            "TOPIC   PARTITIONS  NOTE\norders           6  x\na              128"
        );
    }

    /// Times read back as they are written, and what is no time is refused with an example.
    #[test]
    fn times_read_back() {
        let at = Timestamp::from_millis(1_357_034_400_000);
        assert_eq!(time(at), "2013-01-01T10:00:00Z");
        assert_eq!(parse_time(&time(at)), Ok(at));
        assert_eq!(parse_time("1357034400000"), Ok(at));
        assert!(parse_time("yesterday").is_err_and(|why| why.contains("2013-01-01T10:00:00Z")));
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 27_004, 1_234_567].map(count), ["0", "999", "1,000", "27,004", "1,234,567"]);
        assert_eq!([0, 1023, 1024, 1536, 5 << 30].map(size), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
    }
}
