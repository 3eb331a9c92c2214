/// What drives the servers and clients of this module: tasks of a tokio runtime.
///
/// It is a parameter of [`ServerBuilder`](crate::ServerBuilder) and
/// [`ClientBuilder`](crate::ClientBuilder). A builder with it comes from
/// [`Server::builder`](super::Server::builder) or [`Client::builder`](super::Client::builder), or from
/// a builder of the blocking kind, with the same settings:
///
/// ```
/// use rejoinder::aio::Tokio;
/// use rejoinder::codec::Text;
/// use rejoinder::{Server, ServerBuilder};
///
/// fn limits() -> ServerBuilder<Text> {
///     Server::builder(Text).max_request_bytes(1_232).max_response_bytes(1_232)
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let blocking = limits().bind("127.0.0.1:0")?;
/// let on_tokio = ServerBuilder::<_, _, Tokio>::from(limits()).bind("127.0.0.1:0").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Tokio;
