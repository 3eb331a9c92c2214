//! There is no fast path on this system: the portable one does everything.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::{Family, UdpFeatures};
use crate::transport::{Inbox, Outbox};
use crate::transport::{SendReport, Wait};

/// Nobody has one.
#[derive(Debug)]
pub(super) enum Fast {}

impl Fast {
    #[expect(clippy::unnecessary_wraps, reason = "the one for Linux can fail")]
    pub(super) fn new(
        _: &UdpSocket,
        _: Family,
        _: bool,
        _: UdpFeatures,
    ) -> io::Result<Option<Self>> {
        Ok(None)
    }

    pub(super) fn features(&self) -> UdpFeatures {
        match *self {}
    }

    pub(super) fn kernel_drops(&self) -> u64 {
        match *self {}
    }

    pub(super) fn is_plain(&self, _: Option<IpAddr>) -> bool {
        match *self {}
    }

    pub(super) fn recv(
        &mut self,
        _: &UdpSocket,
        _: Option<IpAddr>,
        _: &mut Inbox,
        _: Wait,
    ) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn send(
        &mut self,
        _: &UdpSocket,
        _: Family,
        _: Option<SocketAddr>,
        _: &Outbox,
    ) -> SendReport {
        match *self {}
    }
}

/// Other systems have no such option, or give it another meaning.
pub(super) fn set_reuse_port(_: &UdpSocket) -> io::Result<()> {
    Err(io::Error::new(
        ErrorKind::Unsupported,
        "several sockets on one address need Linux",
    ))
}
