use std::net::IpAddr;
use std::time::Duration;

/// Chance that comes out of a seed.
///
/// This is `SplitMix64` (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
/// OOPSLA 2014, <https://doi.org/10.1145/2660193.2660195>): the numbers that follow from a seed are
/// part of what this crate promises, so they do not depend on the version of another.
#[derive(Clone, Debug)]
pub(super) struct Rng {
    state: u64,
}

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The RNG for the `index`th datagram in one direction. They depend on nothing else, so what
    /// happens on one link changes nothing on another, and a change to one datagram's fate changes
    /// no other's.
    pub(super) fn of_datagram(seed: u64, from: IpAddr, to: IpAddr, index: u64) -> Self {
        let mut state = mix(seed);
        for ip in [from, to] {
            let bits = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
                IpAddr::V6(ip) => ip.to_bits(),
            };
            #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
            for half in [bits as u64, (bits >> 64) as u64] {
                state = mix(state ^ half);
            }
        }
        Self::new(mix(state ^ index))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// A number in 0 to 1, without 1.
    pub(super) fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds")]
        let numerator = (self.next() >> 11) as f64;
        numerator * 0.5_f64.powi(53)
    }

    /// Whether something of this chance happens.
    pub(super) fn happens(&mut self, chance: f64) -> bool {
        self.unit() < chance
    }

    /// A part of a time.
    pub(super) fn part_of(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.unit())
    }
}

/// A permutation of the 64-bit numbers: `SplitMix64`'s finalizer.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn the_numbers_are_those_of_the_reference_implementation() {
        // <https://prng.di.unimi.it/splitmix64.c> with the seed 1234567.
        let mut dice = Rng::new(1_234_567);
        let first = [dice.next(), dice.next(), dice.next()];
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
