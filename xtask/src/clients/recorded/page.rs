//! `docs/compatibility.md`: what is recorded of suites that others wrote, for those who want to know what works here.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use super::table::{self, ACCEPTED, Accepted, Outcome, Table};
use crate::workspace;

const PAGE: &str = "docs/compatibility.md";

const HEAD: &str = "\
# Compatibility

Test suites that Kafka's clients come with, run against the broker and against Apache Kafka on the same machine, and
compared case by case. They are unmodified, but for the replicas that librdkafka's asks for: one here, as there is one broker.
Made by `cargo xtask clients --all` from what it recorded in `tests/clients/suites`; `cargo xtask clients page` makes it from
there again. Which APIs are spoken, and where their answers differ, is in [Kafka's APIs](kafka-apis.md).
";

/// Writes the page from what is recorded.
pub(in crate::clients) fn write() -> Result<()> {
    fs::write(workspace::root().join(PAGE), text()?).with_context(|| format!("write {PAGE}"))
}

fn text() -> Result<String> {
    let accepted = Accepted::read()?;
    let mut tables = Vec::new();
    for suite in table::recorded()? {
        let table = Table::read(&suite)?;
        tables.push((suite, table));
    }
    Ok(format!("{HEAD}\n{}\n{}\n{}", counts(&tables), open(&tables, &accepted), meant(&accepted)))
}

fn counts(tables: &[(String, Table)]) -> String {
    let mut text = String::from(
        "| suite | version | Kafka | passed there | here | failed there | here | skipped there | here |\n\
         |---|---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for (suite, table) in tables {
        let _ = write!(text, "| {suite} | {} | {} ", table.version, table.kafka);
        for outcome in [Outcome::Passed, Outcome::Failed, Outcome::Skipped] {
            let (there, here) = table.count(outcome);
            let here = if table.was_run_here() { here.to_string() } else { "not run".to_owned() };
            let _ = write!(text, "| {there} | {here} ");
        }
        text.push_str("|\n");
    }
    text
}

/// What passes on Kafka, not here, and is not accepted.
fn open(tables: &[(String, Table)], accepted: &Accepted) -> String {
    let mut text = String::from("## What still differs\n\nCases that pass on Kafka and not here, and should:\n\n");
    let head = text.len();
    for (suite, table) in tables {
        for (case, here) in table.differences() {
            if accepted.why(suite, case).is_none() {
                let _ = writeln!(text, "- {suite} `{case}`: {here}");
            }
        }
    }
    if text.len() == head {
        text.push_str("None.\n");
    }
    text
}

fn meant(accepted: &Accepted) -> String {
    let mut text = format!("## Accepted differences\n\nFrom `{ACCEPTED}`, each with its reason:\n\n");
    let head = text.len();
    for (suite, case, why) in accepted.iter() {
        let _ = writeln!(text, "- {suite} `{case}`: {why}");
    }
    if text.len() == head {
        text.push_str("None.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page is what is recorded: whoever changes one changes the other.
    #[test]
    fn the_page_tells_what_is_recorded() {
        let page = workspace::read(PAGE.as_ref()).expect("it is there");
        assert_eq!(page, text().expect("what is recorded"), "made by `cargo xtask clients page`");
    }
}
