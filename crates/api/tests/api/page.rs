//! The page about APIs is made from the table.

use std::path::Path;

/// `docs/kafka-apis.md` is what the table says. With `UPDATE=1` it becomes so.
#[test]
fn page_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kafka-apis.md");
    let page = forebay_api::apis::page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).expect("the docs can be written");
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(held == page, "docs/kafka-apis.md is old: UPDATE=1 cargo test -p forebay-api --test api page");
}
