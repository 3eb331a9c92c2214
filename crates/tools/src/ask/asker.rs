//! The client of `rejoinder ask`: over UDP, or over DTLS with a key.

use rejoinder::codec::{Ctime, CtimeFrame};
use rejoinder::udp::UdpConnector;
use rejoinder::{Client, RequestError};

/// A client for one address.
pub(super) enum Asker {
    Plain(Box<Client<UdpConnector, Ctime>>),
    #[cfg(feature = "dtls")]
    Secured(Box<dtls::Secured>),
}

impl Asker {
    pub(super) fn request(&mut self, message: &str) -> Result<CtimeFrame<'_>, RequestError> {
        match self {
            Self::Plain(client) => client.request(message),
            #[cfg(feature = "dtls")]
            Self::Secured(client) => client.request(message),
        }
    }
}

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

    use super::Asker;
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
                .with_connector(connector, peer)
                .map_err(failed)?;
            Ok(Some(Asker::Secured(Box::new(client))))
        }
    }
}
