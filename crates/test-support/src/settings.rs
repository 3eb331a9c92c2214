//! The settings in which a server must behave the same.

use std::fmt;
use std::net::UdpSocket;
use std::thread;

/// A way to open a server.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Without the fast path.
    pub portable: bool,
    /// Over IPv6.
    pub v6: bool,
    /// How many workers share the address.
    pub workers: usize,
}

impl Setting {
    /// A free port of the one address.
    pub fn addr(self) -> &'static str {
        if self.v6 { "[::1]:0" } else { "127.0.0.1:0" }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.portable { "portable" } else { "fast" };
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        write!(f, "{path}, {family}, {} workers", self.workers)
    }
}

/// Tests in each setting that the system has, in all at the same time: most of what a test takes is
/// waiting. A thread has the name of its setting, so a failure names it.
pub fn in_every_setting(test: impl Fn(Setting) + Sync) {
    let test = &test;
    thread::scope(|scope| {
        for portable in [false, true] {
            for v6 in [false, true] {
                for workers in [1, 3] {
                    let setting = Setting {
                        portable,
                        v6,
                        workers,
                    };
                    // Elsewhere a group of sockets cannot be had.
                    let can = workers == 1 || cfg!(target_os = "linux");
                    if can && (!v6 || has_ipv6()) {
                        thread::Builder::new()
                            .name(setting.to_string())
                            .spawn_scoped(scope, move || test(setting))
                            .unwrap();
                    }
                }
            }
        }
    });
}

/// Whether tests over IPv6 are to run.
pub fn has_ipv6() -> bool {
    if let Err(error) = UdpSocket::bind("[::1]:0") {
        assert!(
            std::env::var_os("REJOINDER_TESTS_WITHOUT_IPV6").is_some(),
            "no IPv6 loopback on this machine ({error}); \
             set REJOINDER_TESTS_WITHOUT_IPV6 to leave out the tests that need it"
        );
        return false;
    }
    true
}
