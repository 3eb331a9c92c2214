//! `rejoinder ask` where names get other addresses, hosts die, and resolvers do not answer.
//!
//! Each test has a network and a hosts file of its own:
//! `cargo test -p rejoinder-tools --test names -- --ignored`.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use rejoinder_test_support::network::{in_own_net_and_files, replace, sh};
use rejoinder_test_support::process::{Program, start_server};
use rejoinder_test_support::scratch::Scratch;
use serde_json::{Value, json};

fn tool(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
    program.arg(command);
    program
}

/// Servers at 10.9.0.1 and so on, a name for some of them, and how they are asked.
struct World {
    scratch: Scratch,
    /// The file.
    hosts: String,
    /// Further arguments of servers and clients.
    secret: Vec<String>,
}

impl World {
    fn new(is_secret: bool) -> Self {
        let scratch = Scratch::new();
        for host in 1..=9 {
            sh(&format!("ip addr add 10.9.0.{host}/32 dev lo"));
        }
        let mut secret = Vec::new();
        if is_secret {
            let keys = scratch.file("keys", "lamp-7:30313233343536373839616263646566\n");
            sh(&format!("chmod 600 '{keys}'"));
            secret = vec!["--psk-file".to_owned(), keys];
        }
        let hosts = scratch.file("hosts", "");
        replace("/etc/hosts", &hosts);
        let switch = scratch.file("nsswitch.conf", "hosts: files dns\n");
        if Path::new("/etc/nsswitch.conf").exists() {
            replace("/etc/nsswitch.conf", &switch);
        }
        Self {
            scratch,
            hosts,
            secret,
        }
    }

    /// The name is that of these hosts now.
    fn name(&self, hosts: &[u8]) {
        let lines = hosts.iter().map(|host| format!("10.9.0.{host} srv.test\n"));
        fs::write(&self.hosts, lines.collect::<String>()).unwrap();
    }

    fn serve(&self, host: u8) -> Program {
        let mut command = tool("serve");
        command.args(["-q", "--limit", "off"]).args(&self.secret);
        start_server(&format!("10.9.0.{host}:8888"), &mut command).0
    }

    fn client(&self) -> Asking {
        let mut process = tool("ask")
            .args(["--json", "--server", "srv.test", "--timeout", "30"])
            .args(&self.secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        Asking {
            process,
            stdin: stdin.unwrap(),
            stdout: BufReader::new(stdout.unwrap()),
        }
    }
}

/// A client that runs, and is asked line by line.
struct Asking {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Asking {
    /// What it prints about a message.
    fn ask(&mut self) -> Value {
        self.stdin.write_all("你好吗？\n".as_bytes()).unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn is_answered_by(&mut self, host: u8) {
        let line = self.ask();
        assert_eq!(line["text"], "【机器人】小Zurich 好!", "{line}");
        assert_eq!(line["server"], format!("10.9.0.{host}:8888"), "{line}");
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Has a server be silent, as on a host that died.
fn stop(server: &Program) {
    server.signal("STOP");
    let stat = format!("/proc/{}/stat", server.id());
    while !fs::read_to_string(&stat).unwrap().contains(") T ") {
        thread::yield_now();
    }
}

fn follows_the_name(is_secret: bool) {
    let world = World::new(is_secret);
    let [first, second, third, _fourth] = [1, 2, 3, 4].map(|host| world.serve(host));
    world.name(&[1]);
    let mut client = world.client();
    client.is_answered_by(1);
    // The port is closed.
    world.name(&[2]);
    first.signal("TERM");
    first.finish();
    client.is_answered_by(2);
    client.is_answered_by(2);
    // There is no way any more.
    world.name(&[3]);
    sh("ip addr del 10.9.0.2/32 dev lo; ip route add blackhole 10.9.0.2");
    client.is_answered_by(3);
    // The host is silent.
    world.name(&[4]);
    stop(&third);
    client.is_answered_by(4);
    client.is_answered_by(4);
    third.signal("CONT");
    drop((second, third));
}

#[test]
#[ignore = "needs network namespaces"]
fn a_client_follows_a_name_to_other_addresses() {
    let name = "a_client_follows_a_name_to_other_addresses";
    in_own_net_and_files(name, || follows_the_name(false));
}

#[test]
#[ignore = "needs network namespaces"]
#[cfg(feature = "dtls")]
fn a_client_over_dtls_follows_a_name_to_other_addresses() {
    let name = "a_client_over_dtls_follows_a_name_to_other_addresses";
    in_own_net_and_files(name, || follows_the_name(true));
}

fn leaves_a_dead_host(is_secret: bool) {
    let world = World::new(is_secret);
    let [first, second] = [1, 2].map(|host| world.serve(host));
    world.name(&[1, 2]);
    let mut client = world.client();
    client.is_answered_by(1);
    stop(&first);
    client.is_answered_by(2);
    // Also one that begins with a dead host, and the next of one that went back.
    let mut other = world.client();
    other.is_answered_by(2);
    first.signal("CONT");
    stop(&second);
    client.is_answered_by(1);
    other.is_answered_by(1);
    second.signal("CONT");
}

#[test]
#[ignore = "needs network namespaces"]
fn a_client_leaves_a_host_that_died() {
    in_own_net_and_files("a_client_leaves_a_host_that_died", || {
        leaves_a_dead_host(false);
    });
}

#[test]
#[ignore = "needs network namespaces"]
#[cfg(feature = "dtls")]
fn a_client_over_dtls_leaves_a_host_that_died() {
    let name = "a_client_over_dtls_leaves_a_host_that_died";
    in_own_net_and_files(name, || leaves_a_dead_host(true));
}

#[test]
#[ignore = "needs network namespaces"]
fn a_resolver_without_an_answer_is_waited_for_no_longer_than_a_server() {
    let name = "a_resolver_without_an_answer_is_waited_for_no_longer_than_a_server";
    in_own_net_and_files(name, || {
        let world = World::new(false);
        let _silent = UdpSocket::bind("10.9.0.9:53").unwrap();
        let resolver = "nameserver 10.9.0.9\noptions timeout:30 attempts:5\n";
        let file = world.scratch.file("resolv.conf", resolver);
        replace("/etc/resolv.conf", &file);
        let ask = |options: &[&str]| {
            let mut command = tool("ask");
            command.args(["--timeout", "0.3", "--server", "srv.example", "hi"]);
            Program::start(command.args(options)).finish()
        };
        let problem =
            "`srv.example` could not be resolved within 300ms: no answer from the resolver";
        let ended = ask(&[]);
        assert_eq!((ended.code(), ended.stdout.as_str()), (Some(1), ""));
        let begins = format!("error: {problem}");
        assert!(ended.stderr.starts_with(&begins), "{}", ended.stderr);
        let ended = ask(&["--json"]);
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(1), ""));
        let line: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(line["error"]["kind"], json!("no_address"));
        let message = line["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(problem), "{line}");
    });
}

#[test]
#[ignore = "needs network namespaces"]
fn an_address_without_a_route_is_named_with_advice() {
    in_own_net_and_files("an_address_without_a_route_is_named_with_advice", || {
        sh("ip route add blackhole 10.9.1.1; ip route add unreachable 10.9.1.2");
        for server in ["10.9.1.1:7", "10.9.1.2:7", "10.9.1.3:7", "[fd00::1]:7"] {
            let mut command = tool("ask");
            let ended = Program::start(command.args(["--server", server, "hi"])).finish();
            assert_eq!(ended.code(), Some(1));
            let begins = format!("error: no route to {server}: ");
            assert!(ended.stderr.starts_with(&begins), "{}", ended.stderr);
        }
        let mut command = tool("ask");
        let ended = Program::start(command.args(["--server", "[fe80::1]:7", "hi"])).finish();
        let begins = "error: no route to [fe80::1]:7: a link-local address needs its interface";
        assert!(ended.stderr.starts_with(begins), "{}", ended.stderr);
    });
}
