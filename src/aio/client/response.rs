use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::Codec;

/// The response to a request: the datagram, which lends what it decodes to.
///
/// ```
/// use rejoinder::aio::Client;
/// use rejoinder::codec::Text;
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::sim::SimNet;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let net = SimNet::new();
/// let server = "10.0.0.1:9999".parse()?;
/// net.host(server, ServerCore::new(Text, |text: &str| Some(text.to_uppercase())))?;
/// let client = Client::builder(Text).with_connector(net, server)?;
///
/// let response = client.request("quiet").await?;
/// assert_eq!(response.get(), "QUIET");
/// assert_eq!(response.into_bytes(), "QUIET");
/// # Ok(())
/// # }
/// ```
pub struct Response<C> {
    datagram: Bytes,
    codec: Arc<C>,
}

impl<C: Codec> Response<C> {
    pub(super) fn new(datagram: Bytes, codec: Arc<C>) -> Self {
        Self { datagram, codec }
    }

    /// The decoded response.
    ///
    /// # Panics
    ///
    /// If the codec decoded the datagram when it came, and does not now.
    pub fn get(&self) -> C::Response<'_> {
        self.codec
            .decode_response(&self.datagram)
            .expect("the datagram decoded when it came")
    }

    /// The whole datagram.
    pub fn into_bytes(self) -> Bytes {
        self.datagram
    }
}

impl<C> fmt::Debug for Response<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Response").field(&self.datagram).finish()
    }
}
