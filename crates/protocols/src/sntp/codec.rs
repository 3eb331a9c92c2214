//! SNTP's messages (RFC 4330 §4), for the server and the client.
//!
//! The 48 bytes are read and written by hand: the crates for NTP are clients, or whole daemons.

use std::time::SystemTime;

use rejoinder::codec::ResponseKind;
use rejoinder::{Codec, Correlation, IntoReply, Reply, ReplyError, Timestamp, Writer};

/// SNTP over UDP. The client's transmit timestamp comes back as the originate timestamp, so it serves
/// as an id.
#[derive(Clone, Copy, Debug)]
pub struct Sntp;

/// What a server says of its clock. When it was asked, the codec adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Its distance from a reference clock.
    pub stratum: u8,
    /// Which clock it follows.
    pub reference: [u8; 4],
}

/// An answer as the client sees it: the times are in units of 2⁻³² s since 1900, modulo 2⁶⁴.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The clock.
    pub clock: Clock,
    /// When the request arrived.
    pub received: u64,
    /// When the response left.
    pub transmitted: u64,
}

/// Why a datagram is no request, or no response that a client may set its clock by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SntpError {
    /// Not a message of this mode, version 1 to 4.
    #[error("not an SNTP message of this mode, version 1 to 4")]
    Form,
    /// The server does not want to be asked (RFC 4330 §8).
    #[error("kiss of death: {}", .0.escape_ascii())]
    KissOfDeath([u8; 4]),
    /// The server has no time to give, or is too far from a reference clock (RFC 4330 §5).
    #[error("the server's clock is not synchronized: ask another server")]
    Unsynchronized,
}

/// A server of an undisciplined clock, announced as NTP daemons do: far from the sources, so that
/// any better server is preferred.
pub const LOCAL_CLOCK: Clock = Clock {
    stratum: 10,
    reference: [127, 127, 1, 0],
};

impl Codec for Sntp {
    type Request<'a> = ();
    type Response<'a> = Answer;
    type Answer<'a> = Clock;
    type Error = SntpError;

    fn decode_request(&self, datagram: &[u8]) -> Result<(), SntpError> {
        message(datagram, MODE_CLIENT).map(|_| ())
    }

    fn encode_response(
        &self,
        now: Timestamp,
        request: &[u8],
        clock: Clock,
        out: &mut Writer<'_>,
    ) -> Result<(), SntpError> {
        let request = message(request, MODE_CLIENT)?;
        let time = ntp_time(now.wall).to_be_bytes();
        out.put(&[
            request[0] & 0b11_1000 | MODE_SERVER,
            clock.stratum,
            request[2],
            PRECISION,
        ]);
        out.put(&[0; 4]); // root delay
        out.put(&ROOT_DISPERSION.to_be_bytes());
        out.put(&clock.reference);
        out.put(&time); // reference: when the clock was last set
        out.put(&request[40..]); // originate
        out.put(&time); // receive
        out.put(&time); // transmit: the same batch, so a few microseconds later
        Ok(())
    }

    fn encode_request(&self, id: u64, (): (), out: &mut Writer<'_>) -> Result<(), SntpError> {
        out.put(&[4 << 3 | MODE_CLIENT]);
        out.put(&[0; 39]);
        out.put(&id.to_be_bytes());
        Ok(())
    }

    /// With the checks of RFC 4330 §5.
    fn decode_response(&self, datagram: &[u8]) -> Result<Answer, SntpError> {
        let message = message(datagram, MODE_SERVER)?;
        let [flags, stratum, ..] = *message;
        if stratum == 0 {
            return Err(SntpError::KissOfDeath(field(message, 12)));
        }
        let is_synchronized = flags >> 6 != 3
            && stratum < 16
            && field(message, 40) != [0; 8]
            // Root delay and dispersion, in units of 2⁻¹⁶ s: under a second, and not negative.
            && u32::from_be_bytes(field(message, 4)) < 1 << 16
            && u32::from_be_bytes(field(message, 8)) < 1 << 16;
        if !is_synchronized {
            return Err(SntpError::Unsynchronized);
        }
        Ok(Answer {
            clock: Clock {
                stratum,
                reference: field(message, 12),
            },
            received: u64::from_be_bytes(field(message, 32)),
            transmitted: u64::from_be_bytes(field(message, 40)),
        })
    }

    fn is_response(&self, datagram: &[u8]) -> bool {
        // Symmetric passive, server and broadcast: what a server sends by itself.
        matches!(
            datagram.first().map(|first| first & 7),
            Some(2 | MODE_SERVER | 5)
        )
    }

    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 64 }
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        let message = message(response, MODE_SERVER).ok()?;
        Some(u64::from_be_bytes(field(message, 24)))
    }

    /// A server that does not want to be asked is not asked again.
    fn response_kind<'a>(&self, _: &[u8], datagram: &'a [u8]) -> ResponseKind<'a> {
        match datagram {
            [_, 0, ..] => ResponseKind::Refused,
            _ => ResponseKind::Whole,
        }
    }
}

impl IntoReply<Sntp> for Clock {
    fn reply(self, reply: &mut Reply<'_, Sntp>) -> Result<(), ReplyError> {
        reply.send(self)
    }
}

/// The 48 bytes that count. What may follow is for those who share a key.
fn message(datagram: &[u8], mode: u8) -> Result<&[u8; 48], SntpError> {
    let message: &[u8; 48] = datagram.first_chunk().ok_or(SntpError::Form)?;
    let first = message[0];
    let well_formed = first & 7 == mode
        && (1..=4).contains(&(first >> 3 & 7))
        && datagram.len().is_multiple_of(4);
    well_formed.then_some(message).ok_or(SntpError::Form)
}

fn field<const N: usize>(message: &[u8; 48], at: usize) -> [u8; N] {
    *message[at..]
        .first_chunk()
        .expect("every field lies within the message")
}

/// Units of 2⁻³² s since 1900. Era 1 begins in 2036, with zero again.
fn ntp_time(time: SystemTime) -> u64 {
    let since_1970 = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
    ((since_1970.as_secs() + 2_208_988_800) << 32) | fraction
}

const MODE_CLIENT: u8 = 3;
const MODE_SERVER: u8 = 4;
/// 2⁻²⁰ s, about a microsecond.
const PRECISION: u8 = (-20_i8).cast_unsigned();
/// In units of 2⁻¹⁶ s: 10 ms.
const ROOT_DISPERSION: u32 = 655;
