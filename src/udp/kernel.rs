//! What this kernel has, and lets this process use.

use std::net::UdpSocket;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use super::features::{UdpFeature, UdpFeatures};
use super::syscall::{self, Call};

/// What does not depend on the socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct System {
    pub(super) features: UdpFeatures,
    pub(super) recvmsg: bool,
    pub(super) sendmsg: bool,
}

impl System {
    /// Looks it up once. What a filter forbids later shows when it is used.
    pub(super) fn of(socket: &UdpSocket) -> Self {
        static SYSTEM: OnceLock<System> = OnceLock::new();
        *SYSTEM.get_or_init(|| {
            let gso = syscall::option(socket, (libc::SOL_UDP, libc::UDP_SEGMENT)).is_ok();
            System {
                features: UdpFeatures::NONE
                    .with(UdpFeature::Recvmmsg, !is_forbidden(Call::Recvmmsg))
                    .with(UdpFeature::Sendmmsg, !is_forbidden(Call::Sendmmsg))
                    .with(UdpFeature::Gso, gso),
                recvmsg: !is_forbidden(Call::Recvmsg),
                sendmsg: !is_forbidden(Call::Sendmsg),
            }
        })
    }
}

/// Whether a system call is forbidden; reports that once in the life of the process.
#[cold]
pub(super) fn is_forbidden(call: Call) -> bool {
    static SAID: AtomicU8 = AtomicU8::new(0);
    if syscall::is_allowed(call) {
        return false;
    }
    let bit = 1 << call as u8;
    if SAID.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        #[cfg(feature = "tracing")]
        tracing::warn!(
            ?call,
            "a system call is forbidden, so datagrams are moved without it"
        );
    }
    true
}
