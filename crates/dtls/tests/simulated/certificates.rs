//! Certificates: servers' and clients'.

use std::time::{Duration, SystemTime};

use rejoinder::codec::{Tagged, Text};
use rejoinder::sim::SimNet;
use rejoinder::{Client, RequestError};
use rejoinder_dtls::{
    Authorities, CertificateError, CertifiedKey, ClientConfig, Dtls, DtlsBuilder, HandshakeFailure,
    SecretFileError,
};

use crate::support::{Tap, client_over, config, contains, server_addr, shout};

/// A moment at which the certificates of the tests are valid: 2040.
const VALID: Duration = Duration::from_secs(2_208_988_800);

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn own(name: &str) -> CertifiedKey {
    let (certificate, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
    CertifiedKey::from_pem(&certificate, &key).unwrap()
}

fn authorities(name: &str) -> Authorities {
    Authorities::from_pem(&file(name)).unwrap()
}

pub(crate) fn builder(name: &str) -> DtlsBuilder<()> {
    Dtls::builder()
        .certificate(own(name))
        .gate(())
        .insecure_seed(1)
}

pub(crate) fn trusting(name: &str) -> ClientConfig {
    ClientConfig::certificates(authorities("ca.pem"), name)
        .unwrap()
        .insecure_seeds()
}

pub(crate) fn net() -> SimNet {
    let net = SimNet::seeded(1);
    net.set_wall_clock(SystemTime::UNIX_EPOCH + VALID);
    net
}

/// Asks once, and fails at once with the reason.
fn refusal(net: &SimNet, config: ClientConfig) -> String {
    let connector = config.connector(net.clone(), &Tagged(Text)).unwrap();
    let mut client = Client::builder(Tagged(Text))
        .fail_when_unreachable(true)
        .with_connector(connector, server_addr())
        .unwrap();
    match client.request("hello").unwrap_err() {
        RequestError::Unreachable { source, .. } => source.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_shows_its_certificate_and_nothing_is_readable() {
    for name in ["server", "server-p384"] {
        let net = net();
        let server = shout(&net, builder(name).engine().unwrap());
        let tap = Tap::new(net);
        let mut client = client_over(tap.clone(), trusting("server.example"));
        assert_eq!(client.request("a secret").unwrap(), "A SECRET");
        for one in tap.passed() {
            assert!(!contains(&one.bytes, b"secret") && !contains(&one.bytes, b"SECRET"));
        }
        let peer = tap.passed()[0].client;
        assert_eq!(
            server.with(|node| node.engine().identity(peer).cloned()),
            None
        );
        assert_eq!(server.stats().established, 1);
    }
}

#[test]
fn a_client_shows_its_certificate_and_is_known_by_its_fingerprint() {
    let net = net();
    let builder = builder("server").client_authorities(authorities("ca.pem"));
    let server = shout(&net, builder.engine().unwrap());
    let tap = Tap::new(net);
    let config = trusting("server.example").certificate(own("client"));
    let mut client = client_over(tap.clone(), config);
    assert_eq!(client.request("hello").unwrap(), "HELLO");
    let peer = tap.passed()[0].client;
    let identity = server.with(|node| node.engine().identity(peer).cloned());
    assert_eq!(identity, Some(own("client").fingerprint().into()));
    assert!(own("client").fingerprint().starts_with("sha256:"));
}

#[test]
fn a_long_certificate_is_sent_in_fragments_and_put_together() {
    let net = net();
    let builder = builder("server").client_authorities(authorities("ca.pem"));
    shout(
        &net,
        builder.handshake_datagram_bytes(256).engine().unwrap(),
    );
    let tap = Tap::new(net);
    let config = trusting("server.example")
        .certificate(own("client"))
        .handshake_datagram_bytes(256);
    let mut client = client_over(tap.clone(), config);
    assert_eq!(client.request("hello").unwrap(), "HELLO");
    assert!(tap.passed().iter().all(|one| one.bytes.len() <= 256));
}

#[test]
fn a_server_that_cannot_be_trusted_is_refused_with_the_reason() {
    for (authority, name, wall, reason) in [
        ("other-ca.pem", "server.example", VALID, "UnknownIssuer"),
        ("ca.pem", "another.example", VALID, "CertNotValidForName"),
        ("ca.pem", "server.example", 4 * VALID, "CertExpired"),
        ("ca.pem", "server.example", VALID / 2, "CertNotValidYet"),
    ] {
        let net = net();
        net.set_wall_clock(SystemTime::UNIX_EPOCH + wall);
        let server = shout(&net, builder("server").engine().unwrap());
        let config = ClientConfig::certificates(authorities(authority), name).unwrap();
        let text = refusal(&net, config.insecure_seeds());
        assert!(text.contains("certificate is not accepted"), "{text}");
        assert!(text.contains(reason), "{text}");
        assert_eq!(server.stats().established, 0);
    }
}

#[test]
fn a_certificate_for_clients_is_none_for_a_server() {
    let net = net();
    shout(&net, builder("client").engine().unwrap());
    let text = refusal(&net, trusting("lamp-7.example"));
    assert!(text.contains("RequiredEkuNotFound"), "{text}");
}

#[test]
fn a_client_without_a_certificate_or_with_a_strangers_is_refused() {
    for (config, kind) in [
        (
            trusting("server.example").certificate(own("stranger")),
            HandshakeFailure::Certificate,
        ),
        // A certificate for servers.
        (
            trusting("server.example").certificate(own("server")),
            HandshakeFailure::Certificate,
        ),
    ] {
        let net = net();
        let builder = builder("server").client_authorities(authorities("ca.pem"));
        let server = shout(&net, builder.engine().unwrap());
        let text = refusal(&net, config);
        assert!(text.contains("fatal alert"), "{text}");
        assert_eq!(
            (server.stats().failed(kind), server.stats().established),
            (1, 0)
        );
        assert!(server.stats().conserves());
    }
    let net = net();
    let builder = builder("server").client_authorities(authorities("ca.pem"));
    let server = shout(&net, builder.engine().unwrap());
    let text = refusal(&net, trusting("server.example"));
    assert!(text.contains("the server asks for a certificate"), "{text}");
    assert_eq!(server.stats().established, 0);
}

#[test]
fn one_server_has_keys_and_a_certificate_and_the_client_chooses() {
    let net = net();
    let both = crate::support::builder(1).certificate(own("server"));
    let server = shout(&net, both.engine().unwrap());
    for config in [config(), trusting("server.example")] {
        let mut client = client_over(Tap::new(net.clone()), config);
        assert_eq!(client.request("hello").unwrap(), "HELLO");
    }
    assert_eq!(server.stats().established, 2);
}

#[test]
fn what_is_no_key_or_no_certificate_is_refused() {
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let no_pem = CertifiedKey::from_pem(&key, &key).unwrap_err();
    assert!(matches!(
        no_pem,
        CertificateError::Pem {
            what: "certificate",
            ..
        }
    ));
    let no_pem = CertifiedKey::from_pem(&certificate, &certificate).unwrap_err();
    assert!(matches!(
        no_pem,
        CertificateError::Pem {
            what: "private key",
            ..
        }
    ));
    let empty = Authorities::from_pem(b"nothing in PEM").unwrap_err();
    assert!(matches!(empty, CertificateError::Pem { .. }));
    let error = ClientConfig::certificates(authorities("ca.pem"), "no name").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`no name` is neither a DNS name nor an IP address"
    );
    let shown = format!("{:?} {:?}", own("server"), builder("server"));
    assert!(
        !shown.contains("PRIVATE") && shown.contains("sha256:"),
        "{shown}"
    );
}

#[cfg(unix)]
#[test]
fn a_private_key_that_others_can_read_is_refused_and_its_certificate_may_be_read_by_all() {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    let name = format!("rejoinder-certified-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir(&directory).unwrap();
    let (certificate, key) = (directory.join("server.pem"), directory.join("server.key"));
    for (path, name) in [(&certificate, "server.pem"), (&key, "server.key")] {
        fs::write(path, file(name)).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }
    let error = CertifiedKey::from_pem_files(&certificate, &key).unwrap_err();
    assert!(
        matches!(error, CertificateError::File(SecretFileError::Mode { .. })),
        "{error}"
    );
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let read = CertifiedKey::from_pem_files(&certificate, &key).unwrap();
    assert_eq!(read.fingerprint(), own("server").fingerprint());
    // A directory is neither.
    let error = Authorities::from_pem_file(&directory).unwrap_err();
    assert!(
        matches!(error, CertificateError::File(SecretFileError::Kind { .. })),
        "{error}"
    );
    fs::remove_dir_all(&directory).unwrap();
}
