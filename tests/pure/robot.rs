//! The robot 小Zurich against its rules as prose states them, and the rule engine under it against
//! the `regex` crate.

use std::fmt::Display;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use regex::{Captures, Regex};
use rejoinder::bot::{Robot, RuleError, zurich};
use rejoinder::codec::{Ctime, Text};
use rejoinder::transport::{Meta, Outbox};
use rejoinder::{Codec, Context, Handler, Reply, Timestamp, Writer};

static ZURICH: LazyLock<Robot> = LazyLock::new(zurich);

const FALLBACK: &str = "啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~";

/// What 小Zurich should say, before and after the substitution, by the rules as they are written
/// down: no regular expression, no table but the one below.
fn by_the_rules(request: &str) -> (String, String) {
    let chars: Vec<char> = request.chars().collect();
    let middle = (chars.first() == Some(&'你'))
        .then(|| {
            // Where the question ends: as far right as it can be reached without a digit.
            let reachable = chars.iter().position(|c| is_decimal_digit(*c));
            (2..chars.len())
                .rev()
                .filter(|end| reachable.is_none_or(|digit| *end <= digit))
                .find(|end| chars[*end..].starts_with(&['吗', '？']))
        })
        .flatten()
        .map(|end| &chars[1..end]);
    let before = match middle {
        Some(middle) => format!("【机器人】小Zurich {}!", String::from_iter(middle)),
        None => FALLBACK.to_owned(),
    };
    let mut after = String::new();
    for c in before.chars() {
        match c {
            '我' => after.push_str("自己"),
            other => after.push(other),
        }
    }
    (before, after)
}

/// Unicode's general category Nd, as of Unicode 16.0, which `regex-syntax` 0.8 has.
fn is_decimal_digit(c: char) -> bool {
    ZEROES
        .iter()
        .any(|zero| (*zero..*zero + 10).contains(&u32::from(c)))
}

/// The zero of every script; nine digits follow each. (`UnicodeData.txt`, category Nd.)
#[rustfmt::skip]
const ZEROES: [u32; 76] = [
    0x0030, 0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6,
    0x0D66, 0x0DE6, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80,
    0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0,
    0xFF10, 0x104A0, 0x10D30, 0x10D40, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450,
    0x114D0, 0x11650, 0x116C0, 0x116D0, 0x116DA, 0x11730, 0x118E0, 0x11950, 0x11BF0, 0x11C50,
    0x11D50, 0x11DA0, 0x11F50, 0x16130, 0x16A60, 0x16AC0, 0x16B50, 0x16D70, 0x1CCF0,
    0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E4F0, 0x1E5F1, 0x1E950,
    0x1FBF0,
];

fn said(robot: &Robot, request: &str) -> (String, String) {
    let answer = robot.answer(request);
    (answer.before_substitution().to_string(), answer.to_string())
}

#[test]
#[cfg_attr(miri, ignore = "tries every character")]
fn the_digits_of_this_test_are_those_of_the_regular_expressions() {
    let digit = Regex::new(r"^\d$").unwrap();
    for c in '\0'..=char::MAX {
        assert_eq!(
            is_decimal_digit(c),
            digit.is_match(c.encode_utf8(&mut [0; 4])),
            "{c:?}"
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "tries every character")]
fn every_digit_and_no_other_character_breaks_the_question() {
    for c in '\0'..=char::MAX {
        let request = format!("你好{c}吗？");
        assert_eq!(said(&ZURICH, &request), by_the_rules(&request), "{c:?}");
        assert_eq!(said(&ZURICH, &request).0 == FALLBACK, is_decimal_digit(c));
    }
}

#[test]
fn zurich_answers_as_documented() {
    for (request, before, after) in [
        (
            "你好吗？",
            "【机器人】小Zurich 好!",
            "【机器人】小Zurich 好!",
        ),
        (
            "你觉得我是最帅最帅的吗？",
            "【机器人】小Zurich 觉得我是最帅最帅的!",
            "【机器人】小Zurich 觉得自己是最帅最帅的!",
        ),
        (
            "你自己把自己丑哭了吗？",
            "【机器人】小Zurich 自己把自己丑哭了!",
            "【机器人】小Zurich 自己把自己丑哭了!",
        ),
        // The middle is greedy, and what follows is ignored.
        (
            "你好吗？吗？吗",
            "【机器人】小Zurich 好吗？!",
            "【机器人】小Zurich 好吗？!",
        ),
        (
            "你\n吗？1",
            "【机器人】小Zurich \n!",
            "【机器人】小Zurich \n!",
        ),
        (
            "你吗？吗？",
            "【机器人】小Zurich 吗？!",
            "【机器人】小Zurich 吗？!",
        ),
        (
            "你好吗？1吗？",
            "【机器人】小Zurich 好!",
            "【机器人】小Zurich 好!",
        ),
        ("你{1}吗？", FALLBACK, FALLBACK),
        (
            "你{}$s\\吗？",
            "【机器人】小Zurich {}$s\\!",
            "【机器人】小Zurich {}$s\\!",
        ),
        ("你好吗?", FALLBACK, FALLBACK),
        ("你吗？", FALLBACK, FALLBACK),
        ("你１吗？", FALLBACK, FALLBACK),
        (" 你好吗？", FALLBACK, FALLBACK),
        ("", FALLBACK, FALLBACK),
    ] {
        assert_eq!(
            said(&ZURICH, request),
            (before.to_owned(), after.to_owned()),
            "{request:?}"
        );
        assert_eq!(
            said(&ZURICH, request),
            by_the_rules(request),
            "the rules of this test, {request:?}"
        );
    }
}

/// Pieces from which requests are made that come close to what matters.
fn pieces() -> impl Strategy<Value = String> {
    let telling = select(vec![
        "你",
        "吗？",
        "吗?",
        "吗",
        "？",
        "?",
        "我",
        "我我",
        "自己",
        "吗？吗？",
        "你好吗？",
        "\n",
        "\r\n",
        "\0",
        " ",
        "好",
        "{1}",
        "{0}",
        "{{",
        "}}",
        "{",
        "$1",
        "${1}",
        r"\1",
        r"\d",
        "%s",
        "%",
        "\\",
        "e\u{301}",
        "\u{fe0f}",
        "👩\u{200d}💻",
        "🤖",
        "\u{2028}",
        "²",
        "½",
        "一",
        "四",
        "Ⅳ",
        "①",
        "౸",
        "妳",
        "嗎？",
        "吗\u{301}？",
        "\u{ff1e}",
        "\u{ff20}",
        "\u{10ffff}",
        "\u{d7ff}",
        "[b'",
        "【机器人】",
    ])
    .prop_map(str::to_owned);
    let digit = (select(ZEROES.to_vec()), 0..10_u32)
        .prop_map(|(zero, value)| char::from_u32(zero + value).unwrap().to_string());
    prop_oneof![
        20 => telling,
        1 => digit,
        3 => any::<char>().prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 30 } else { 30_000 }))]

    #[test]
    fn zurich_keeps_the_rules(start in select(vec!["你", "你", "你", "你好", "", "我", "\u{feff}你"]),
                              middle in vec(pieces(), 0..12),
                              end in select(vec!["吗？", "吗？", "", "吗？我", "吗?"])) {
        let request = format!("{start}{}{end}", middle.concat());
        prop_assert_eq!(said(&ZURICH, &request), by_the_rules(&request));
    }
}

#[test]
fn me_is_replaced_in_every_position() {
    for len in (1..40).step_by(if cfg!(miri) { 13 } else { 1 }) {
        for at in 0..len {
            let mut middle = vec!['好'; len];
            middle[at] = '我';
            let request = format!("你{}吗？", String::from_iter(middle));
            assert_eq!(said(&ZURICH, &request), by_the_rules(&request));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "searches nearly 64 KiB")]
fn a_request_of_the_greatest_length_is_answered() {
    let request = format!("你{}吗？", "我".repeat((65_507 - 9) / 3));
    assert_eq!(said(&ZURICH, &request), by_the_rules(&request));
    let request = format!("你{}", "吗".repeat(21_000));
    assert_eq!(said(&ZURICH, &request), by_the_rules(&request));
}

#[test]
fn an_answer_displays_through_a_trait_object_and_a_codec() {
    let answer = ZURICH.answer("你爱我吗？");
    let answer: &dyn Display = &answer;
    assert_eq!(format!("{answer}"), "【机器人】小Zurich 爱自己!");

    let mut space = [0; 128];
    let mut out = Writer::new(&mut space);
    let now = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH);
    Ctime::utc()
        .encode_response(now, "你爱我吗？".as_bytes(), answer, &mut out)
        .unwrap();
    let len = out.finish().unwrap();
    assert_eq!(
        str::from_utf8(&space[..len]),
        Ok("[b'Thu Jan  1 00:00:00 1970']【机器人】小Zurich 爱自己!")
    );
}

#[test]
fn a_robot_sends_exactly_one_reply() {
    let peer = "192.0.2.1:7".parse().unwrap();
    let context = Context::new(&Meta::new(peer), Timestamp::system());
    let mut outbox = Outbox::new(4, 128);
    for request in ["你好吗？", "", "什么"] {
        outbox.clear();
        let mut reply = Reply::new(&Text, request.as_bytes(), &context, &mut outbox);
        Handler::<Text>::handle(&*ZURICH, request, &context, &mut reply).unwrap();
        let replies: Vec<_> = outbox.iter().map(|reply| reply.bytes.to_vec()).collect();
        assert_eq!(replies, [by_the_rules(request).1.into_bytes()]);
    }
}

fn one_rule(pattern: &str, template: &str) -> Robot {
    Robot::builder()
        .rule(pattern, template)
        .fallback("(none)")
        .build()
        .unwrap()
}

#[test]
fn the_first_rule_that_matches_answers() {
    let robot = Robot::builder()
        .rule("ab", "first")
        .rule("a", "second")
        .rule("abc", "never")
        .rule("", "any {0}")
        .build()
        .unwrap();
    for (request, answer) in [
        ("abc", "first"),
        ("ac", "second"),
        ("bab", "any "),
        ("", "any "),
    ] {
        assert_eq!(robot.answer(request).to_string(), answer, "{request}");
    }
}

#[test]
fn a_pattern_matches_at_the_very_beginning_only() {
    for (pattern, request, answer) in [
        ("a|b", "ca", "(none)"),
        ("a|b", "cb", "(none)"),
        ("a|b", "b", "<b>"),
        ("", "x", "<>"),
        ("(?x) a b # not c", "abc", "<ab>"),
        ("(?x) a b # not c", "xab", "(none)"),
        ("(?x)a # |", "b", "(none)"),
        ("(?i)ÄB", "äbc", "<äb>"),
        ("(?i)k", "\u{212a}x", "<\u{212a}>"),
        ("(?m)^a", "b\na", "(none)"),
        ("(?m)b$", "b\na", "<b>"),
        ("(?s).+", "a\nb", "<a\nb>"),
        (".+", "a\nb", "<a>"),
        ("(?U)a+", "aaa", "<a>"),
        (r"\bé\b", "é.", "<é>"),
        (r"\bé\b", "éa", "(none)"),
        (r"a\z", "ab", "(none)"),
        (r"[a&&b]", "a", "(none)"),
        ("a|ab", "ab", "<a>"),
    ] {
        let robot = one_rule(pattern, "<{0}>");
        assert_eq!(
            robot.answer(request).to_string(),
            answer,
            "{pattern} on {request:?}"
        );
    }
}

#[test]
fn a_template_names_its_groups() {
    for (pattern, template, request, answer) in [
        ("(a)(b)", "{2}{1}{0}", "ab", "baab"),
        ("(?<x>a)(?P<y>b)", "{y}{x}{2}{1}", "ab", "baba"),
        ("(a)|(b)", "[{1}{2}]", "b", "[b]"),
        ("(a)?b", "[{1}]", "b", "[]"),
        ("(a)", "{{{1}}} {{1}} }}{{", "a", "{a} {1} }{"),
        ("(?<é>.)", "{é}", "ß", "ß"),
        ("((a)b)(?:c(d))", "{1}-{2}-{3}", "abcd", "ab-a-d"),
        ("(?:(a)|b)+", "{1}", "ab", "a"),
        // A group that nothing is left of keeps its number.
        ("(a){0}(b)", "[{1}][{2}]", "b", "[][b]"),
        ("(.)", "$1 \\1 %s {1}", "x", "$1 \\1 %s x"),
        ("(.+)", "{1}", "{0}{1}", "{0}{1}"),
        ("a", "", "a", ""),
    ] {
        assert_eq!(
            one_rule(pattern, template).answer(request).to_string(),
            answer,
            "{pattern} with {template} on {request}"
        );
    }
}

#[test]
fn a_pattern_may_have_more_groups_than_fit_on_the_stack() {
    let pattern = "(?:(.)|x)".repeat(20);
    let template = "{20}{18}{1}{19}{2}";
    let request: String = ('a'..='t').collect();
    assert_eq!(
        one_rule(&pattern, template).answer(&request).to_string(),
        "trasb"
    );
}

#[test]
#[cfg_attr(miri, ignore = "builds a large automaton")]
fn a_pattern_with_a_large_automaton_works_all_the_same() {
    let robot = one_rule(r"(\w+) (?:\w{20} )?(\pL{10,30})!", "{2} {1}");
    assert_eq!(
        robot.answer("很好 абвгдеёжзий!").to_string(),
        "абвгдеёжзий 很好"
    );
    assert_eq!(robot.answer("很好 абв!").to_string(), "(none)");
}

#[test]
fn the_fallback_is_literal() {
    let robot = Robot::builder().fallback("{1}{{").build().unwrap();
    assert_eq!(robot.answer("x").to_string(), "{1}{{");
    assert_eq!(
        Robot::builder().build().unwrap().answer("x").to_string(),
        ""
    );
}

/// What a rule's pattern matches: with a `$`, also what stands before the text's line end.
fn captures<'t>(regex: &Regex, text: &'t str) -> Option<Captures<'t>> {
    let second_try = || {
        let line = text
            .strip_suffix('\n')
            .filter(|_| regex.as_str().contains('$'))?;
        regex.captures(line.strip_suffix('\r').unwrap_or(line))
    };
    regex.captures(text).or_else(second_try)
}

/// Parts of patterns, whose combinations have groups with fixed margins and without, nested,
/// repeated and left out, and conditions of no width.
fn patterns() -> impl Strategy<Value = String> {
    let part = select(vec![
        "a",
        "b+",
        "é",
        "(a)",
        "(b+)",
        "(é*)",
        "(?:a(b))",
        "((a)b?)",
        "(a|é)",
        "(?:a|(b))",
        "(b)*",
        "(b)?",
        "(a){0}",
        "(a){2}",
        "(?:(b)é)+",
        "(?i:k)",
        "((?i)K)",
        "([^a])",
        r"\b",
        r"(\B)",
        "^",
        "$",
        "(?m:$)",
        "(?m:(^)b?)",
        "(.)",
        "(?s:(.+?))",
        "|",
        "()",
        "[ab]{2}",
        "(?U:(b+))",
        r"\n",
        "(?R:(.)$)",
    ]);
    vec(part, 1..6).prop_map(|parts| parts.concat())
}

fn short_text() -> impl Strategy<Value = String> {
    vec(
        select(vec!["a", "b", "é", "k", "K", "\u{212a}", "\n", "\r\n"]),
        0..8,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 250 }))]

    #[test]
    fn groups_are_those_of_the_regular_expression(pattern in patterns(), texts in vec(short_text(), 8)) {
        let reference = Regex::new(&format!(r"\A(?:{pattern})")).unwrap();
        let groups = reference.captures_len();
        let mut templates: Vec<String> = (0..groups).map(|group| format!("<{{{group}}}>")).collect();
        templates.push(templates.concat());
        for template in templates {
            let robot = one_rule(&pattern, &template);
            for text in &texts {
                let expected = captures(&reference, text).map_or("(none)".to_owned(), |captures| {
                    let mut expected = template.clone();
                    for group in 0..groups {
                        let found = captures.get(group).map_or("", |found| found.as_str());
                        expected = expected.replace(&format!("{{{group}}}"), found);
                    }
                    expected
                });
                prop_assert_eq!(robot.answer(text).to_string(), expected, "{} with {} on {:?}", pattern, template, text);
            }
        }
    }

    #[test]
    fn substitutions_are_made_in_one_pass(
        pairs in proptest::collection::hash_map("[abé我]{1,3}", "[abé我]{0,3}", 0..5),
        first in "[abé我 ]{0,8}",
        literal in "[abé我]{0,4}",
        second in "[abé我]{0,8}",
    ) {
        let pairs: Vec<(String, String)> = pairs.into_iter().collect();
        let robot = pairs.iter().fold(
            Robot::builder().rule("(.*)/(.*)", format!("{{1}}{literal}{{2}}")).fallback(&literal),
            |builder, (from, to)| builder.substitute(from, to),
        ).build().unwrap();
        let request = format!("{first}/{second}");
        let whole = format!("{first}{literal}{second}");
        prop_assert_eq!(said(&robot, &request), (whole.clone(), substituted(&whole, &pairs)));
        prop_assert_eq!(said(&robot, "none"), (literal.clone(), substituted(&literal, &pairs)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 300 }))]

    /// Patterns of the form that the robot matches by itself, and of forms that are nearly that.
    #[test]
    fn runs_of_a_class_end_where_those_of_the_regular_expression_end(
        prefix in select(vec!["", "", "a", "你", "(?:)", "^"]),
        class in select(vec![
            r"\D", ".", "(?s:.)", "[^a]", "[a-zé]", r"[^\x00-\x7f]", r"\S", "[吗？]", "[^吗？]", "[a我]",
            r"[^\u{1f900}-\u{1f9ff}]", r"[a-z\u{6000}-\u{6fff}]", "[a&&b]", r"(?-u:\d)", "(?i:[ak])",
        ]),
        repeat in select(vec!["+", "+", "*", "*", "+?", "*?", "{2,}", "{1,3}", ""]),
        group in any::<bool>(),
        suffix in select(vec!["", "", "a", "吗？", "1", "aa", "(b)?", "$"]),
        texts in vec(
            vec(select(vec!["a", "b", "k", "1", "你", "我", "吗", "？", "吗？", "é", "\n", "🤖", "١", "\u{212a}"]), 0..9)
                .prop_map(|parts| parts.concat()),
            32,
        ),
    ) {
        let run = format!("{class}{repeat}");
        let run = if group { format!("({run})") } else { run };
        let pattern = format!("{prefix}{run}{suffix}");
        let reference = Regex::new(&format!(r"\A(?:{pattern})")).unwrap();
        let template = if group { "<{0}|{1}>" } else { "<{0}>" };
        let robot = one_rule(&pattern, template);
        for text in texts {
            for text in [text.clone(), format!("{prefix}{text}"), format!("{prefix}{text}{suffix}")] {
                let expected = captures(&reference, &text).map_or("(none)".to_owned(), |captures| {
                    match captures.get(1).filter(|_| group) {
                        Some(run) => format!("<{}|{}>", &captures[0], run.as_str()),
                        None => format!("<{}>", &captures[0]),
                    }
                });
                prop_assert_eq!(robot.answer(&text).to_string(), expected, "{} on {:?}", pattern, text);
            }
        }
    }
}

/// From left to right, the longest that fits, and nothing twice.
fn substituted(text: &str, pairs: &[(String, String)]) -> String {
    let mut rest = text;
    let mut result = String::new();
    while let Some(next) = rest.chars().next() {
        let fitting = pairs
            .iter()
            .filter(|(from, _)| rest.starts_with(from.as_str()));
        if let Some((from, to)) = fitting.max_by_key(|(from, _)| from.len()) {
            result.push_str(to);
            rest = &rest[from.len()..];
        } else {
            result.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    result
}

#[test]
fn two_texts_can_be_swapped_and_reach_over_borders() {
    let robot = Robot::builder()
        .rule("(.+)!", "{1}b{1}")
        .fallback("ab")
        .substitute("a", "b")
        .substitute("b", "a")
        .substitute("bc", "-")
        .build()
        .unwrap();
    assert_eq!(said(&robot, "ca!"), ("cabca".to_owned(), "cb-b".to_owned()));
    assert_eq!(said(&robot, "x"), ("ab".to_owned(), "ba".to_owned()));
}

#[test]
fn an_answer_displays_the_same_again() {
    let robot = Robot::builder()
        .rule("(?:(a)|b)+", "{1}{1}")
        .substitute("aa", "ä")
        .build()
        .unwrap();
    let answer = robot.answer("ab");
    for _ in 0..3 {
        assert_eq!(answer.to_string(), "ä");
        assert_eq!(answer.before_substitution().to_string(), "aa");
        assert_eq!(format!("{answer}{answer}"), "ää");
    }
}

#[test]
#[cfg_attr(miri, ignore = "builds a large automaton")]
fn a_bad_pattern_is_an_error_with_its_place() {
    for (pattern, at) in [
        ("(", 0),
        ("你(", 3),
        ("*", 0),
        (r"a\？", 1),
        ("a{1001}{1001}{1001}", 0),
        (r"a(?-u:\xff)", 6),
        ("(?<a>.)(?<a>.)", 10),
        ("(?=a)", 0),
        ("a\n[z-a]", 3),
        (r"\pX", 0),
    ] {
        let error = Robot::builder()
            .rule("fine", "")
            .rule(pattern, "")
            .build()
            .unwrap_err();
        assert!(
            matches!(&error, RuleError::Pattern { rule: 2, offset, problem }
                if *offset == at && !problem.is_empty()),
            "{pattern}: {error:?}"
        );
        let message = error.to_string();
        assert!(message.starts_with(&format!("rule 2: bad pattern at byte {at}: ")));
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_bad_template_is_an_error_with_its_place() {
    for (template, at) in [
        ("{", 0),
        ("é{1}{", 5),
        ("}", 0),
        ("{{}", 2),
        ("{1}}", 3),
        ("{2}", 0),
        ("{0}{x}", 3),
        ("{1}{}", 3),
        ("{-1}", 0),
        ("{+1}", 0),
        ("{ 1}", 0),
        ("{99999999999999999999999}", 0),
        ("我{{{y}}}", 5),
    ] {
        let error = Robot::builder()
            .rule("fine", "{0}")
            .rule("(?<z>a)", template)
            .build()
            .unwrap_err();
        assert!(
            matches!(error, RuleError::Template { rule: 2, offset, .. } if offset == at),
            "{template}: {error:?}"
        );
    }
}

#[test]
fn a_bad_substitution_is_an_error_with_its_text() {
    for (pairs, bad) in [
        (&[("a", "b"), ("", "x")][..], ""),
        (&[("a", "b"), ("c", "d"), ("a", "b")], "a"),
    ] {
        let builder = pairs.iter().fold(Robot::builder(), |builder, (from, to)| {
            builder.substitute(*from, *to)
        });
        let error = builder.build().unwrap_err();
        assert!(
            matches!(&error, RuleError::Substitution { from, .. } if from == bad),
            "{error:?}"
        );
    }
}
