//! The client against a broker in the same process that loses, refuses, forgets and delays.

mod client;
mod producer;
mod support;
mod transaction;
