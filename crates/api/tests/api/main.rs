//! Every API by exchanges that an operator could read, against one broker's log over a bucket and a WAL in memory.

mod admin;
mod coordinators;
mod fetch;
mod hostile;
mod offsets;
mod page;
mod produce;
mod script;
mod sessions;
mod topics;
mod world;
