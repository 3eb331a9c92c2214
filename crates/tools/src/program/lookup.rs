//! Names, resolved without waiting for the resolver longer than one wants.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::Failure;
use super::address::Address;

/// What finds the addresses of one name.
pub(crate) type Resolve = Arc<dyn Fn() -> Found + Send + Sync>;
pub(crate) type Found = Result<Vec<SocketAddr>, Failure>;

/// A name that is being resolved, on a thread of its own: the OS's resolver blocks for 5 seconds per attempt
/// and name server by default (resolv.conf(5)), and cannot be interrupted. A thread that takes too long is
/// left to itself.
pub(crate) struct Lookup(Receiver<Found>);

impl Lookup {
    pub(crate) fn start(resolve: &Resolve) -> Result<Self, Failure> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let resolve = Arc::clone(resolve);
        let work = move || drop(sender.send(resolve()));
        thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(work)
            .map_err(|error| Failure::RunTime(format!("cannot start a thread: {error}")))?;
        Ok(Self(receiver))
    }

    /// What was found. `None` if that is not known after this time.
    pub(crate) fn wait(&self, time: Duration) -> Option<Found> {
        match self.0.recv_timeout(time) {
            Ok(found) => Some(found),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                Some(Err(Failure::RunTime("the resolver panicked".to_owned())))
            }
        }
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

/// What finds the addresses of a name by the OS's resolver.
pub(crate) fn by_the_os(address: &Address) -> Resolve {
    let address = address.clone();
    Arc::new(move || address.resolve())
}

/// The addresses that a text stands for, within a time, which only a name takes.
pub(crate) fn resolve_within(address: &Address, time: Duration) -> Found {
    if !address.is_name() {
        return address.resolve();
    }
    wait_for(&by_the_os(address), address.text(), time)
}

fn wait_for(resolve: &Resolve, text: &str, time: Duration) -> Found {
    Lookup::start(resolve)?.wait(time).unwrap_or_else(|| {
        Err(Failure::RunTime(format!(
            "`{text}` could not be resolved within {time:?}: no answer from the resolver; check this machine's \
             name servers, or give an IP address"
        )))
    })
}

/// How long the tools that have no option for it wait for a resolver, as for a response.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};
    use std::time::Duration;

    use super::{Lookup, Resolve, resolve_within, wait_for};
    use crate::program::Failure;
    use crate::program::address::{Address, DEFAULT};

    #[test]
    fn a_resolver_that_does_not_return_is_not_waited_for() {
        // It returns when the sender is dropped, after the test.
        let (_sender, receiver) = mpsc::channel::<()>();
        let receiver = Mutex::new(receiver);
        let stuck: Resolve = Arc::new(move || {
            let _ = receiver.lock().expect("no other thread").recv();
            Ok(vec![DEFAULT])
        });
        let failure = wait_for(&stuck, "bot.example:7", Duration::from_millis(2));
        let Err(Failure::RunTime(line)) = failure else {
            panic!("{failure:?}");
        };
        let begins = "`bot.example:7` could not be resolved within 2ms: ";
        assert!(line.starts_with(begins), "{line}");
    }

    #[test]
    fn a_resolver_that_panics_is_an_error() {
        let panics: Resolve = Arc::new(|| panic!("of the test"));
        let lookup = Lookup::start(&panics).expect("a thread can be started");
        let found = lookup.wait(Duration::MAX).expect("the thread has ended");
        assert!(matches!(found, Err(Failure::RunTime(_))), "{found:?}");
    }

    #[test]
    fn an_ip_address_takes_no_time() {
        for text in ["127.0.0.1", "8888"] {
            let address = Address::parse(text, 8888).expect("it is an address");
            let found = resolve_within(&address, Duration::ZERO);
            assert_eq!(found.expect("it is an address"), [DEFAULT]);
        }
    }
}
