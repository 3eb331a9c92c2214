/// What a client has in hand at this moment, and how many datagrams it ignored.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sim::SimNet;
/// use rejoinder::Client;
///
/// let server = "10.0.0.1:9999".parse()?;
/// let mut client = Client::builder(Text)
///     .window(8)
///     .with_connector(SimNet::new(), server)?;
/// client.submit("one")?;
/// let stats = client.stats();
/// assert_eq!((stats.in_flight, stats.uncollected, stats.room), (1, 0, 7));
/// assert_eq!((stats.sockets, stats.cooling_sockets), (1, 0));
/// assert_eq!(stats.ignored, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Requests that have no result yet.
    pub in_flight: usize,
    /// Results that were not collected yet.
    pub uncollected: usize,
    /// How many more requests the [window](crate::ClientBuilder::window) has room for.
    pub room: usize,
    /// Datagrams received that answered nothing, since the client was made: garbage, forgeries,
    /// responses that came twice or too late.
    pub ignored: u64,
    /// Sockets in use by requests.
    pub sockets: usize,
    /// Sockets that are kept open only until their [cooldown](crate::ClientBuilder::cooldown) is
    /// over.
    pub cooling_sockets: usize,
}
