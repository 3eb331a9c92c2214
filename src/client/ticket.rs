/// Names one request of a client, from its submission on.
///
/// No two requests of one client have the same ticket, so it is a sound key for a table of waiting
/// callers. Tickets are ordered as the requests were submitted.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sim::SimNet;
/// use rejoinder::Client;
///
/// let mut client = Client::new(SimNet::new(), Text, "10.0.0.1:9999".parse()?);
/// let (first, second) = (client.submit("one")?, client.submit("two")?);
/// assert!(first < second);
/// assert_ne!(first.slot(), second.slot());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    number: u64,
    slot: usize,
}

impl Ticket {
    pub(super) const fn new(number: u64, slot: usize) -> Self {
        Self { number, slot }
    }

    pub(super) const fn number(self) -> u64 {
        self.number
    }

    /// The slot of the request: a number below the client's [window](crate::ClientBuilder::window)
    /// that no other request has until the result of this one is collected. It fits as an index
    /// into a table of what the program remembers of each request.
    pub fn slot(self) -> usize {
        self.slot
    }
}
