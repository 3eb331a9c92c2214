use std::io;
use std::sync::Arc;

use super::shared::Shared;
use super::stats::Stats;

/// Shuts a [`Server`](super::Server) down and reads its counters while it runs.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::{Client, Server};
/// use std::thread;
///
/// let server = Server::bind("127.0.0.1:0", Text)?;
/// let (addr, handle) = (server.local_addr()?, server.handle());
/// let serving = thread::spawn(move || server.serve(|text: &str| Some(text.to_uppercase())));
///
/// Client::connect(addr, Text)?.request("quiet")?;
/// assert!(handle.last_receive_error().is_none() && handle.last_send_error().is_none());
/// assert!(!handle.is_finished());
/// handle.shutdown();
/// serving.join().expect("nothing panics there")?;
/// assert!(handle.is_finished());
/// assert_eq!(handle.stats().replied, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerHandle {
    pub(crate) shared: Arc<Shared>,
}

impl ServerHandle {
    /// Asks the server to end. It answers what has already arrived, including the kernel's queue
    /// (at most 65,536 datagrams per worker). Then it returns from [`serve`](super::Server::serve):
    /// within half a second, unless a handler keeps it longer.
    ///
    /// A signal handler may call it for a blocking server, where it only sets a flag. An async server is woken
    /// up, which takes a lock.
    pub fn shutdown(&self) {
        self.shared.shut_down();
    }

    /// Takes the server into service, or out of it: a health check of a load balancer should follow
    /// [`is_ready`](Self::is_ready). Nothing else depends on it; the server answers on.
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    ///
    /// let handle = Server::bind("127.0.0.1:0", Text)?.handle();
    /// assert!(handle.is_ready());
    /// handle.set_ready(false); // a balancer takes it off its list; then shut it down
    /// assert!(!handle.is_ready());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_ready(&self, ready: bool) {
        self.shared.set_ready(ready);
    }

    /// Whether the server is in service: until [`set_ready`](Self::set_ready) says otherwise, or it is
    /// shut down.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Whether every worker of the server has ended. It is `false` before the server serves.
    pub fn is_finished(&self) -> bool {
        self.shared.is_finished()
    }

    /// The counters of all workers together, each after its latest batch. They are consistent with
    /// each other.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The latest error in receiving, whenever that was; with several workers, that of one which
    /// had any.
    pub fn last_receive_error(&self) -> Option<io::Error> {
        self.shared.last_receive_error()
    }

    /// The latest error in sending, whenever that was; with several workers, that of one which had
    /// any.
    pub fn last_send_error(&self) -> Option<io::Error> {
        self.shared.last_send_error()
    }
}
