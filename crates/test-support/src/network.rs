//! Several machines in one: network namespaces with cables between them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::PATIENCE;

/// Runs a test in a process of its own that has a network of its own. `name` is the whole name of the test,
/// which must be ignored by default. Everything that it starts and makes ends with it.
pub fn in_own_net(name: &str, test: impl FnOnce()) {
    unshared("-rn", name, test);
}

/// [`in_own_net`], where the test can also [`replace`] files.
pub fn in_own_net_and_files(name: &str, test: impl FnOnce()) {
    unshared("-rnm", name, test);
}

/// Has a file of this machine be another one, for the test alone.
pub fn replace(file: &str, by: &str) {
    sh(&format!("mount --bind '{by}' '{file}'"));
}

fn unshared(what: &str, name: &str, test: impl FnOnce()) {
    const VARIABLE: &str = "REJOINDER_TESTS_NETWORK";
    if std::env::var_os(VARIABLE).is_some() {
        sh("ip link set lo up");
        test();
        return;
    }
    let status = Command::new("unshare")
        .arg(what)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(VARIABLE, name)
        .status();
    assert!(status.unwrap().success());
}

/// Runs a line of the shell.
pub fn sh(line: &str) {
    let status = Command::new("sh").args(["-ec", line]).status().unwrap();
    assert!(status.success(), "{line}");
}

/// Another machine on a cable.
#[derive(Debug)]
pub struct Machine {
    /// Keeps the namespace.
    process: Child,
}

impl Machine {
    /// The cable has the ends `here` and `there`.
    pub fn new(here: &str, there: &str) -> Self {
        let process = Command::new("unshare")
            .args(["-n", "sleep", "120"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let its = format!("/proc/{}/ns/net", process.id());
        let begun = Instant::now();
        while fs::read_link(&its).is_ok_and(|net| net == own) {
            assert!(begun.elapsed() < PATIENCE);
            thread::yield_now();
        }
        let machine = Self { process };
        let pid = machine.process.id();
        sh(&format!(
            "ip link add {here} type veth peer name {there} netns {pid}; ip link set {here} up"
        ));
        machine.sh(&format!("ip link set lo up; ip link set {there} up"));
        machine
    }

    /// Runs a line of the shell there, which has no single quotes.
    pub fn sh(&self, line: &str) {
        sh(&format!(
            "nsenter -t {} -n sh -ec '{line}'",
            self.process.id()
        ));
    }

    /// A command that runs there.
    pub fn command(&self, command: &Command) -> Command {
        let mut there = Command::new("nsenter");
        there
            .args(["-t", &self.process.id().to_string(), "-n"])
            .args(super::process::words(command));
        there
    }

    /// Does something on that machine.
    pub fn run<R: Send>(&self, act: impl FnOnce() -> R + Send) -> R {
        in_net_of(self.process.id(), act)
    }
}

/// Does something on the machine of the test itself, from a thread that is on another one.
pub fn at_home<R: Send>(act: impl FnOnce() -> R + Send) -> R {
    in_net_of(std::process::id(), act)
}

fn in_net_of<R: Send>(process: u32, act: impl FnOnce() -> R + Send) -> R {
    let net = File::open(format!("/proc/{process}/ns/net")).unwrap();
    thread::scope(|scope| {
        let there = scope.spawn(move || {
            // The thread's alone, and for the rest of its life. Threads that it starts are there too.
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(net.as_fd(), network).unwrap();
            act()
        });
        there.join().unwrap()
    })
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
