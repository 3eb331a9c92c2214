use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use super::alarm::Alarm;
use super::transport::AsyncTransport;
use crate::sim::{SimNet, SimTransport};
use crate::timestamp::Timestamp;
use crate::transport::{Inbox, Outbox, SendReport};

/// An endpoint of a [`SimNet`] as an [`AsyncTransport`]: the network follows tokio's clock.
///
/// With `#[tokio::test(start_paused = true)]` that clock is virtual: it jumps to the next timer when
/// all tasks wait, and the next arrival on the network is such a timer. So servers, clients, and
/// `tokio::time::sleep` in handlers run in the same virtual time, and the same seed, links and script
/// give the same [trace](SimNet::trace) in every run.
///
/// - It needs a runtime of one thread, which `#[tokio::test]` is. `tokio::select!` draws random
///   numbers unless it is `biased`, and so does the iteration over a `HashMap`.
/// - tokio's timers have a resolution of 1 ms: what arrives within one is received together, in order.
/// - [Hosted](SimNet::host) nodes take part. Blocking endpoints and [`SimNet::advance`] do not: they
///   would move the time of the network on alone.
///
/// ```
/// use rejoinder::aio::{AsyncSim, Server};
/// use rejoinder::codec::Text;
/// use rejoinder::sim::{Link, SimNet};
/// use std::time::Duration;
/// use tokio::time::{sleep, Instant};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] // #[tokio::test(start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let net = SimNet::seeded(7);
/// net.set_link(Link::new().latency(Duration::from_millis(20)))?;
/// let endpoint = AsyncSim::new(net.bind("10.0.0.1:9999".parse()?)?);
/// let server = Server::builder(Text).with_transport(endpoint)?;
///
/// net.inject("10.0.0.2:4000".parse()?, server.local_addr()?, b"slow");
/// let begun = Instant::now();
/// let a_minute = sleep(Duration::from_secs(60)); // takes no time
/// let stats = server
///     .serve_until(
///         async |text: &str| {
///             sleep(Duration::from_secs(3)).await;
///             text.to_uppercase()
///         },
///         a_minute,
///     )
///     .await?;
/// assert_eq!(stats.replied, 1);
/// assert_eq!(begun.elapsed(), Duration::from_secs(60));
/// # Ok(())
/// # }
/// ```
pub struct AsyncSim {
    endpoint: SimTransport,
    arrivals: Alarm,
}

impl AsyncSim {
    /// Lets an endpoint live by tokio's clock.
    pub fn new(endpoint: SimTransport) -> Self {
        Self {
            endpoint,
            arrivals: Alarm::new(),
        }
    }

    fn net(&self) -> &SimNet {
        self.endpoint.net()
    }
}

impl AsyncTransport for AsyncSim {
    fn poll_recv(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<io::Result<usize>> {
        loop {
            match self.endpoint.receive_arrived(inbox) {
                Ok(0) => {}
                received => return Poll::Ready(received),
            }
            let next = self.endpoint.wait(cx.waker());
            if !next.is_some_and(|next| self.arrivals.poll(cx, next)) {
                return Poll::Pending;
            }
        }
    }

    fn try_recv(&mut self, inbox: &mut Inbox) -> io::Result<usize> {
        self.endpoint.receive_arrived(inbox)
    }

    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        outbox: &Outbox,
        report: &mut SendReport,
    ) -> Poll<()> {
        *report = self.endpoint.launch(outbox);
        Poll::Ready(())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        crate::Transport::local_addr(&self.endpoint)
    }

    fn now(&self) -> Timestamp {
        self.net().catch_up();
        self.net().now()
    }
}

impl fmt::Debug for AsyncSim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncSim").field(&self.endpoint).finish()
    }
}
