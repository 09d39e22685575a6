//! The rules, as scripts: what is done, and what comes of it. After every command the invariants are checked.

mod property;
mod retention;
mod takeover;
mod topics;
