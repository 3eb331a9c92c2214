//! `rejoinder serve` and `ask` over DTLS. They need the feature `dtls`.

#![cfg(all(feature = "dtls", unix))]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use rejoinder_test_support::process::{Program, start_server};

fn rejoinder() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rejoinder"))
}

/// A file that is removed with the test.
struct Keys(PathBuf);

impl Keys {
    fn new(name: &str, text: &str, mode: u32) -> Self {
        let name = format!("rejoinder-{name}-{}.txt", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_client_with_the_key_is_answered_and_others_are_refused() {
    let keys = Keys::new("good", "lamp-7:30313233343536373839616263646566\n", 0o600);
    let wrong = Keys::new("wrong", "lamp-7:00\n", 0o600);
    let mut command = rejoinder();
    command.args(["serve", "--psk-file", keys.path()]);
    let (server, addr) = start_server("127.0.0.1:0", &mut command);
    let addr = addr.to_string();
    let ask = |file: &str| {
        let mut command = rejoinder();
        command.args([
            "ask",
            "--server",
            &addr,
            "--text",
            "--psk-file",
            file,
            "你好吗？",
            "再见",
        ]);
        Program::start(&mut command).finish()
    };
    let ended = ask(keys.path());
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert!(
        ended.stdout.starts_with("【机器人】小Zurich 好!\n"),
        "{ended:?}"
    );
    let ended = ask(wrong.path());
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(1), ""));
    assert!(
        ended.stderr.contains("no association with the server"),
        "{ended:?}"
    );
    server.signal("INT");
    let ended = server.finish();
    assert!(ended.stderr.contains("received 2: replied 2"), "{ended:?}");
}

#[test]
fn a_key_file_that_others_can_read_or_that_is_empty_is_refused() {
    let open = Keys::new("open", "lamp-7:00\n", 0o644);
    let empty = Keys::new("empty", "# none yet\n", 0o600);
    for subcommand in ["serve", "ask"] {
        for (keys, message) in [(&open, "run `chmod 600 "), (&empty, "has no key")] {
            let mut command = rejoinder();
            command.args([subcommand, "--psk-file", keys.path()]);
            let ended = Program::start(&mut command).finish();
            assert_eq!(ended.code(), Some(1), "{ended:?}");
            assert!(ended.stderr.contains(message), "{ended:?}");
        }
    }
}
