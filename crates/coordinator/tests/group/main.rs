//! The group machine, by scripts that an operator could read and by random histories.

mod membership;
mod offsets;
mod properties;
mod script;
