use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use crate::timestamp::Timestamp;
use crate::transport::{Inbox, Outbox, SendReport};

/// A [`Transport`](crate::Transport) that is polled: where datagrams arrive and from which they leave,
/// for drivers that must not block.
///
/// # Who calls what
///
/// A driver calls [`poll_recv`](Self::poll_recv) with an empty [`Inbox`], works through it, and calls
/// [`poll_send`](Self::poll_send) with the [`Outbox`] until it is ready. It does not change the outbox
/// in between. [`now`](Self::now) is asked after every reception, once for the whole batch. At a
/// shutdown the driver calls [`try_recv`](Self::try_recv) until nothing is there.
///
/// # What an implementation guarantees
///
/// What a [`Transport`](crate::Transport) does: whole datagrams, canonical addresses, responses that
/// leave from the address that was asked, and every datagram of an outbox tried once. And:
///
/// - **Nothing blocks.** A function that cannot go on returns `Pending`, and has registered the waker
///   of its context.
/// - **Both directions at once.** A pending reception and a pending send wake the task of the context
///   that was passed last, each on its own.
/// - **A send goes on where it stopped.** Between two calls for one outbox no datagram is lost, and
///   none is sent twice. A server receives nothing while a send is pending, so a transport with many
///   peers reports as failed what it has no room for, as [`AsyncUdp`](super::AsyncUdp) does.
///
/// # Errors
///
/// As of [`Transport::recv`](crate::Transport::recv): an error says that one attempt failed, and only
/// the kind [`io::ErrorKind::NotConnected`] ends the driver.
///
/// # A minimal implementation
///
/// ```
/// use rejoinder::aio::{AsyncTransport, Server};
/// use rejoinder::codec::Text;
/// use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
/// use rejoinder::Timestamp;
/// use std::collections::VecDeque;
/// use std::net::SocketAddr;
/// use std::task::{Context, Poll};
/// use std::{future, io};
///
/// /// What is in it arrives, and what is sent is printed.
/// struct Queue(VecDeque<&'static str>);
///
/// impl AsyncTransport for Queue {
///     fn poll_recv(&mut self, _: &mut Context<'_>, inbox: &mut Inbox) -> Poll<io::Result<usize>> {
///         match self.try_recv(inbox) {
///             Ok(0) => Poll::Pending, // nothing will come: there is nothing to register with
///             received => Poll::Ready(received),
///         }
///     }
///     fn try_recv(&mut self, inbox: &mut Inbox) -> io::Result<usize> {
///         let Some(text) = self.0.pop_front() else { return Ok(0) };
///         inbox.push(text.as_bytes(), Meta::new(([192, 0, 2, 1], 7777).into()));
///         Ok(1)
///     }
///     fn poll_send(&mut self, _: &mut Context<'_>, outbox: &Outbox, report: &mut SendReport) -> Poll<()> {
///         for datagram in outbox.iter() {
///             println!("to {}: {}", datagram.peer, datagram.bytes.escape_ascii());
///             report.sent += 1;
///         }
///         Poll::Ready(())
///     }
///     fn local_addr(&self) -> io::Result<SocketAddr> {
///         Ok(([192, 0, 2, 2], 9999).into())
///     }
///     fn kernel_drops(&self) -> u64 {
///         0
///     }
///     fn now(&self) -> Timestamp {
///         Timestamp::system()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder(Text).with_transport(Queue(["one", "two"].into()))?;
/// let at_once = future::ready(());
/// let stats = server.serve_until(async |text: &str| text.to_uppercase(), at_once).await?;
/// assert_eq!(stats.responses_sent, 2);
/// # Ok(())
/// # }
/// ```
///
/// Tempting, and wrong: calling the OS first and registering the waker when it has nothing. A datagram
/// that arrives in between wakes no task. tokio's `try_io` asks for the readiness before the call, and
/// forgets it only if it was not reported again.
pub trait AsyncTransport {
    /// Receives one batch into an empty inbox. Ready with the number of datagrams, at least one.
    fn poll_recv(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<io::Result<usize>>;

    /// Receives what is there into an empty inbox, without waiting: 0 if nothing is.
    fn try_recv(&mut self, inbox: &mut Inbox) -> io::Result<usize>;

    /// Sends what is left of an outbox, and adds what became of it to `report`. Ready once every
    /// datagram was tried. The next call is the first for another outbox.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Outbox,
        report: &mut SendReport,
    ) -> Poll<()>;

    /// The address that this transport is bound to.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Whether the IP address in `addr` is one of this machine's, as
    /// [`Transport::is_local_ip`](crate::Transport::is_local_ip). The default does not know, and
    /// returns `true`.
    ///
    /// ```
    /// use rejoinder::aio::{AsyncTransport, AsyncUdp as UdpAsyncTransport};
    ///
    /// assert!(UdpAsyncTransport::is_local_ip("127.0.0.1:0".parse()?));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    fn is_local_ip(addr: SocketAddr) -> bool
    where
        Self: Sized,
    {
        let _ = addr;
        true
    }

    /// As [`Transport::kernel_drops`](crate::Transport::kernel_drops).
    fn kernel_drops(&self) -> u64 {
        0
    }

    /// Reads the clock that this transport lives by.
    fn now(&self) -> Timestamp {
        Timestamp::system()
    }
}
