//! Why an association is dead, and the alert that its peer is due.

use dimpl::{CryptoError, CryptoOperation, Error, SecurityError};

use crate::stats::HandshakeFailure;

/// Why an association is dead.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: HandshakeFailure,
    pub(crate) text: String,
    /// The alert that the peer is due: RFC 5246 §7.2.2.
    pub(crate) alert: Option<u8>,
}

impl Failure {
    pub(crate) fn new(
        kind: HandshakeFailure,
        text: impl Into<String>,
        alert: impl Into<Option<u8>>,
    ) -> Self {
        Self {
            kind,
            text: text.into(),
            alert: alert.into(),
        }
    }

    /// What an error of the implementation means.
    pub(crate) fn of(error: &Error) -> Self {
        use HandshakeFailure as Kind;

        let (kind, alert) = match error {
            Error::SecurityError(SecurityError::FatalAlert { .. }) => (Kind::Alert, None),
            Error::Timeout(_) => (Kind::TimedOut, None),
            Error::SecurityError(
                SecurityError::UnsupportedClientVersion(_)
                | SecurityError::UnsupportedServerVersion(_),
            ) => (Kind::NoCommonParameters, Some(PROTOCOL_VERSION)),
            Error::CryptoError(_)
            | Error::PskError(_)
            | Error::SecurityError(
                SecurityError::ClientFinishedVerificationFailed
                | SecurityError::ServerFinishedVerificationFailed,
            ) => (Kind::Authentication, Some(DECRYPT_ERROR)),
            Error::SecurityError(_) => (Kind::NoCommonParameters, Some(HANDSHAKE_FAILURE)),
            Error::CertificateError(dimpl::CertificateError::NoClientCertificateReceived) => {
                (Kind::Certificate, Some(HANDSHAKE_FAILURE))
            }
            Error::CertificateError(_) => (Kind::Certificate, Some(BAD_CERTIFICATE)),
            Error::UnexpectedMessage(_) => (Kind::Protocol, Some(UNEXPECTED_MESSAGE)),
            _ => (Kind::Protocol, Some(INTERNAL_ERROR)),
        };
        let text = match error {
            Error::CryptoError(CryptoError::OperationFailed(CryptoOperation::Sign)) => {
                "the server asks for a certificate, and there is none".to_owned()
            }
            error => error.to_string(),
        };
        Self::new(kind, text, alert)
    }

    /// A certificate that is not accepted.
    pub(crate) fn of_certificate(error: &webpki::Error) -> Self {
        let text = format!("the peer's certificate is not accepted: {error}");
        Self::new(
            HandshakeFailure::Certificate,
            text,
            alert_for_certificate(error),
        )
    }
}

fn alert_for_certificate(error: &webpki::Error) -> u8 {
    match error {
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
            CERTIFICATE_EXPIRED
        }
        webpki::Error::UnknownIssuer => UNKNOWN_CA,
        _ => BAD_CERTIFICATE,
    }
}

// RFC 5246 §7.2.2.
const UNEXPECTED_MESSAGE: u8 = 10;
pub(crate) const HANDSHAKE_FAILURE: u8 = 40;
const BAD_CERTIFICATE: u8 = 42;
const CERTIFICATE_EXPIRED: u8 = 45;
const UNKNOWN_CA: u8 = 48;
/// Also what RFC 4279 §2 has for a wrong key, and for an identity that is unknown and is not to be known as
/// such.
pub(crate) const DECRYPT_ERROR: u8 = 51;
const PROTOCOL_VERSION: u8 = 70;
pub(crate) const INTERNAL_ERROR: u8 = 80;
