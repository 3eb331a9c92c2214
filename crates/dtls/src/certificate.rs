//! Certificates: what this end shows, and what it accepts.

use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime,
};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::provider::default_provider;
use crate::secret::{self, SecretFileError, read_secret_file};

/// A certificate and its private key: what a server shows, and a client where the server asks for it.
///
/// The key is an ECDSA key on P-256 or P-384, in PKCS #8 or SEC 1. The implementation sends this one
/// certificate and no chain, so the peer has to trust its issuer directly.
///
/// ```no_run
/// use rejoinder_dtls::{CertifiedKey, Dtls};
///
/// let own = CertifiedKey::from_pem_files("server.pem", "server.key")?;
/// let builder = Dtls::builder().certificate(own);
/// # Ok::<(), rejoinder_dtls::CertificateError>(())
/// ```
///
/// # Making one
///
/// ```sh
/// openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
///     -subj '/CN=my authority' -keyout ca.key -out ca.pem
/// openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=server' \
///     -addext 'subjectAltName=DNS:server.example' -keyout server.key -out server.csr
/// openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -copy_extensions copy \
///     -days 365 -out server.pem
/// ```
#[derive(Clone)]
pub struct CertifiedKey {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl CertifiedKey {
    /// The first certificate and the first private key of two texts in PEM, which may be one and the
    /// same.
    ///
    /// # Errors
    ///
    /// If there is none, or the key is of a kind that cannot be used.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let certificate = CertificateDer::from_pem_slice(certificate)
            .map_err(|source| CertificateError::pem("certificate", source))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|source| CertificateError::pem("private key", source))?;
        Self::new(certificate, key.secret_der().to_vec())
    }

    /// As [`from_pem`](Self::from_pem), from files. That of the key is read with [`read_secret_file`]: only
    /// its owner may have access to it.
    ///
    /// # Errors
    ///
    /// As those of [`from_pem`](Self::from_pem), or if a file cannot be read, is not regular, has more than
    /// 16 MiB, or is that of the key and not private.
    pub fn from_pem_files(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, CertificateError> {
        let certificate = secret::read(certificate.as_ref(), false)?;
        Self::from_pem(&certificate, &read_secret_file(key)?)
    }

    fn new(certificate: CertificateDer<'static>, key: Vec<u8>) -> Result<Self, CertificateError> {
        // The implementation panics on a key that it cannot read.
        default_provider()
            .key_provider
            .load_private_key(&key)
            .map_err(|_| CertificateError::Key)?;
        EndEntityCert::try_from(&certificate).map_err(CertificateError::Malformed)?;
        Ok(Self { certificate, key })
    }

    pub(crate) fn for_dimpl(&self) -> dimpl::DtlsCertificate {
        dimpl::DtlsCertificate {
            certificate: self.certificate.to_vec(),
            private_key: self.key.clone(),
        }
    }

    /// The SHA-256 fingerprint of the certificate, as [identities](crate::Engine::identity) have it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }
}

/// The fingerprint, and no key.
impl fmt::Debug for CertifiedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertifiedKey")
            .field("certificate", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// The authorities whose certificates are accepted.
///
/// A peer's certificate must be signed by one of them directly: the implementation reports the peer's
/// own certificate and drops what it sends beside it. An intermediate authority is accepted if it is
/// one of these. Signatures of ECDSA on P-256 and P-384 are verified, with SHA-256 and SHA-384; with
/// the feature `aws-lc-rs` also those of RSA and Ed25519. Revocation is not looked up.
///
/// ```no_run
/// use rejoinder_dtls::Authorities;
///
/// let authorities = Authorities::from_pem_file("ca.pem")?;
/// # Ok::<(), rejoinder_dtls::CertificateError>(())
/// ```
#[derive(Clone)]
pub struct Authorities {
    anchors: Vec<TrustAnchor<'static>>,
}

impl Authorities {
    /// All certificates of a text in PEM.
    ///
    /// # Errors
    ///
    /// If there is none, or one is malformed.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let mut anchors = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate =
                certificate.map_err(|source| CertificateError::pem("certificate", source))?;
            let anchor =
                anchor_from_trusted_cert(&certificate).map_err(CertificateError::Malformed)?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() {
            let source = rustls_pki_types::pem::Error::NoItemsFound;
            return Err(CertificateError::pem("certificate", source));
        }
        Ok(Self { anchors })
    }

    /// As [`from_pem`](Self::from_pem), from a file.
    ///
    /// # Errors
    ///
    /// As those of [`from_pem`](Self::from_pem), or if the file cannot be read, is not regular, or has more
    /// than 16 MiB.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<Self, CertificateError> {
        Self::from_pem(&secret::read(path.as_ref(), false)?)
    }

    /// Whether a peer's certificate is good now, for this role, and for this name if there is one.
    pub(crate) fn verify(
        &self,
        certificate: &[u8],
        role: Role,
        name: Option<&ServerName<'_>>,
        now: SystemTime,
    ) -> Result<(), webpki::Error> {
        let certificate = CertificateDer::from(certificate);
        let certificate = EndEntityCert::try_from(&certificate)?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let usage = match role {
            Role::Server => KeyUsage::server_auth(),
            Role::Client => KeyUsage::client_auth(),
        };
        certificate.verify_for_usage(
            algorithms(),
            &self.anchors,
            &[],
            UnixTime::since_unix_epoch(now),
            usage,
            None,
            None,
        )?;
        match name {
            Some(name) => certificate.verify_is_valid_for_subject_name(name),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("len", &self.anchors.len())
            .finish_non_exhaustive()
    }
}

/// What the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read, or that of a key is not private.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A text in PEM has none, or is malformed.
    #[error("cannot read a {what} in PEM")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A certificate is no X.509 certificate of version 3.
    #[error("the certificate is malformed or of an old version")]
    Malformed(#[source] webpki::Error),
    /// The private key is of a kind that cannot be used.
    #[error("the private key is no ECDSA key on P-256 or P-384 in PKCS #8 or SEC 1")]
    Key,
    /// The name of a server is neither a DNS name nor an IP address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Name(String),
}

impl CertificateError {
    fn pem(what: &'static str, source: rustls_pki_types::pem::Error) -> Self {
        Self::Pem {
            what,
            source: source.into(),
        }
    }
}

/// `sha256:` and the hexadecimal digits of the certificate's hash.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(certificate) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(feature = "aws-lc-rs")]
fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    webpki::ALL_VERIFICATION_ALGS
}

#[cfg(not(feature = "aws-lc-rs"))]
fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    ecdsa::ALL
}

/// ECDSA of the Rust crypto project, in the form that webpki asks for.
#[cfg(not(feature = "aws-lc-rs"))]
mod ecdsa {
    use p256::ecdsa::signature::hazmat::PrehashVerifier;
    use rustls_pki_types::{
        AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
    };
    use sha2::{Digest, Sha256, Sha384};

    pub(super) const ALL: &[&dyn SignatureVerificationAlgorithm] = &[
        &Ecdsa(Curve::P256, Hash::Sha256),
        &Ecdsa(Curve::P256, Hash::Sha384),
        &Ecdsa(Curve::P384, Hash::Sha256),
        &Ecdsa(Curve::P384, Hash::Sha384),
    ];

    #[derive(Debug)]
    struct Ecdsa(Curve, Hash);

    #[derive(Debug)]
    enum Curve {
        P256,
        P384,
    }

    #[derive(Debug)]
    enum Hash {
        Sha256,
        Sha384,
    }

    impl SignatureVerificationAlgorithm for Ecdsa {
        fn verify_signature(
            &self,
            public_key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            let hash = match self.1 {
                Hash::Sha256 => Sha256::digest(message).to_vec(),
                Hash::Sha384 => Sha384::digest(message).to_vec(),
            };
            let verified = match self.0 {
                Curve::P256 => {
                    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(public_key);
                    let signature = p256::ecdsa::Signature::from_der(signature);
                    key.and_then(|key| key.verify_prehash(&hash, &signature?))
                }
                Curve::P384 => {
                    let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(public_key);
                    let signature = p384::ecdsa::Signature::from_der(signature);
                    key.and_then(|key| key.verify_prehash(&hash, &signature?))
                }
            };
            verified.map_err(|_| InvalidSignature)
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            match self.0 {
                Curve::P256 => alg_id::ECDSA_P256,
                Curve::P384 => alg_id::ECDSA_P384,
            }
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            match self.1 {
                Hash::Sha256 => alg_id::ECDSA_SHA256,
                Hash::Sha384 => alg_id::ECDSA_SHA384,
            }
        }
    }
}
