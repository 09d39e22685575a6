//! A whole broker over loopback sockets, with our own client and with bytes that no client would send.

mod connections;
mod epochs;
mod folder;
mod inside;
mod memory;
mod restart;
mod room;
mod support;
mod trash;
