//! What each of the services answers.

use chrono::{DateTime, Datelike, Local};
use rejoinder::codec::Raw;
use rejoinder::{Context, Handler, Reply, ReplyError};

/// One of them. None looks at what it is asked, but for the one that says it again.
#[derive(Clone, Copy, Debug)]
pub enum Service {
    /// What was sent.
    Echo,
    /// Seconds since 1900.
    Time,
    /// The time for people.
    Daytime,
    /// A quotation, another one each day.
    Quote,
}

impl Handler<Raw> for Service {
    fn handle(
        &self,
        request: &[u8],
        context: &Context,
        reply: &mut Reply<'_, Raw>,
    ) -> Result<(), ReplyError> {
        let now = DateTime::<Local>::from(context.now.wall);
        match self {
            Self::Echo => reply.send(request),
            // Seconds since 1900, of which 32 bits are sent: they begin with zero again in 2036.
            Self::Time => reply.send(&(now.timestamp() + 2_208_988_800).to_be_bytes()[4..]),
            // As the inetd of BSD writes it.
            Self::Daytime => reply.send(
                now.format("%a %b %e %H:%M:%S %Y\r\n")
                    .to_string()
                    .as_bytes(),
            ),
            Self::Quote => {
                reply.send(QUOTES[now.to_utc().ordinal0() as usize % QUOTES.len()].as_bytes())
            }
        }
    }
}

const QUOTES: [&str; 3] = [
    "Be conservative in what you do, be liberal in what you accept from others. -- RFC 761\r\n",
    "With sufficient thrust, pigs fly just fine. -- RFC 1925\r\n",
    "It is always possible to add another level of indirection. -- RFC 1925\r\n",
];
