use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Faults for single datagrams of a [`SimNet`](crate::sim::SimNet), by number: "lose the second, delay
/// the third".
///
/// A network numbers its datagrams from 1 in the order in which they are sent, both directions
/// together; its [trace](crate::sim::SimNet::trace) shows the numbers. A script says what happens to
/// some of them, on top of what their link does. It is written as it displays:
///
/// ```
/// use rejoinder::sim::{Script, SimNet};
///
/// let script: Script = "2 lose, 3 delay 40ms, 3 duplicate, 5 corrupt".parse()?;
/// assert_eq!(
///     script.to_string(),
///     "2 lose, 3 delay 40ms, 3 duplicate, 5 corrupt"
/// );
/// let net = SimNet::scripted(0, script);
/// # Ok::<(), rejoinder::sim::ScriptError>(())
/// ```
///
/// Delays are whole numbers of `ns`, `us`, `ms` or `s`. The empty text is the script without
/// faults.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// In order of the numbers.
    faults: Vec<(u64, Fault)>,
}

/// What a [`Script`] does to a datagram.
///
/// ```
/// use rejoinder::sim::{Fault, Script};
/// use std::time::Duration;
///
/// let late = Fault::Delay(Duration::from_millis(40));
/// assert_eq!(
///     Script::new([(3, late), (2, Fault::Lose)]).to_string(),
///     "2 lose, 3 delay 40ms"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is lost.
    Lose,
    /// It arrives so much later.
    Delay(Duration),
    /// It arrives twice.
    Duplicate,
    /// One of its bits arrives changed.
    Corrupt,
}

impl Script {
    /// A script of these faults, each for the datagram with that number. One datagram can have
    /// several.
    ///
    /// ```
    /// use rejoinder::sim::{Fault, Script};
    ///
    /// let script = Script::new([(1, Fault::Lose), (2, Fault::Lose)]);
    /// assert_eq!(Ok(script), "1 lose, 2 lose".parse());
    /// ```
    pub fn new(faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        let mut faults: Vec<_> = faults.into_iter().collect();
        faults.sort_by_key(|&(number, _)| number);
        Self { faults }
    }

    /// The faults, in order of the numbers.
    ///
    /// ```
    /// use rejoinder::sim::{Fault, Script};
    ///
    /// let script: Script = "5 corrupt, 2 duplicate".parse()?;
    /// assert_eq!(
    ///     script.faults(),
    ///     [(2, Fault::Duplicate), (5, Fault::Corrupt)]
    /// );
    /// # Ok::<(), rejoinder::sim::ScriptError>(())
    /// ```
    pub fn faults(&self) -> &[(u64, Fault)] {
        &self.faults
    }

    pub(super) fn faults_for(&self, number: u64) -> impl Iterator<Item = Fault> {
        let first = self.faults.partition_point(|&(other, _)| other < number);
        self.faults[first..]
            .iter()
            .take_while(move |&&(other, _)| other == number)
            .map(|&(_, fault)| fault)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (number, fault)) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{number} ")?;
            match fault {
                Fault::Lose => f.write_str("lose")?,
                Fault::Duplicate => f.write_str("duplicate")?,
                Fault::Corrupt => f.write_str("corrupt")?,
                Fault::Delay(time) => {
                    let nanos = time.as_nanos();
                    let (unit, size) = UNITS
                        .into_iter()
                        .find(|(_, size)| nanos % size == 0)
                        .expect("every time is a whole number of nanoseconds");
                    write!(f, "delay {}{unit}", nanos / size)?;
                }
            }
        }
        Ok(())
    }
}

/// As the text that parses back.
impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\".parse()?")
    }
}

/// Why a text is no [`Script`].
///
/// ```
/// use rejoinder::sim::Script;
///
/// let error = "2 lose, 3 eat".parse::<Script>().unwrap_err();
/// assert_eq!(error.fault, "3 eat");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault:?} is no fault: one is {EXAMPLE}")]
#[non_exhaustive]
pub struct ScriptError {
    /// The part that is not understood.
    pub fault: String,
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.split(',')
            .map(|fault| {
                parse(fault.trim()).ok_or_else(|| ScriptError {
                    fault: fault.trim().to_owned(),
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Self::new)
    }
}

fn parse(fault: &str) -> Option<(u64, Fault)> {
    let mut words = fault.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let fault = match words.next()? {
        "lose" => Fault::Lose,
        "duplicate" => Fault::Duplicate,
        "corrupt" => Fault::Corrupt,
        "delay" => Fault::Delay(parse_time(words.next()?)?),
        _ => return None,
    };
    words.next().is_none().then_some((number, fault))
}

fn parse_time(time: &str) -> Option<Duration> {
    let digits = time.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = time.split_at(digits);
    let (_, size) = UNITS.into_iter().find(|&(name, _)| name == unit)?;
    let nanos = count.parse::<u128>().ok()?.checked_mul(size)?;
    let nanos_of_second = u32::try_from(nanos % 1_000_000_000).ok()?;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, nanos_of_second))
}

/// With their length in nanoseconds, the longest first.
const UNITS: [(&str, u128); 4] = [
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const EXAMPLE: &str = "\"2 lose\", \"2 duplicate\", \"2 corrupt\" or \"2 delay 40ms\"";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Fault, Script};

    fn fault() -> impl Strategy<Value = Fault> {
        prop_oneof![
            Just(Fault::Lose),
            Just(Fault::Duplicate),
            Just(Fault::Corrupt),
            (any::<u64>(), 0..1_000_000_000_u32)
                .prop_map(|(seconds, nanos)| Fault::Delay(Duration::new(seconds, nanos))),
        ]
    }

    proptest! {
        #[test]
        fn a_script_parses_back_from_what_it_displays(
            faults in prop::collection::vec((any::<u64>(), fault()), 0..8),
        ) {
            let script = Script::new(faults);
            prop_assert_eq!(script.to_string().parse(), Ok(script));
        }

        #[test]
        fn any_text_parses_or_fails(text in "[ 0-9,a-z]{0,40}|\\PC*") {
            let _ = text.parse::<Script>();
        }
    }

    #[test]
    fn what_is_no_fault_is_named() {
        let result = "2 lose, 3 delay 40".parse::<Script>();
        assert_eq!(
            result.map_err(|error| error.fault),
            Err("3 delay 40".to_owned())
        );
        for wrong in ["lose", "2", "2 lose 3", "-1 lose", "1 delay ms", "1 lose,"] {
            assert!(wrong.parse::<Script>().is_err(), "{wrong}");
        }
    }
}
