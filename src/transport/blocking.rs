/// What drives a server or a client unless something else is named: the thread that calls it, which
/// blocks.
///
/// It is a parameter of [`ServerBuilder`](crate::ServerBuilder) and
/// [`ClientBuilder`](crate::ClientBuilder), and no value of it is needed.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::transport::Blocking;
/// use rejoinder::{Server, ServerBuilder};
///
/// let builder: ServerBuilder<Text, (), Blocking> = Server::builder(Text);
/// let the_same: ServerBuilder<Text> = builder;
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Blocking;
