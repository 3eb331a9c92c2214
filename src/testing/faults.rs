use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof};

use crate::sim::{Fault, Script};

/// Scripts with at most `faults` faults among the first `datagrams` datagrams of a network. What
/// fails shrinks to the fewest faults, the earliest datagrams and the shortest delays.
///
/// Delays are whole milliseconds, at most 10 seconds.
///
/// Within [`SimNet::run`](crate::sim::SimNet::run), assert with `assert!`, not with `prop_assert!`:
/// that returns an error, and only a panic is reported with the network that reproduces it.
///
/// ```
/// use proptest::prelude::*;
/// use rejoinder::testing::scripts;
/// use rejoinder::codec::Text;
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::sim::SimNet;
/// use rejoinder::Client;
///
/// // Three sends in five seconds: two faults cannot spoil them all.
/// proptest!(|(script in scripts(10, 2))| {
///     SimNet::scripted(0, script).run(|net| {
///         let server = "10.0.0.1:7".parse().unwrap();
///         net.host(server, ServerCore::new(Text, |text: &str| Some(text.to_owned()))).unwrap();
///         let mut client = Client::new(net.clone(), Text, server);
///         assert!(client.request("echo?").is_ok());
///     });
/// });
/// ```
pub fn scripts(datagrams: u64, faults: usize) -> impl Strategy<Value = Script> {
    let fault = prop_oneof![
        Just(Fault::Lose),
        (0..=10_000_u64).prop_map(|millis| Fault::Delay(Duration::from_millis(millis))),
        Just(Fault::Duplicate),
        Just(Fault::Corrupt),
    ];
    vec((1..=datagrams.max(1), fault), 0..=faults).prop_map(Script::new)
}
