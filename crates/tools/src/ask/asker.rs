//! The client of `rejoinder ask`: over UDP, or over DTLS with a key.

use std::net::SocketAddr;
use std::time::Instant;

use rejoinder::codec::{Ctime, CtimeFrame};
use rejoinder::transport::Connect;
use rejoinder::udp::UdpConnector;
use rejoinder::{Client, Codec, RequestError, Retry, Ticket, Wait};

use super::output::Answer;

/// A client of one server, which may have several addresses. It has one request at a time.
pub(super) enum Asker {
    Plain(Box<Client<UdpConnector, Ctime>>),
    #[cfg(feature = "dtls")]
    Secured(Box<dtls::Secured>),
}

impl Asker {
    pub(super) fn submit(&mut self, message: &str) -> Result<Ticket, RequestError> {
        match self {
            Self::Plain(client) => client.submit(message),
            #[cfg(feature = "dtls")]
            Self::Secured(client) => client.submit(message),
        }
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) {
        match self {
            Self::Plain(client) => client.cancel(ticket),
            #[cfg(feature = "dtls")]
            Self::Secured(client) => client.cancel(ticket),
        };
    }

    /// Waits for the response to what was asked at this time. `None` if the wait is over.
    pub(super) fn collect(
        &mut self,
        wait: Wait,
        asked: Instant,
    ) -> Option<Result<Answer, RequestError>> {
        fn collect<N: Connect, C>(
            client: &mut Client<N, C>,
            wait: Wait,
            asked: Instant,
        ) -> Option<Result<Answer, RequestError>>
        where
            C: for<'a> Codec<Response<'a> = CtimeFrame<'a>>,
        {
            let (_, response) = client.collect_raw(wait)?;
            Some(response.and_then(|response| {
                let peer = response.peer();
                Ok(Answer::new(peer, &response.decode()?, asked.elapsed()))
            }))
        }

        match self {
            Self::Plain(client) => collect(client, wait, asked),
            #[cfg(feature = "dtls")]
            Self::Secured(client) => collect(client, wait, asked),
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        match self {
            Self::Plain(client) => client.peer(),
            #[cfg(feature = "dtls")]
            Self::Secured(client) => client.peer(),
        }
    }

    pub(super) fn set_peers(&mut self, peer: SocketAddr, others: &[SocketAddr]) {
        match self {
            Self::Plain(client) => client.set_peers(peer, others),
            #[cfg(feature = "dtls")]
            Self::Secured(client) => client.set_peers(peer, others),
        }
    }
}

/// So many sends that each of the addresses is asked.
pub(super) fn retry(addresses: usize) -> Retry {
    Retry::new().max_sends(u32::try_from(addresses).unwrap_or(u32::MAX).max(SENDS))
}

/// The default of the library.
const SENDS: u32 = 5;

#[cfg(feature = "dtls")]
pub(super) use self::dtls::Keys;

/// No keys: DTLS is not compiled in.
#[cfg(not(feature = "dtls"))]
pub(super) struct Keys;

#[cfg(feature = "dtls")]
mod dtls {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Duration;

    use rejoinder::codec::{Ctime, Tagged};
    use rejoinder::udp::UdpConnector;
    use rejoinder::{Client, ConfigError, RequestError};
    use rejoinder_dtls::{ClientConfig, Connector, PskFile};

    use super::{Asker, retry};
    use crate::program::{Failure, chain};

    pub(in super::super) type Secured = Client<Connector<UdpConnector>, Tagged<Ctime>>;

    /// The key to ask with, if there is one.
    pub(in super::super) struct Keys(Option<ClientConfig>);

    impl Keys {
        pub(in super::super) fn read(path: Option<&Path>) -> Result<Self, Failure> {
            let Some(path) = path else {
                return Ok(Self(None));
            };
            let keys = PskFile::read(path).map_err(|error| Failure::RunTime(chain(&error)))?;
            if keys.is_empty() {
                let path = path.display();
                return Err(Failure::RunTime(format!(
                    "the key file {path} has no key: write a line IDENTITY:HEXADECIMAL-KEY"
                )));
            }
            Ok(Self(Some(ClientConfig::psk_file(&keys))))
        }

        pub(in super::super) fn connect(
            &self,
            peer: SocketAddr,
            others: &[SocketAddr],
            timeout: Duration,
        ) -> Result<Option<Asker>, RequestError> {
            let Some(config) = &self.0 else {
                return Ok(None);
            };
            let failed = |error: ConfigError| RequestError::Connect {
                peer,
                source: error.into(),
            };
            let codec = Tagged(Ctime::local());
            let connector = config
                .clone()
                .connector(UdpConnector::default(), &codec)
                .map_err(failed)?;
            let client = Client::builder(codec)
                .timeout(timeout)
                .fail_when_unreachable(true)
                .other_peers(others.iter().copied())
                .retry(retry(1 + others.len()))
                .with_connector(connector, peer)
                .map_err(failed)?;
            Ok(Some(Asker::Secured(Box::new(client))))
        }
    }
}
