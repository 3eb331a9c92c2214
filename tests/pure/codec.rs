//! The codecs: what is encoded decodes, what decodes re-encodes, and nothing panics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, NaiveDate, NaiveDateTime, Timelike};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
#[cfg(feature = "signed")]
use rejoinder::codec::Signed;
use rejoinder::codec::{CivilTime, Ctime, CtimeError, Raw, Tagged, Text, TextError, TooLong};
use rejoinder::transport::{MAX_DATAGRAM_BYTES, Meta, Outbox};
use rejoinder::{Codec, Context, Handler, Reply, Timestamp, Writer};

/// Days from 1970-01-01 to the first day of `year`, counted year by year in groups: no library.
fn days_before_year(year: i64) -> i64 {
    let years = year - 1;
    let before_1970 = 1969 * 365 + 1969 / 4 - 1969 / 100 + 1969 / 400;
    years * 365 + years / 4 - years / 100 + years / 400 - before_1970
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_lengths(year: i64) -> [i64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// The fields of a second in UTC: year, month, day, hour, minute, second, and days since Sunday.
fn civil(second: i64) -> (i64, usize, i64, i64, i64, i64, i64) {
    let days = second.div_euclid(86_400);
    let of_day = second.rem_euclid(86_400);
    // A guess that is at most one too high or too low, put right.
    let mut year = 1970 + days.div_euclid(365);
    while days_before_year(year) > days {
        year -= 1;
    }
    while days_before_year(year + 1) <= days {
        year += 1;
    }
    let mut day = days - days_before_year(year);
    let mut month = 0;
    while day >= month_lengths(year)[month] {
        day -= month_lengths(year)[month];
        month += 1;
    }
    // 1 January 1970 was a Thursday.
    let weekday = (days + 4).rem_euclid(7);
    let (hour, minute) = (of_day / 3600, of_day / 60 % 60);
    (year, month + 1, day + 1, hour, minute, of_day % 60, weekday)
}

/// C's `ctime` for UTC, without the newline.
fn ctime(second: i64) -> String {
    let (year, month, day, hour, minute, second, weekday) = civil(second);
    let weekday = &"SunMonTueWedThuFriSat"[3 * usize::try_from(weekday).unwrap()..][..3];
    let month = &"JanFebMarAprMayJunJulAugSepOctNovDec"[3 * (month - 1)..][..3];
    let pad = if day < 10 { " " } else { "" };
    format!("{weekday} {month} {pad}{day} {hour:0>2}:{minute:0>2}:{second:0>2} {year}")
}

fn at(second: i64) -> SystemTime {
    let distance = Duration::from_secs(second.unsigned_abs());
    if second < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

fn now(wall: SystemTime) -> Timestamp {
    Timestamp::new(Duration::ZERO, wall)
}

fn encode<E>(write: impl FnOnce(&mut Writer<'_>) -> Result<(), E>) -> Result<Vec<u8>, E> {
    let mut space = vec![0; MAX_DATAGRAM_BYTES];
    let mut out = Writer::new(&mut space);
    write(&mut out)?;
    let len = out.finish().unwrap();
    space.truncate(len);
    Ok(space)
}

fn frame(wall: SystemTime, text: &str) -> Result<Vec<u8>, CtimeError> {
    encode(|out| Ctime::utc().encode_response(now(wall), REQUEST, &text, out))
}

/// What is answered: none of these protocols looks at it.
const REQUEST: &[u8] = b"?";

const FIRST_SECOND: i64 = -62_135_596_800;
const LAST_SECOND: i64 = 253_402_300_799;

#[test]
fn the_first_and_last_second_are_those_of_years_1_and_9999() {
    assert_eq!(ctime(FIRST_SECOND), "Mon Jan  1 00:00:00 1");
    assert_eq!(ctime(LAST_SECOND), "Fri Dec 31 23:59:59 9999");
    assert_eq!(ctime(1_562_519_878), "Sun Jul  7 17:17:58 2019");
}

/// Moments in years 1 to 9999, the borders of days and years more often than chance would.
fn second() -> impl Strategy<Value = i64> {
    prop_oneof![
        FIRST_SECOND..=LAST_SECOND,
        (1..=9999_i64, -2..=2_i64).prop_map(|(year, by)| {
            (days_before_year(year) * 86_400 + by).clamp(FIRST_SECOND, LAST_SECOND)
        }),
        (1..=9999_i64, 57..=60_i64, -1..=1_i64)
            .prop_map(|(year, day, by)| { (days_before_year(year) + day) * 86_400 + by }),
        -100_000..100_000_i64,
    ]
}

/// Texts as they occur, and such as hold frames or the pieces of one.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just(String::new()),
        vec(
            select(vec![
                "[b'",
                "']",
                "我",
                "Sun Jul  7 17:17:58 2019",
                "\0",
                "\n",
                "2019",
                " "
            ]),
            0..6
        )
        .prop_map(|parts| parts.concat()),
    ]
}

/// A few bytes changed, put in or taken out.
fn mutated(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let telling = prop_oneof![
        select(b" '[]b:0123456789SunJl\n\x80\xff".to_vec()),
        any::<u8>()
    ];
    let change = (0..3, any::<prop::sample::Index>(), telling);
    (bytes, vec(change, 0..3)).prop_map(|(mut bytes, changes)| {
        for (kind, place, byte) in changes {
            match kind {
                0 => bytes.insert(place.index(bytes.len() + 1), byte),
                1 if !bytes.is_empty() => {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
                2 if !bytes.is_empty() => {
                    bytes.remove(place.index(bytes.len()));
                }
                _ => {}
            }
        }
        bytes
    })
}

/// What a server may be sent: anything, and what is nearly a frame.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let frames = (second(), text()).prop_map(|(second, text)| frame(at(second), &text).unwrap());
    prop_oneof![
        1 => vec(any::<u8>(), 0..80),
        4 => mutated(frames),
        1 => mutated(text().prop_map(String::into_bytes)),
    ]
}

/// A spawned server on tokio shares its codec among the futures of its handlers.
#[test]
fn codecs_can_be_shared_between_threads() {
    fn shared<C: Codec + Send + Sync>() {}
    shared::<Text>();
    shared::<Raw>();
    shared::<Tagged<Ctime>>();
    #[cfg(feature = "signed")]
    shared::<Signed<Text>>();
}

/// Each thread keeps the latest header of each zone, and of no other.
#[test]
fn frames_of_two_zones_and_threads_are_each_right() {
    let frame = |codec: &Ctime, second| {
        let now = now(at(second));
        encode(|out| codec.encode_response(now, REQUEST, &"", out)).unwrap()
    };
    let (utc, local) = (Ctime::utc(), Ctime::local());
    let wanted = [frame(&utc, 1_562_519_878), frame(&local, 1_562_519_878)];
    let check = || {
        for _ in 0..2 {
            assert_eq!(frame(&utc, 1_562_519_878), wanted[0]);
            assert_eq!(frame(&local, 1_562_519_878), wanted[1]);
            assert_eq!(frame(&utc, 0), b"[b'Thu Jan  1 00:00:00 1970']");
        }
    };
    check();
    std::thread::scope(|scope| {
        scope.spawn(check);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 30 } else { 4_000 }))]

    #[test]
    fn a_frame_tells_the_second_and_the_text(second in second(), nanos in 0..1_000_000_000_u32, text in text()) {
        // A fraction belongs to the second that began before it, in any year.
        let bytes = frame(at(second) + Duration::from_nanos(nanos.into()), &text).unwrap();
        let expected = format!("[b'{}']{text}", ctime(second));
        prop_assert_eq!(str::from_utf8(&bytes), Ok(&*expected));

        prop_assert!(Ctime::utc().is_response(&bytes));
        let decoded = Ctime::local().decode_response(&bytes).unwrap();
        prop_assert_eq!(decoded.text, text);
        let (year, month, day, hour, minute, second, _) = civil(second);
        let time = decoded.time;
        prop_assert_eq!(
            (i64::from(time.year()), usize::from(time.month()), i64::from(time.day())),
            (year, month, day)
        );
        prop_assert_eq!(
            (i64::from(time.hour()), i64::from(time.minute()), i64::from(time.second())),
            (hour, minute, second)
        );
        prop_assert_eq!(
            CivilTime::new(time.year(), time.month(), time.day(), time.hour(), time.minute(), time.second()),
            Some(time)
        );
    }

    #[test]
    fn frames_of_several_seconds_from_one_codec_are_each_right(seconds in vec(second(), 1..5)) {
        let codec = Ctime::utc();
        for second in seconds.iter().chain(&seconds) {
            let bytes = encode(|out| codec.encode_response(now(at(*second)), REQUEST, &"", out)).unwrap();
            let expected = format!("[b'{}']", ctime(*second));
            prop_assert_eq!(str::from_utf8(&bytes), Ok(&*expected));
        }
    }

    #[test]
    fn what_decodes_from_ctime_re_encodes_to_the_same_bytes(datagram in datagram()) {
        let codec = Ctime::utc();
        if let Ok(frame) = codec.decode_response(&datagram) {
            prop_assert_eq!(frame.to_string().into_bytes(), &datagram[..]);
            prop_assert!(codec.is_response(&datagram));
        }
        match codec.decode_request(&datagram) {
            Ok(request) => match encode(|out| codec.encode_request(0, request, out)) {
                Ok(bytes) => prop_assert_eq!(bytes, datagram),
                Err(error) => {
                    prop_assert_eq!(error, CtimeError::RequestIsResponse);
                    prop_assert!(codec.is_response(&datagram));
                }
            },
            Err(CtimeError::EmptyRequest) => prop_assert!(datagram.is_empty()),
            Err(error) => prop_assert_eq!(error, CtimeError::NotUtf8(str::from_utf8(&datagram).unwrap_err())),
        }
    }

    #[test]
    fn a_rejection_points_into_the_datagram_and_holds_for_what_follows(datagram in datagram(), more in any::<u8>()) {
        if let Err(CtimeError::NotAResponse { offset, .. }) = Ctime::utc().decode_response(&datagram) {
            prop_assert!(offset <= datagram.len());
            prop_assert!(!Ctime::utc().is_response(&datagram));
            // Unless it was cut off, no further byte makes it a response.
            if datagram.len() >= 32 {
                let longer = [&datagram[..], &[more]].concat();
                prop_assert!(!Ctime::utc().is_response(&longer));
            }
        }
    }

    #[test]
    fn text_goes_both_ways(datagram in datagram()) {
        match Text.decode_request(&datagram) {
            Ok(text) => {
                prop_assert_eq!(Text.decode_response(&datagram), Ok(text));
                prop_assert_eq!(&encode(|out| Text.encode_request(0, text, out)).unwrap(), &datagram);
                let answer = encode(|out| Text.encode_response(now(UNIX_EPOCH), REQUEST, &text, out));
                prop_assert_eq!(answer.unwrap(), datagram);
            }
            Err(error) => {
                let expected = TextError::NotUtf8(str::from_utf8(&datagram).unwrap_err());
                prop_assert_eq!(&error, &expected);
                prop_assert_eq!(Text.decode_response(&datagram), Err(expected));
            }
        }
    }

    #[test]
    fn raw_bytes_go_both_ways(datagram in datagram()) {
        prop_assert_eq!(Raw.decode_request(&datagram), Ok(&datagram[..]));
        prop_assert_eq!(Raw.decode_response(&datagram), Ok(&datagram[..]));
        prop_assert_eq!(&encode(|out| Raw.encode_request(0, &datagram, out)).unwrap(), &datagram);
        let answer = encode(|out| Raw.encode_response(now(UNIX_EPOCH), REQUEST, &datagram, out));
        prop_assert_eq!(answer.unwrap(), datagram);
    }

    #[test]
    fn a_text_that_is_encoded_decodes(text in text()) {
        let bytes = encode(|out| Text.encode_request(0, &text, out)).unwrap();
        prop_assert_eq!(Text.decode_request(&bytes), Ok(&*text));
        match encode(|out| Ctime::local().encode_request(0, &text, out)) {
            Ok(bytes) => prop_assert_eq!(Ctime::local().decode_request(&bytes), Ok(&*text)),
            Err(error) => prop_assert!(
                matches!(error, CtimeError::EmptyRequest | CtimeError::RequestIsResponse)
            ),
        }
    }
}

#[test]
fn every_second_has_a_header_of_its_own() {
    let codec = Ctime::utc();
    // Over the end of a minute, a day and 1969; each asked for twice, once with a fraction.
    for (second, fraction) in (-65..65).flat_map(|second| [(second, 0), (second, 999_999_999)]) {
        let moment = at(second) + Duration::from_nanos(fraction);
        let bytes = encode(|out| codec.encode_response(now(moment), REQUEST, &"", out)).unwrap();
        let expected = format!("[b'{}']", ctime(second));
        assert_eq!(str::from_utf8(&bytes), Ok(&*expected));
    }
}

#[test]
fn every_day_of_400_years_reads_right() {
    // The Gregorian calendar repeats itself after these; years below 1000 are in the random tests.
    let days = days_before_year(1800)..days_before_year(2200);
    for day in days.step_by(if cfg!(miri) { 2_999 } else { 1 }) {
        let second = day * 86_400 + day.rem_euclid(86_400);
        let bytes = frame(at(second), "").unwrap();
        assert_eq!(
            str::from_utf8(&bytes),
            Ok(&*format!("[b'{}']", ctime(second)))
        );
        assert!(Ctime::utc().is_response(&bytes));
    }
}

#[test]
fn a_clock_outside_of_years_1_to_9999_is_an_error() {
    let far = |seconds| {
        [
            UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
            UNIX_EPOCH.checked_sub(Duration::from_secs(seconds)),
        ]
    };
    let mut moments = vec![
        at(FIRST_SECOND - 1),
        at(FIRST_SECOND) - Duration::from_nanos(1),
        at(LAST_SECOND + 1),
        at(LAST_SECOND + 86_400 * 400),
        at(FIRST_SECOND - 86_400 * 400),
    ];
    // As far as the system's clock type goes, in both directions.
    for shift in 34..64 {
        moments.extend(far(1 << shift).into_iter().flatten());
        moments.extend(far((1 << shift) - 1).into_iter().flatten());
    }
    moments.extend(far(i64::MAX.unsigned_abs()).into_iter().flatten());
    moments.extend(far(1 << 63).into_iter().flatten());
    let mut tried = 0;
    for moment in moments {
        let inside = moment >= at(FIRST_SECOND) && moment < at(LAST_SECOND + 1);
        for (codec, is_utc) in [(Ctime::utc(), true), (Ctime::local(), false)] {
            let result = encode(|out| codec.encode_response(now(moment), REQUEST, &"", out));
            if inside {
                continue;
            }
            // In the hours around the border the zone decides.
            let beyond_any_zone =
                moment < at(FIRST_SECOND - 86_400 * 2) || moment > at(LAST_SECOND + 86_400 * 2);
            if beyond_any_zone || is_utc {
                assert_eq!(result, Err(CtimeError::YearOutOfRange), "{moment:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 10, "the clock type reaches beyond the years");
}

#[test]
fn what_a_codec_refuses_to_date_writes_nothing() {
    let mut space = [0; 64];
    let mut out = Writer::new(&mut space);
    let moment = now(at(LAST_SECOND + 1));
    Ctime::utc()
        .encode_response(moment, REQUEST, &"text", &mut out)
        .unwrap_err();
    assert_eq!(out.finish(), Ok(0));
}

#[test]
fn fractions_before_1970_round_down() {
    let just_before = UNIX_EPOCH - Duration::from_nanos(1);
    assert_eq!(
        frame(just_before, "").unwrap(),
        b"[b'Wed Dec 31 23:59:59 1969']"
    );
    let a_second_before = UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(
        frame(a_second_before, "").unwrap(),
        b"[b'Wed Dec 31 23:59:59 1969']"
    );
    assert_eq!(
        frame(a_second_before - Duration::from_nanos(1), "").unwrap(),
        b"[b'Wed Dec 31 23:59:58 1969']"
    );
}

#[test]
fn local_time_makes_a_valid_frame() {
    for second in [
        FIRST_SECOND + 86_400 * 2,
        -1,
        0,
        1_562_519_878,
        LAST_SECOND - 86_400 * 2,
    ] {
        let codec = Ctime::local();
        let bytes =
            encode(|out| codec.encode_response(now(at(second)), REQUEST, &"好", out)).unwrap();
        let frame = codec.decode_response(&bytes).unwrap();
        assert_eq!(frame.text, "好");
        assert_eq!(frame.to_string().as_bytes(), bytes);
    }
    let bytes =
        encode(|out| Ctime::default().encode_response(Timestamp::system(), REQUEST, &"", out))
            .unwrap();
    assert!(Ctime::utc().is_response(&bytes));
}

#[test]
fn an_impossible_frame_is_rejected_where_it_goes_wrong() {
    for (datagram, at) in [
        ("", 0),
        ("[", 0),
        ("(b'Sun Jul  7 17:17:58 2019']", 0),
        ("[B'Sun Jul  7 17:17:58 2019']", 0),
        (" [b'Sun Jul  7 17:17:58 2019']", 0),
        ("[b'sun Jul  7 17:17:58 2019']", 3),
        ("[b'Xxx Jul  7 17:17:58 2019']", 3),
        ("[b'Sunday Jul  7 17:17:58 2019']", 6),
        ("[b'Sun jul  7 17:17:58 2019']", 7),
        ("[b'Sun JUL  7 17:17:58 2019']", 7),
        ("[b'Sun July 7 17:17:58 2019']", 10),
        ("[b'Sun Jul 7 17:17:58 2019']", 11),
        ("[b'Sun Jul 07 17:17:58 2019']", 11),
        ("[b'Sun Jul  0 17:17:58 2019']", 11),
        ("[b'Sun Jul 00 17:17:58 2019']", 11),
        ("[b'Sun Jul   7 17:17:58 2019']", 12),
        ("[b'Sun Jul  17 17:17:58 2019']", 13),
        ("[b'Mon Jul 32 17:17:58 2019']", 11),
        ("[b'Sat Feb 30 17:17:58 2019']", 11),
        ("[b'Fri Mar  1 17:17:58 2019']x", usize::MAX),
        ("[b'Fri Feb 29 17:17:58 2019']", 11),
        ("[b'Thu Feb 29 17:17:58 1900']", 11),
        ("[b'Tue Feb 29 17:17:58 2000']", usize::MAX),
        ("[b'Wed Jun 31 17:17:58 2019']", 11),
        ("[b'Mon Jul  7 17:17:58 2019']", 3),
        ("[b'Sun Jul  7 24:17:58 2019']", 14),
        ("[b'Sun Jul  7  7:17:58 2019']", 14),
        ("[b'Sun Jul  7 7:17:58 2019']", 14),
        ("[b'Sun Jul  7 17.17:58 2019']", 16),
        ("[b'Sun Jul  7 17:60:58 2019']", 17),
        ("[b'Sun Jul  7 17:17:60 2019']", 20),
        ("[b'Sun Jul  7 17:17:61 2019']", 20),
        ("[b'Sun Jul  7 17:17:+8 2019']", 20),
        ("[b'Sun Jul  7 17:17:58  2019']", 23),
        ("[b'Sun Jul  7 17:17:58 0']", 23),
        ("[b'Sun Jul  7 17:17:58 02019']", 23),
        ("[b'Sun Jul  7 17:17:58 0201']", 23),
        ("[b'Sun Jul  7 17:17:58 12019']", 23),
        ("[b'Sun Jul  7 17:17:58 -2019']", 23),
        ("[b'Sun Jul  7 17:17:58 ']", 23),
        ("[b'Sun Jul  7 17:17:58 ２０１９']", 23),
        ("[b'Sun Jul  7 17:17:58 2019 ']", 27),
        ("[b'Sun Jul  7 17:17:58 2019\n']", 27),
        ("[b'Sun Jul  7 17:17:58 2019]", 27),
        ("[b'Sun Jul  7 17:17:58 2019'", 27),
        ("[b'Sun Jul  7 17:17:58 2019\"]", 27),
        ("[b'Sun Jul  7 17:17:58 2019']", usize::MAX),
    ] {
        let result = Ctime::utc().decode_response(datagram.as_bytes());
        if at == usize::MAX {
            // A real one beside those that are not.
            assert_eq!(result.unwrap().to_string(), datagram);
            continue;
        }
        assert!(
            matches!(result, Err(CtimeError::NotAResponse { offset, .. }) if offset == at),
            "{datagram:?}: {result:?}"
        );
        let message = result.unwrap_err().to_string();
        assert!(message.ends_with(&format!("at byte {at}")), "{message}");
        assert!(!Ctime::utc().is_response(datagram.as_bytes()));
    }
}

#[test]
fn a_frame_cut_short_is_rejected_where_the_missing_part_begins() {
    for whole in [
        "[b'Sun Jul  7 17:17:58 2019']",
        "[b'Wed Jul 17 17:17:58 2019']",
    ] {
        // Where each part of the header begins. Spaces and colons are parts; a year may be shorter.
        let parts = [0, 3, 6, 7, 10, 11, 13, 14, 16, 17, 19, 20, 22, 23, 27];
        for len in 0..whole.len() {
            let missing = match len {
                24..=27 => len,
                _ => *parts.iter().rfind(|part| **part <= len).unwrap(),
            };
            // The padding of the day is seen before its digit is missed.
            let missing = match (len, whole.as_bytes()[11]) {
                (12, b' ') => 12,
                _ => missing,
            };
            let result = Ctime::utc().decode_response(&whole.as_bytes()[..len]);
            assert!(
                matches!(result, Err(CtimeError::NotAResponse { offset, .. }) if offset == missing),
                "{len} bytes: {result:?}, not {missing}"
            );
        }
        assert!(Ctime::utc().is_response(whole.as_bytes()));
    }
}

#[test]
fn a_header_is_enough_to_be_a_response() {
    let header = b"[b'Sun Jul  7 17:17:58 2019']";
    for (text, is_utf8) in [
        (&b""[..], true),
        (b"[b'", true),
        (b"\xff", false),
        (b"\0", true),
    ] {
        let datagram = [header, text].concat();
        assert!(Ctime::utc().is_response(&datagram));
        assert_eq!(Ctime::utc().decode_response(&datagram).is_ok(), is_utf8);
    }
    for codec in [Text.is_response(header), Raw.is_response(header)] {
        assert!(!codec, "nothing in these protocols tells a response");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_no_text_of_any_kind() {
    for bad in [
        &b"\xc0\xaf"[..],            // overlong, two bytes
        b"\xc1\xbf",                 // overlong
        b"\xe0\x80\xaf",             // overlong, three bytes
        b"\xe0\x9f\xbf",             // the last overlong of three bytes
        b"\xf0\x80\x80\xaf",         // overlong, four bytes
        b"\xf0\x8f\xbf\xbf",         // the last overlong of four bytes
        b"\xed\xa0\x80",             // the first surrogate
        b"\xed\xbf\xbf",             // the last surrogate
        b"\xed\xa0\xbd\xed\xb8\x80", // a pair of them
        b"\xe5",                     // cut after one byte of three
        b"\xe5\xa5",                 // cut after two of three
        b"\xf0\x9f\xa4",             // cut after three of four
        b"\xe5\xa5a",                // broken off by another character
        b"\x80",                     // a continuation first
        b"\xbf",
        b"\xf4\x90\x80\x80", // beyond U+10FFFF
        b"\xf5\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80", // five bytes
        b"\xfe",
        b"\xff",
    ] {
        for (before, after) in [("", ""), ("你好", ""), ("", "吗？"), ("你", "吗？")] {
            let datagram = [before.as_bytes(), bad, after.as_bytes()].concat();
            let problem = str::from_utf8(&datagram).unwrap_err();
            assert_eq!(problem.valid_up_to(), before.len());
            assert_eq!(
                Ctime::utc().decode_request(&datagram),
                Err(CtimeError::NotUtf8(problem))
            );
            assert_eq!(
                Text.decode_request(&datagram),
                Err(TextError::NotUtf8(problem))
            );
            assert_eq!(
                Text.decode_response(&datagram),
                Err(TextError::NotUtf8(problem))
            );
            assert_eq!(Raw.decode_request(&datagram), Ok(&datagram[..]));

            let frame = [b"[b'Sun Jul  7 17:17:58 2019']", &datagram[..]].concat();
            let problem = str::from_utf8(&frame).unwrap_err();
            assert_eq!(
                problem.valid_up_to(),
                frame.len() - datagram.len() + before.len()
            );
            assert_eq!(
                Ctime::utc().decode_response(&frame),
                Err(CtimeError::NotUtf8(problem))
            );
        }
    }
}

#[test]
fn a_client_is_kept_from_asking_what_no_server_answers() {
    let encode = |request| encode(|out| Ctime::utc().encode_request(0, request, out));
    assert_eq!(encode(""), Err(CtimeError::EmptyRequest));
    assert_eq!(
        encode("[b'Sun Jul  7 17:17:58 2019']"),
        Err(CtimeError::RequestIsResponse)
    );
    assert_eq!(encode("[b'").unwrap(), b"[b'");
    assert_eq!(
        Ctime::utc().decode_request(b""),
        Err(CtimeError::EmptyRequest)
    );
}

#[test]
fn a_datagram_may_have_exactly_as_many_bytes_as_its_limit() {
    for limit in [0, 1, 29, 30, 512, MAX_DATAGRAM_BYTES] {
        let mut space = vec![0; limit];
        let most = "x".repeat(limit);
        let over = "x".repeat(limit + 1);
        let too_long = Err(TooLong {
            bytes: limit + 1,
            limit,
        });
        for (text, expected) in [(&most, Ok(limit)), (&over, too_long)] {
            let mut out = Writer::new(&mut space);
            Text.encode_response(now(UNIX_EPOCH), REQUEST, text, &mut out)
                .unwrap();
            assert_eq!(out.finish(), expected);
            let mut out = Writer::new(&mut space);
            Text.encode_request(0, text, &mut out).unwrap();
            assert_eq!(out.finish(), expected);
            let mut out = Writer::new(&mut space);
            Raw.encode_request(0, text.as_bytes(), &mut out).unwrap();
            assert_eq!(out.finish(), expected);
            let Some(text) = text.get(29..) else { continue };
            let mut out = Writer::new(&mut space);
            let codec = Ctime::utc();
            codec
                .encode_response(now(UNIX_EPOCH), REQUEST, &text, &mut out)
                .unwrap();
            assert_eq!(out.finish(), expected);
        }
        // What passes the limit in one piece is not written in part, and later pieces count.
        let mut out = Writer::new(&mut space);
        out.put(over.as_bytes());
        out.put(b"y");
        assert_eq!(
            out.finish(),
            Err(TooLong {
                bytes: limit + 2,
                limit
            })
        );
        assert!(!space.contains(&b'y'));
    }
}

#[test]
fn a_reply_of_65507_bytes_decodes_to_what_it_was_made_from() {
    let text = "好".repeat((MAX_DATAGRAM_BYTES - 29) / 3);
    let bytes = frame(UNIX_EPOCH, &text).unwrap();
    assert!(bytes.len() > MAX_DATAGRAM_BYTES - 3);
    assert_eq!(Ctime::utc().decode_response(&bytes).unwrap().text, text);
}

#[test]
fn a_date_that_does_not_exist_cannot_be_made() {
    for (year, month, day, hour, minute, second) in [
        (0, 1, 1, 0, 0, 0),
        (10_000, 1, 1, 0, 0, 0),
        (u16::MAX, 1, 1, 0, 0, 0),
        (2019, 0, 1, 0, 0, 0),
        (2019, 13, 1, 0, 0, 0),
        (2019, 1, 0, 0, 0, 0),
        (2019, 2, 29, 0, 0, 0),
        (2019, 1, 1, 24, 0, 0),
        (2019, 1, 1, 0, 60, 0),
        (2019, 1, 1, 0, 0, 60),
        (255, 255, 255, 255, 255, 255),
    ] {
        assert_eq!(CivilTime::new(year, month, day, hour, minute, second), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 20 } else { 2_000 }))]

    #[test]
    fn a_time_that_ctime_can_write_is_the_same_in_chrono_and_back(second in -62_135_596_800..253_402_300_800_i64, nanosecond in 0..2_000_000_000_u32) {
        let whole = DateTime::from_timestamp(second, 0).unwrap().naive_utc();
        let time = CivilTime::try_from(whole).unwrap();
        prop_assert_eq!(time.to_string(), ctime(second));
        prop_assert_eq!(NaiveDateTime::from(time), whole);
        // A fraction, or a leap second, is cut off.
        if let Some(fraction) = whole.with_nanosecond(nanosecond) {
            prop_assert_eq!(CivilTime::try_from(fraction), Ok(time));
        }
    }
}

#[test]
fn a_year_that_ctime_cannot_write_is_an_error() {
    for (year, written) in [
        (-1, false),
        (0, false),
        (1, true),
        (9_999, true),
        (10_000, false),
    ] {
        let time = NaiveDate::from_ymd_opt(year, 1, 1)
            .unwrap()
            .and_hms_opt(0, 0, 0)
            .unwrap();
        let error = (!written).then_some(CtimeError::YearOutOfRange);
        assert_eq!(CivilTime::try_from(time).err(), error, "{year}");
    }
}

#[test]
fn a_buffer_of_bytes_is_an_answer() {
    let context = Context::new(
        &Meta::new("192.0.2.1:7".parse().unwrap()),
        Timestamp::system(),
    );
    let mut outbox = Outbox::new(16, 64);
    let mut answer = |handler: &dyn Handler<Raw>, request: &[u8]| {
        let mut reply = Reply::new(&Raw, request, &context, &mut outbox);
        handler.handle(request, &context, &mut reply).unwrap();
    };
    answer(&|request: &[u8]| Bytes::copy_from_slice(request), b"a");
    answer(
        &|request: &[u8]| [BytesMut::from(request), BytesMut::from(&b"c"[..])],
        b"b",
    );
    let sent: Vec<_> = outbox.iter().map(|datagram| datagram.bytes).collect();
    assert_eq!(sent, [&b"a"[..], b"b", b"c"]);
}
