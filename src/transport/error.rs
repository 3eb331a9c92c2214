use std::io::{self, ErrorKind};

/// The class of a socket error, which determines how to react to it.
///
/// ```
/// use rejoinder::transport::ErrorClass;
/// use std::io::{Error, ErrorKind};
///
/// let class = |kind: ErrorKind| ErrorClass::classify(&Error::from(kind));
/// assert_eq!(class(ErrorKind::ConnectionRefused), ErrorClass::Peer);
/// assert_eq!(
///     class(ErrorKind::PermissionDenied),
///     ErrorClass::Configuration
/// );
/// assert_eq!(class(ErrorKind::NotConnected), ErrorClass::Gone);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// A signal came (EINTR). Nothing is wrong.
    Interrupted,
    /// It is about one peer, or the way there: ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH,
    /// EMSGSIZE and other errors that an ICMP message becomes (in receiving also EACCES, by
    /// `ICMPv6`). A forged packet can cause it, so it proves little and ends nothing.
    Peer,
    /// The system is short of something that comes back: ENOMEM, ENOBUFS, EAGAIN.
    Resources,
    /// The system does not allow it: EPERM or EACCES (a firewall on this machine, as a rule),
    /// EADDRNOTAVAIL, EINVAL. It lasts until the configuration changes.
    Configuration,
    /// There is no socket any more: the kind [`ErrorKind::NotConnected`] of a
    /// [`Transport`](crate::Transport).
    Gone,
    /// Anything else.
    Other,
}

impl ErrorClass {
    /// The class of an error.
    pub fn classify(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::Interrupted => Self::Interrupted,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown => Self::Peer,
            ErrorKind::OutOfMemory | ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Resources,
            ErrorKind::PermissionDenied | ErrorKind::AddrNotAvailable | ErrorKind::InvalidInput => {
                Self::Configuration
            }
            ErrorKind::NotConnected => Self::Gone,
            // The standard library has no kind for these.
            _ => match error.raw_os_error() {
                Some(code) if PEER_CODES.contains(&code) => Self::Peer,
                Some(code) if NO_BUFFERS_CODES.contains(&code) => Self::Resources,
                _ => Self::Other,
            },
        }
    }

    /// The class of an error in receiving. No firewall refuses that; but a router may refuse what was
    /// sent before, and say so (RFC 4443 §3.1, codes 1, 5 and 6).
    ///
    /// ```
    /// use rejoinder::transport::ErrorClass;
    /// use std::io::{Error, ErrorKind};
    ///
    /// // A refusal in sending is for good; a packet can cause one in receiving.
    /// let refusal = Error::from_raw_os_error(if cfg!(unix) { 13 } else { 10_013 }); // EACCES
    /// assert_eq!(ErrorClass::classify(&refusal), ErrorClass::Configuration);
    /// assert_eq!(ErrorClass::classify_receive(&refusal), ErrorClass::Peer);
    /// ```
    pub fn classify_receive(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(EACCES) => Self::Peer,
            _ => Self::classify(error),
        }
    }

    pub(crate) const ALL: [Self; 6] = [
        Self::Interrupted,
        Self::Peer,
        Self::Resources,
        Self::Configuration,
        Self::Gone,
        Self::Other,
    ];
}

/// How many errors there were of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorCounts([u64; ErrorClass::ALL.len()]);

impl ErrorCounts {
    /// How many of one class.
    pub(crate) fn get(&self, class: ErrorClass) -> u64 {
        self.0[class as usize]
    }

    /// How many in all.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Counts `errors` more of a class.
    pub(crate) fn add(&mut self, class: ErrorClass, errors: u64) {
        self.0[class as usize] += errors;
    }

    /// Adds what others counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for class in ErrorClass::ALL {
            self.add(class, other.get(class));
        }
    }
}

/// EMSGSIZE, and what Linux makes of the rarer messages of ICMP (`icmp_err_convert` in
/// net/ipv4/icmp.c, `icmpv6_err_convert` in net/ipv6/icmp.c): ENONET, EPROTO, ENOPROTOOPT, EOPNOTSUPP,
/// EHOSTDOWN.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PEER_CODES: &[i32] = &[90, 64, 71, 92, 95, 112];
/// EMSGSIZE, ENOPROTOOPT, EHOSTDOWN.
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const PEER_CODES: &[i32] = &[40, 42, 64];
/// WSAEMSGSIZE, WSAENETRESET, WSAEHOSTDOWN.
#[cfg(not(unix))]
const PEER_CODES: &[i32] = &[10_040, 10_052, 10_064];

#[cfg(unix)]
const EACCES: i32 = 13;
/// WSAEACCES.
#[cfg(not(unix))]
const EACCES: i32 = 10_013;

/// ENOBUFS.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NO_BUFFERS_CODES: &[i32] = &[105];
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const NO_BUFFERS_CODES: &[i32] = &[55];
/// WSAENOBUFS.
#[cfg(not(unix))]
const NO_BUFFERS_CODES: &[i32] = &[10_055];

#[cfg(test)]
mod tests {
    use super::{ErrorClass, ErrorCounts};

    #[cfg(target_os = "linux")]
    #[test]
    fn the_errors_that_linux_gives_have_their_classes() {
        use std::io;

        let classes = [
            (4, ErrorClass::Interrupted),    // EINTR
            (111, ErrorClass::Peer),         // ECONNREFUSED
            (104, ErrorClass::Peer),         // ECONNRESET
            (113, ErrorClass::Peer),         // EHOSTUNREACH
            (101, ErrorClass::Peer),         // ENETUNREACH
            (90, ErrorClass::Peer),          // EMSGSIZE
            (71, ErrorClass::Peer),          // EPROTO
            (112, ErrorClass::Peer),         // EHOSTDOWN
            (12, ErrorClass::Resources),     // ENOMEM
            (105, ErrorClass::Resources),    // ENOBUFS
            (11, ErrorClass::Resources),     // EAGAIN
            (1, ErrorClass::Configuration),  // EPERM
            (13, ErrorClass::Configuration), // EACCES
            (99, ErrorClass::Configuration), // EADDRNOTAVAIL
            (107, ErrorClass::Gone),         // ENOTCONN
            (5, ErrorClass::Other),          // EIO
        ];
        for (code, class) in classes {
            assert_eq!(
                ErrorClass::classify(&io::Error::from_raw_os_error(code)),
                class,
                "{code}"
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_router_refuses_is_no_matter_of_this_machine() {
        use std::io;

        let eacces = io::Error::from_raw_os_error(13);
        assert_eq!(ErrorClass::classify_receive(&eacces), ErrorClass::Peer);
        let eperm = io::Error::from_raw_os_error(1);
        assert_eq!(
            ErrorClass::classify_receive(&eperm),
            ErrorClass::Configuration
        );
    }

    #[test]
    fn counts_of_every_class_add_up() {
        let mut counts = ErrorCounts::default();
        for (times, class) in (1..).zip(ErrorClass::ALL) {
            counts.add(class, times);
        }
        let mut twice = counts;
        twice.merge(&counts);
        assert_eq!(twice.total(), 2 * (1 + 2 + 3 + 4 + 5 + 6));
        assert_eq!(twice.get(ErrorClass::Gone), 10);
    }
}
