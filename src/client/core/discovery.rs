//! Requests to a group: any number of responses, each from another peer.

use std::io;
use std::time::Duration;

use super::{ClientCore, RequestError, Ticket};
use crate::codec::Codec;
use crate::timestamp::Timestamp;

impl<C: Codec> ClientCore<C> {
    /// Submits a request to a group, which takes responses for as long as `time` says. Otherwise like
    /// [`submit`](Self::submit). [`Client::discover`](crate::Client::discover) documents what counts as a
    /// response, and has an example.
    ///
    /// Its results are the responses of the members, which [`take_result`](Self::take_result) gives out
    /// one by one, and [`poll_result`](Self::poll_result) never does. The request takes up its slot of the window, also when its
    /// time is over, until it is [cancelled](Self::cancel).
    ///
    /// # Errors
    ///
    /// As those of [`submit`](Self::submit).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
    /// use rejoinder::{Client, Timestamp};
    /// use std::time::{Duration, SystemTime};
    ///
    /// let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// let mut core = Client::builder(Text).core("239.1.2.3:9999".parse()?)?;
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(8, 512));
    ///
    /// let time = Duration::from_secs(2);
    /// let ticket = core.discover(at(0), "who is there?", time, &mut || Ok(0))?;
    /// let socket = core.poll_send(at(0), &mut outbox).expect("it is due at once");
    /// core.on_sent(at(0), &SendReport::accepted(1));
    ///
    /// let member = "192.0.2.1:9999".parse()?;
    /// inbox.push(b"one", Meta::new(member));
    /// core.on_receive(at(1), socket, &mut inbox);
    /// let response = core.take_result(ticket).expect("one came")?;
    /// assert_eq!((response.peer(), response.decode()?), (member, "one"));
    /// assert!(!core.has_result(ticket)); // for now
    ///
    /// outbox.clear();
    /// core.poll_send(at(2), &mut outbox); // the time is over
    /// assert!(core.has_result(ticket) && core.take_result(ticket).is_none());
    /// core.cancel(at(2), ticket);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn discover(
        &mut self,
        now: Timestamp,
        request: C::Request<'_>,
        time: Duration,
        random: &mut dyn FnMut() -> io::Result<u64>,
    ) -> Result<Ticket, RequestError> {
        self.begin(now.monotonic, request, Some(time), random)
    }
}
