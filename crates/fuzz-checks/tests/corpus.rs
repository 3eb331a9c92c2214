//! The fuzz targets over the committed corpus: what a fuzzer found once is tried again every time.
#![expect(
    clippy::print_stdout,
    reason = "it is shown for a test that failed, and tells on which input"
)]

use std::fs;
use std::path::Path;

use rejoinder_fuzz_checks as targets;

fn run(target: &str, f: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut inputs = 0;
    for entry in entries {
        let path = entry.expect("the directory can be read").path();
        let input = fs::read(&path).expect("the file can be read");
        println!("{}", path.display());
        f(&input);
        inputs += 1;
    }
    assert!(inputs > 0, "no corpus in {}", dir.display());
}

#[test]
fn ctime() {
    run("ctime", targets::ctime);
}

#[test]
fn robot() {
    run("robot", targets::robot);
}

#[test]
fn server() {
    run("server", targets::server);
}

#[test]
fn client() {
    run("client", targets::client);
}

#[test]
fn signed() {
    run("signed", targets::signed);
}

#[cfg(feature = "dtls")]
#[test]
fn dtls() {
    run("dtls", targets::dtls);
}

#[cfg(feature = "dtls")]
#[test]
fn dtls_input() {
    run("dtls_input", targets::dtls_input);
}

#[test]
fn proxy() {
    run("proxy", targets::proxy);
}
