//! Results as datagrams, for drivers that pass them on.

use std::mem;

use super::{ClientCore, RequestError, State, Ticket};
use crate::codec::Codec;

impl<C: Codec> ClientCore<C> {
    /// [`poll_result`](Self::poll_result) with the whole datagram of the response, which decodes, in
    /// place of what it decodes to: for a driver whose callers own their responses.
    ///
    /// ```
    /// use rejoinder::codec::{Tagged, Text};
    /// use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
    /// use rejoinder::{Client, Codec, Timestamp};
    ///
    /// let server = "192.0.2.1:7".parse()?;
    /// let mut core = Client::builder(Tagged(Text)).core(server)?;
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(8, 512));
    /// let now = Timestamp::system();
    /// let ticket = core.submit(now, "question", &mut || Ok(0x3030_3030_3030_3030))?;
    /// let socket = core.poll_send(now, &mut outbox).expect("it is due at once");
    /// core.on_sent(now, &SendReport::accepted(1));
    /// inbox.push(b"!00000000answer", Meta::new(server));
    /// core.on_receive(now, socket, &mut inbox);
    ///
    /// let (answered, datagram) = core.poll_datagram().expect("it is answered");
    /// assert_eq!(answered, ticket);
    /// assert_eq!(Tagged(Text).decode_response(datagram?)?, "answer");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll_datagram(&mut self) -> Option<(Ticket, Result<&[u8], RequestError>)> {
        let index = self.done.front()?;
        self.free_lent();
        self.done.remove(index);
        self.lent = Some(index);
        let slot = &mut self.slots[index];
        let result = match mem::replace(&mut slot.state, State::Answered) {
            State::Failed(error) => Err(error),
            _ => Ok(&slot.response[..]),
        };
        Some((slot.ticket, result))
    }
}
