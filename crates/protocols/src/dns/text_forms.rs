//! Text forms of records that the parser reads only in the form of RFC 3597.

use domain::base::iana::Rtype;
use domain::base::scan::{Symbol, Symbols};

/// A type with the same text form that the parser knows.
pub(super) fn like(rtype: Rtype) -> Option<Rtype> {
    Some(match rtype {
        // Character strings.
        Rtype::SPF | Rtype::NINFO | Rtype::AVC | Rtype::RESINFO | Rtype::WALLET => Rtype::TXT,
        // A number and a name.
        Rtype::AFSDB | Rtype::RT | Rtype::KX | Rtype::LP => Rtype::MX,
        Rtype::SMIMEA => Rtype::TLSA,
        // Base64.
        Rtype::DHCID => Rtype::OPENPGPKEY,
        _ => return None,
    })
}

/// The data of a record whose text form nothing else has. The words are in ASCII.
pub(super) fn data(rtype: Rtype, words: &[String]) -> Option<Result<Vec<u8>, String>> {
    match rtype {
        Rtype::LOC => Some(loc(words).ok_or_else(|| {
            "not a location as in `LOC 52 22 23.5 N 4 53 32 E 12m 1m 10000m 10m`".to_owned()
        })),
        Rtype::URI => Some(uri(words).ok_or_else(|| {
            "not a URI record as in `URI 10 1 \"https://example.org/\"`".to_owned()
        })),
        _ => None,
    }
}

/// RFC 7553 §4: priority, weight, and a target that may be longer than a character string.
fn uri(words: &[String]) -> Option<Vec<u8>> {
    let [priority, weight, target] = words else {
        return None;
    };
    let mut data = Vec::new();
    for number in [priority, weight] {
        data.extend(number.parse::<u16>().ok()?.to_be_bytes());
    }
    let target = octets(target)?;
    data.extend((!target.is_empty()).then_some(target)?);
    Some(data)
}

/// What a word stands for, quoted or not.
fn octets(word: &str) -> Option<Vec<u8>> {
    let inside = match word.strip_prefix('"') {
        Some(inside) => inside.strip_suffix('"')?,
        None => word,
    };
    let mut symbols = Symbols::new(inside.chars());
    let octets = symbols.by_ref().map(|symbol| match symbol {
        // Not at its end, so there are two words without a space between.
        Symbol::Char('"') => None,
        symbol => symbol.into_octet().ok(),
    });
    let octets = octets.collect::<Option<Vec<u8>>>()?;
    symbols.ok().ok()?;
    Some(octets)
}

/// RFC 1876 §2 and §3.
fn loc(mut words: &[String]) -> Option<Vec<u8>> {
    let latitude = angle(&mut words, 90, ["N", "S"])?;
    let longitude = angle(&mut words, 180, ["E", "W"])?;
    let (altitude, sizes) = words.split_first()?;
    let (sign, metres) = match altitude.strip_prefix('-') {
        Some(metres) => (-1, metres),
        None => (1, altitude.as_str()),
    };
    // Centimetres above 100 km below the spheroid.
    let altitude = u32::try_from(10_000_000 + sign * centimetres(metres)?).ok()?;

    // Version 0. Without a size and precisions: 1 m, 10 km, 10 m.
    let mut data = vec![0, 0x12, 0x16, 0x13];
    for (index, size) in sizes.iter().enumerate() {
        // The version stands before them.
        *data.get_mut(1 + index)? = power_of_ten(centimetres(size)?)?;
    }
    for number in [latitude, longitude, altitude] {
        data.extend(number.to_be_bytes());
    }
    Some(data)
}

/// Degrees, minutes, seconds and a direction, as thousandths of a second; 2³¹ is the equator or the meridian.
/// Minutes and seconds may be left out.
fn angle(words: &mut &[String], most_degrees: i64, directions: [&str; 2]) -> Option<u32> {
    let is_direction = |word: &String| {
        directions
            .iter()
            .any(|direction| word.eq_ignore_ascii_case(direction))
    };
    let count = words.iter().position(is_direction)?;
    let (numbers, rest) = words.split_at(count);
    let (direction, rest) = rest.split_first()?;
    *words = rest;
    let number = |index: usize, digits| match numbers.get(index) {
        Some(word) => fixed_point(word, digits),
        None => Some(0),
    };
    let (degrees, minutes, thousandths) = (number(0, 0)?, number(1, 0)?, number(2, 3)?);
    let total = (degrees * 60 + minutes) * 60_000 + thousandths;
    let is_valid = (1..=3).contains(&count)
        && minutes < 60
        && thousandths < 60_000
        && total <= most_degrees * 3_600_000;
    let is_positive = direction.eq_ignore_ascii_case(directions[0]);
    let total = if is_positive { total } else { -total };
    u32::try_from((1 << 31) + total).ok().filter(|_| is_valid)
}

/// Metres with an `m` behind them, or without.
fn centimetres(word: &str) -> Option<i64> {
    fixed_point(word.strip_suffix(['m', 'M']).unwrap_or(word), 2)
}

/// A decimal number without a sign, times ten to the power of `digits`: so many may stand behind the point.
fn fixed_point(word: &str, digits: usize) -> Option<i64> {
    let (whole, fraction) = word.split_once('.').unwrap_or((word, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    // Twelve digits are more than any field has.
    if whole.is_empty() || whole.len() > 12 || fraction.len() > digits || !is_number(whole) {
        return None;
    }
    is_number(fraction)
        .then(|| format!("{whole}{fraction:0<digits$}"))?
        .parse()
        .ok()
}

/// One digit in the high half of the byte, and the power of ten that it is multiplied with in the low half. Further
/// digits are lost.
fn power_of_ten(mut number: i64) -> Option<u8> {
    let mut exponent = 0;
    while number > 9 {
        number /= 10;
        exponent += 1;
    }
    u8::try_from(number << 4 | exponent)
        .ok()
        .filter(|_| exponent <= 9)
}

#[cfg(test)]
mod tests {
    use super::{loc, octets, uri};

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    /// The examples of RFC 1876, §4, as BIND and NSD encode them, and further ones.
    #[test]
    fn a_location_has_optional_parts() {
        for (text, expected) in [
            (
                "42 21 54 N 71 06 18 W -24m 30m",
                0x0033_1613_8917_2dd0_70be_15f0_0098_8d20,
            ),
            (
                "42 21 43.952 N 71 5 6.344 W -24m 1m 200m 10m",
                0x0012_2413_8917_0690_70bf_2dd8_0098_8d20,
            ),
            (
                "52 14 05 N 00 08 50 E 10m",
                0x0012_1613_8b35_56c8_8008_1650_0098_9a68,
            ),
            (
                "32 7 19 S 116 2 25 E 10m",
                0x0012_1613_791b_7d28_98e6_4868_0098_9a68,
            ),
            (
                "42 N 71 w 0 90000000.00M 0 0.09",
                0x0099_0090_8903_2100_70c3_da80_0098_9680,
            ),
            (
                "0 0 0.001 s 0 0 0.5 e 42849672.95m 15m 149m 99.99m",
                0x0013_1493_7fff_ffff_8000_01f4_ffff_ffff,
            ),
        ] {
            let expected: u128 = expected;
            assert_eq!(
                loc(&words(text)),
                Some(expected.to_be_bytes().to_vec()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_location_that_is_none_is_an_error() {
        for text in [
            "",
            "52 22 23.000 N 4 53 32.000 E",
            "52 22 23.000 4 53 32.000 E 0m",
            "91 N 4 E 0m",
            "90 0 0.001 N 4 E 0m",
            "52 60 N 4 E 0m",
            "52 22 60 N 4 E 0m",
            "52 22 23.0001 N 4 E 0m",
            "52 22 23 1 N 4 E 0m",
            "52.5 N 4 E 0m",
            "N 4 E 0m",
            "52 N 181 E 0m",
            "52 E 4 N 0m",
            "52 N 4 E -100000.01m",
            "52 N 4 E 42849672.96m",
            "52 N 4 E 0.001m",
            "52 N 4 E 0m -1m",
            "52 N 4 E 0m 100000000m",
            "52 N 4 E 0m 1m 1m 1m 1m",
            "52 N 4 E 9999999999999999999999m",
            "+52 N 4 E 0m",
        ] {
            assert_eq!(loc(&words(text)), None, "{text}");
        }
        assert!(loc(&words("90 N 180 W -100000m")).is_some());
        assert!(loc(&words("52 N 4 E 42849672.95m")).is_some());
    }

    #[test]
    fn a_target_is_one_word_with_or_without_quotes() {
        let expected = b"\0\x0a\0\x01ftp://a/b".to_vec();
        assert_eq!(uri(&words("10 1 \"ftp://a/b\"")), Some(expected.clone()));
        assert_eq!(uri(&words("10 1 ftp://a/\\098")), Some(expected));
        for text in [
            "10 1",
            "10 1 \"\"",
            "65536 1 a",
            "10 -1 a",
            "10 1 a b",
            "10 1 \"a",
            "10 1 \"a\"\"b\"",
            "10 1 \\09",
        ] {
            assert_eq!(uri(&words(text)), None, "{text}");
        }
        let long = format!("\"{}\"", "a".repeat(300));
        assert_eq!(octets(&long), Some(vec![b'a'; 300]));
        assert_eq!(octets("\"\\\"\\\\\\255\""), Some(b"\"\\\xff".to_vec()));
    }
}
