//! Handshakes and exchanges on a network in memory, in virtual time.

mod attacks;
mod bad_network;
mod certificates;
mod exchange;
mod pipe;
mod support;
