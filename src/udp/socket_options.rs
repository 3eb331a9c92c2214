//! Options that the kernel keeps with a socket: hop limits, groups, broadcast, path MTU.

use std::io;
use std::net::{IpAddr, UdpSocket};

use socket2::{InterfaceIndexOrAddress, SockRef};

use super::family::Family;
use crate::config_error::ConfigError;

/// What was asked for; what was not is left as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct SocketOptions {
    pub(super) hops: Option<u8>,
    pub(super) multicast_hops: Option<u8>,
    pub(super) multicast_loop: Option<bool>,
    pub(super) multicast_interface: Option<u32>,
    pub(super) broadcast: bool,
    pub(super) ignore_path_mtu: bool,
    /// Groups, each with an interface, or 0.
    pub(super) groups: Vec<(IpAddr, u32)>,
}

impl SocketOptions {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.hops == Some(0) {
            return Err(ConfigError::out_of_range("hops", 0, "1 to 255"));
        }
        match self.groups.iter().find(|group| !group.0.is_multicast()) {
            None => Ok(()),
            Some((group, _)) => Err(ConfigError::out_of_range(
                "multicast_group",
                group,
                "a multicast address",
            )),
        }
    }

    pub(super) fn apply(&self, socket: &UdpSocket) -> io::Result<()> {
        let family = Family::of(socket.local_addr()?);
        let options = SockRef::from(socket);
        if let Some(hops) = self.hops {
            let hops = hops.into();
            both(
                family,
                || options.set_ttl_v4(hops),
                || options.set_unicast_hops_v6(hops),
            )?;
        }
        if let Some(hops) = self.multicast_hops {
            let hops = hops.into();
            both(
                family,
                || options.set_multicast_ttl_v4(hops),
                || options.set_multicast_hops_v6(hops),
            )?;
        }
        if let Some(on) = self.multicast_loop {
            both(
                family,
                || options.set_multicast_loop_v4(on),
                || options.set_multicast_loop_v6(on),
            )?;
        }
        if let Some(interface) = self.multicast_interface {
            both(
                family,
                || set_multicast_interface_v4(socket, interface),
                || options.set_multicast_if_v6(interface),
            )?;
        }
        if self.broadcast {
            options.set_broadcast(true)?;
        }
        if self.ignore_path_mtu {
            both(
                family,
                || path_mtu::ignore_v4(socket),
                || path_mtu::ignore_v6(socket),
            )?;
        }
        for &(group, interface) in &self.groups {
            join(socket, group, interface)?;
        }
        Ok(())
    }
}

/// Sets an option of both families on a socket of IPv6, which may serve IPv4 too; one that is for IPv6
/// alone may not have that of IPv4.
fn both(
    family: Family,
    set_v4: impl Fn() -> io::Result<()>,
    set_v6: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    match family {
        Family::V4 => set_v4(),
        Family::V6 => {
            let _ = set_v4();
            set_v6()
        }
    }
}

/// Joins a group on an interface; 0 leaves the choice to the kernel.
pub(super) fn join(socket: &UdpSocket, group: IpAddr, interface: u32) -> io::Result<()> {
    let options = SockRef::from(socket);
    match group.to_canonical() {
        IpAddr::V4(group) => membership_v4(&options, group, interface, true),
        IpAddr::V6(group) => options.join_multicast_v6(&group, interface),
    }
}

/// Leaves a group that was joined on this interface.
pub(super) fn leave(socket: &UdpSocket, group: IpAddr, interface: u32) -> io::Result<()> {
    let options = SockRef::from(socket);
    match group.to_canonical() {
        IpAddr::V4(group) => membership_v4(&options, group, interface, false),
        IpAddr::V6(group) => options.leave_multicast_v6(&group, interface),
    }
}

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "freebsd",
    windows
))]
fn membership_v4(
    socket: &SockRef<'_>,
    group: std::net::Ipv4Addr,
    interface: u32,
    join: bool,
) -> io::Result<()> {
    let interface = InterfaceIndexOrAddress::Index(interface);
    if join {
        socket.join_multicast_v4_n(&group, &interface)
    } else {
        socket.leave_multicast_v4_n(&group, &interface)
    }
}

/// These systems name interfaces by address only.
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "freebsd",
    windows
)))]
fn membership_v4(
    socket: &SockRef<'_>,
    group: std::net::Ipv4Addr,
    interface: u32,
    join: bool,
) -> io::Result<()> {
    if interface != 0 {
        return Err(unsupported());
    }
    let any = std::net::Ipv4Addr::UNSPECIFIED;
    if join {
        socket.join_multicast_v4(&group, &any)
    } else {
        socket.leave_multicast_v4(&group, &any)
    }
}

#[cfg(target_os = "linux")]
fn set_multicast_interface_v4(socket: &UdpSocket, interface: u32) -> io::Result<()> {
    use rustix::net::sockopt;

    use std::net::Ipv4Addr;

    Ok(sockopt::set_ip_multicast_if_with_ifindex(
        socket,
        &Ipv4Addr::UNSPECIFIED,
        &Ipv4Addr::UNSPECIFIED,
        interface,
    )?)
}

#[cfg(not(target_os = "linux"))]
fn set_multicast_interface_v4(_: &UdpSocket, _: u32) -> io::Result<()> {
    Err(unsupported())
}

/// The kernel of this system, or the crate that calls it, cannot do it.
#[cfg(not(target_os = "linux"))]
fn unsupported() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "an interface for multicast over IPv4 cannot be chosen by its index on this system",
    )
}

#[cfg(target_os = "linux")]
mod path_mtu {
    use std::io;
    use std::net::UdpSocket;

    use super::super::syscall::set_option;

    /// `IP_PMTUDISC_OMIT`, Linux 3.15.
    pub(super) fn ignore_v4(socket: &UdpSocket) -> io::Result<()> {
        let option = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
        set_option(socket, option, libc::IP_PMTUDISC_OMIT)
    }

    /// `IPV6_PMTUDISC_OMIT`, Linux 3.15.
    pub(super) fn ignore_v6(socket: &UdpSocket) -> io::Result<()> {
        let option = (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER);
        set_option(socket, option, libc::IPV6_PMTUDISC_OMIT)
    }
}

/// These systems discover no path MTU for UDP unless they are asked to.
#[cfg(not(target_os = "linux"))]
mod path_mtu {
    use std::io;
    use std::net::UdpSocket;

    pub(super) fn ignore_v4(_: &UdpSocket) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn ignore_v6(_: &UdpSocket) -> io::Result<()> {
        Ok(())
    }
}
