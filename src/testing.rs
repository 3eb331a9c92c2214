//! For tests of your own: conformance tests for transports, codecs and handlers, a transport that
//! fails on demand, and fault scripts for proptest. Behind the feature `testing`, off by default.
//!
//! ```toml
//! [dev-dependencies]
//! rejoinder = { version = "0.1", features = ["testing"] }
//! ```
//!
//! The conformance tests check what the documentation of [`Transport`](crate::Transport),
//! [`Codec`](crate::Codec) and [`Handler`](crate::Handler) says of every implementation. All of
//! this crate's pass. The error names the requirement that is violated, and what was found instead.

mod codec;
mod faults;
mod faulty;
mod handler;
mod transport;

use std::panic::{self, AssertUnwindSafe};

pub use self::codec::codec_conformance;
pub use self::faults::scripts;
pub use self::faulty::{Faults, FaultyTransport};
pub use self::handler::handler_conformance;
pub use self::transport::{Pair, transport_conformance};

/// A requirement that an implementation does not meet.
///
/// ```
/// use rejoinder::codec::Raw;
/// use rejoinder::testing::handler_conformance;
///
/// // A slip that no tidy sample shows.
/// let second = |request: &[u8]| Some(vec![request[1]]);
/// let broken = handler_conformance(&Raw, second, &[b"two"]).unwrap_err();
/// assert_eq!(broken.requirement, "no request makes a handler panic");
/// assert_eq!(broken.found, "given []");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broken requirement: {requirement}: {found}")]
#[non_exhaustive]
pub struct Violation {
    /// The requirement.
    pub requirement: &'static str,
    /// What was found instead.
    pub found: String,
}

type Kept = Result<(), Violation>;

/// Returns a violation, unless the requirement is met.
fn require(requirement: &'static str, kept: bool, found: impl FnOnce() -> String) -> Kept {
    if kept {
        Ok(())
    } else {
        Err(Violation {
            requirement,
            found: found(),
        })
    }
}

/// Runs what must not panic.
fn catch_panic<R>(
    name: &'static str,
    what: impl FnOnce() -> R,
    given: &[u8],
) -> Result<R, Violation> {
    // What is left half done is thrown away with the implementation that is refused.
    panic::catch_unwind(AssertUnwindSafe(what)).map_err(|_| Violation {
        requirement: name,
        found: format!("a panic, given {given:02x?}"),
    })
}

/// Datagrams made from others by what happens to bytes: all that are a prefix or have a byte more,
/// some with changed bytes, and some made of nothing. Always the same ones.
fn mutations<'a>(samples: &'a [&'a [u8]]) -> impl Iterator<Item = Vec<u8>> + 'a {
    let mut state = 0_u64;
    let mut random = move |below: usize| {
        // Knuth's MMIX generator: quality does not matter here, and `below` is small.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below.max(1)
    };
    let prefixes = samples.iter().flat_map(|sample| {
        let lengths = 0..=sample.len().min(LONGEST_CUT);
        lengths.map(|len| sample[..len].to_vec())
    });
    let longer = samples
        .iter()
        .flat_map(|sample| [b'\0', b'!', 0xff].map(|byte| [sample, &[byte][..]].concat()));
    let mut changed = Vec::new();
    for sample in samples {
        for _ in 0..CHANGED {
            let mut bytes = sample.to_vec();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = u8::try_from(random(256)).expect("a byte");
                }
            }
            changed.push(bytes);
        }
    }
    for len in 0..RANDOM {
        let byte = |_| u8::try_from(random(256)).expect("a byte");
        changed.push((0..len).map(byte).collect());
    }
    prefixes.chain(longer).chain(changed)
}

const LONGEST_CUT: usize = 300;
const CHANGED: usize = 200;
const RANDOM: usize = 100;
