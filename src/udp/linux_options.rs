//! Socket options of Linux.

use std::io;
use std::net::UdpSocket;

use socket2::Socket;

use super::family::Family;
use super::syscall;

/// Turns merging on or off. Where it cannot be turned off, it was never on.
pub(super) fn set_gro(socket: &UdpSocket, on: bool) -> bool {
    syscall::set_option(socket, (libc::SOL_UDP, libc::UDP_GRO), on.into()).is_ok()
}

/// Asks the kernel to report where each datagram was sent to.
pub(super) fn set_packet_info(socket: &UdpSocket, family: Family) -> bool {
    let v4 = syscall::set_option(socket, (libc::IPPROTO_IP, libc::IP_PKTINFO), 1).is_ok();
    match family {
        Family::V4 => v4,
        // For a datagram to a broadcast address of IPv4, only the option of IPv4 reports the address
        // to reply from. A socket that is for IPv6 alone may not have it.
        Family::V6 => {
            syscall::set_option(socket, (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO), 1).is_ok()
        }
    }
}

/// Turns off what would hold datagrams back or cut them up (`UDP_CORK`, `UDP_SEGMENT`; udp(7)).
pub(super) fn send_each_datagram_at_once(socket: &UdpSocket) {
    for option in [libc::UDP_CORK, libc::UDP_SEGMENT] {
        // An old kernel has no segments.
        let _ = syscall::set_option(socket, (libc::SOL_UDP, option), 0);
    }
}

/// Leaves out datagrams to groups that another socket of the machine has joined (`IP_MULTICAST_ALL`;
/// ip(7)).
pub(super) fn receive_own_groups_only(socket: &Socket) {
    for option in [
        (libc::IPPROTO_IP, libc::IP_MULTICAST_ALL),
        (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_ALL),
    ] {
        // A socket of IPv4 has one of them, and an old kernel too.
        let _ = syscall::set_option(socket, option, 0);
    }
}

/// Lets other sockets of the same user bind to the same address, if they ask for it too. The kernel
/// spreads peers among them.
pub(super) fn set_reuse_port(socket: &UdpSocket) -> io::Result<()> {
    syscall::set_option(socket, (libc::SOL_SOCKET, libc::SO_REUSEPORT), 1)
}
