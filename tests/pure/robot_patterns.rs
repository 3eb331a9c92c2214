//! Patterns: flags, regular expressions of the caller's own, computed answers, and `$`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use regex::{Captures, Regex, RegexBuilder};
use rejoinder::bot::{Robot, Rule, RuleError, RulePattern};

fn answer(robot: &Robot, request: &str) -> String {
    robot.answer(request).to_string()
}

/// The flags of a pattern, in the order of `set_rule`.
type Flags = [bool; 7];

const NO_FLAGS: Flags = [false, false, false, false, false, false, true];

fn rule_with(rule: Rule, flags: Flags) -> Rule {
    let [case, lines, dot, crlf, space, greed, unicode] = flags;
    rule.case_insensitive(case)
        .multi_line(lines)
        .dot_matches_new_line(dot)
        .crlf(crlf)
        .ignore_whitespace(space)
        .swap_greed(greed)
        .unicode(unicode)
}

fn regex_with(pattern: &str, flags: Flags) -> Result<Regex, regex::Error> {
    let [case, lines, dot, crlf, space, greed, unicode] = flags;
    RegexBuilder::new(pattern)
        .case_insensitive(case)
        .multi_line(lines)
        .dot_matches_new_line(dot)
        .crlf(crlf)
        .ignore_whitespace(space)
        .swap_greed(greed)
        .unicode(unicode)
        .build()
}

fn pattern() -> impl Strategy<Value = String> {
    let part = select(vec![
        "a",
        "b",
        "ab",
        "你",
        "é",
        " ",
        "K",
        "(a)",
        "(b+)",
        "(?<x>你)",
        "(?:a|b)",
        "(?:ab|(你))",
        "(.)",
        ".*",
        ".*?",
        "(.+)",
        "[^a]",
        "[ab]",
        r"\b",
        r"\B",
        "^",
        "$",
        r"\z",
        r"\A",
        "(a)?",
        "(?:你)*",
        "a{0}",
        "|",
        "()",
        r"\D+",
        r"\w",
        r"(\w+)",
        r"\s",
        r"\n",
        r"\r",
        "((a)(.*))",
        "(?:a{1,3}b)+",
        r"\pL",
        "(?m:^)",
        "(?m:$)",
        "(?i:é)",
        r"\b{start}",
        r"\b{end-half}",
        "[a&&b]",
        r"(\S+)",
        "你(.+)吗",
    ]);
    vec(part, 1..5).prop_map(|parts| parts.concat())
}

fn text() -> impl Strategy<Value = String> {
    let part = select(vec![
        "a", "b", "ab", "A", "B", "你", "吗", "é", "É", "k", "\u{212a}", "K", "\n", "\r\n", " ",
        "1", "_",
    ]);
    vec(part, 0..10).prop_map(|parts| parts.concat())
}

/// No flag, each one alone, and any.
fn flags() -> impl Strategy<Value = Flags> {
    let one = (0..7_usize).prop_map(|flag| {
        let mut flags = NO_FLAGS;
        flags[flag] = !flags[flag];
        flags
    });
    prop_oneof![Just(NO_FLAGS), one, any::<Flags>()]
}

/// A robot in which this rule is the one in the middle of as many as are asked for.
fn among(count: usize, rule: Rule) -> Result<Robot, RuleError> {
    let other = |number| Rule::new(format!("other {number}"), "").anywhere();
    let before = (0..count / 2).map(other);
    let after = (count / 2 + 1..count).map(other);
    let rules = before.chain([rule]).chain(after);
    Robot::builder().rules(rules).fallback("-").build()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 500 }))]

    #[test]
    fn a_text_and_the_same_regex_find_and_capture_the_same(
        pattern in pattern(), flags in flags(), anywhere in any::<bool>(), texts in vec(text(), 8),
    ) {
        let regex = regex_with(&pattern, flags);
        let groups = regex.as_ref().map_or(1, Regex::captures_len);
        let template: Vec<String> = (0..groups).map(|group| format!("<{{{group}}}>")).collect();
        let template = template.concat();
        let rule = |pattern: RulePattern| {
            let rule = Rule::new(pattern, template.clone());
            if anywhere { rule.anywhere() } else { rule }
        };
        for count in [1, 20] {
            let by_text = among(count, rule_with(rule(pattern.as_str().into()), flags));
            let Ok(regex) = &regex else {
                prop_assert!(by_text.is_err(), "{pattern} {flags:?}");
                continue;
            };
            let by_text = by_text.unwrap();
            let by_regex = among(count, rule(regex.into())).unwrap();
            // And what the `regex` crate itself says.
            let search = |text: &str| {
                let captures = regex.captures(text).filter(|found| anywhere || found.get(0).is_some_and(|all| all.start() == 0))?;
                let group = |group| captures.get(group).map_or("", |found| found.as_str());
                let shown: Vec<String> = (0..groups).map(|number| format!("<{}>", group(number))).collect();
                Some(shown.concat())
            };
            for text in &texts {
                let line = text.strip_suffix('\n').filter(|_| pattern.contains('$'));
                let line = line.map(|line| line.strip_suffix('\r').unwrap_or(line));
                let expected = search(text).or_else(|| search(line?)).unwrap_or("-".into());
                prop_assert_eq!(&answer(&by_text, text), &expected, "{} {:?} on {:?} among {}", pattern, flags, text, count);
                prop_assert_eq!(&answer(&by_regex, text), &expected, "Regex {} {:?} on {:?} among {}", pattern, flags, text, count);
                prop_assert_eq!(by_text.answer(text).rule(), by_regex.answer(text).rule());
            }
        }
    }
}

#[test]
fn a_dollar_matches_before_one_line_end_of_the_request() {
    for (pattern, anywhere, request, expected) in [
        ("帮助$", false, "帮助", "<帮助>"),
        ("帮助$", false, "帮助\n", "<帮助>"),
        ("帮助$", false, "帮助\r\n", "<帮助>"),
        ("帮助$", false, "帮助\n\n", "-"),
        ("帮助$", false, "帮助\r", "-"),
        ("帮助$", false, "帮助\nx", "-"),
        ("a(.+)b$", false, "a1b\n", "<a1b>"),
        ("助$", true, "帮助\r\n", "<助>"),
        ("^$", false, "\n", "<>"),
        // What matches the whole request is not tried again.
        ("(?s)a.*$", false, "ab\n", "<ab\n>"),
        ("a\n$", false, "a\n", "<a\n>"),
        // Only `$` has a second try, and `[$]` is none.
        (r"a\z", false, "a\n", "-"),
        (r"[$]a\z", false, "$a\n", "-"),
        (r"\$a\z", false, "$a\n", "-"),
        ("a", false, "a\n", "<a>"),
    ] {
        for count in [1, 20] {
            for pattern in [
                pattern.into(),
                RulePattern::from(Regex::new(pattern).unwrap()),
            ] {
                let rule = Rule::new(pattern.clone(), "<{0}>");
                let rule = if anywhere { rule.anywhere() } else { rule };
                let robot = among(count, rule).unwrap();
                assert_eq!(
                    answer(&robot, request),
                    expected,
                    "{pattern:?} on {request:?}"
                );
            }
        }
    }
}

#[test]
fn a_regex_keeps_the_flags_that_it_was_built_with() {
    let regex = RegexBuilder::new("HELLO (.)")
        .case_insensitive(true)
        .build()
        .unwrap();
    let robot = among(20, Rule::new(&regex, "{1}")).unwrap();
    assert_eq!(answer(&robot, "hello 你"), "你");
    let error = among(1, Rule::new(regex, "{1}").multi_line(true)).unwrap_err();
    assert!(
        matches!(&error, RuleError::Pattern { rule: 1, offset: 0, problem } if problem.contains("RegexBuilder")),
        "{error}"
    );
}

#[test]
fn a_template_of_a_regex_is_checked_like_any_other() {
    let regex = Regex::new("(?<x>a)(b)").unwrap();
    for (template, is_good) in [("{x}{2}{0}", true), ("{3}", false), ("{y}", false)] {
        let robot = among(1, Rule::new(&regex, template));
        assert_eq!(robot.is_ok(), is_good, "{template}");
    }
}

#[test]
fn unicode_can_be_turned_off_where_a_match_is_still_text() {
    let rule = |pattern| among(1, Rule::new(pattern, "<{0}>").unicode(false));
    assert_eq!(answer(&rule(r"\w+").unwrap(), "abcé"), "<abc>");
    assert_eq!(answer(&rule("(?i)k+").unwrap(), "kK\u{212a}"), "<kK>");
    for pattern in [".", r"\D", "[^a]", r"\xff"] {
        let error = rule(pattern).unwrap_err();
        assert!(
            matches!(error, RuleError::Pattern { rule: 1, .. }),
            "{pattern}"
        );
    }
}

fn sum(groups: &Captures<'_>) -> u64 {
    let number = |group: usize| groups[group].parse::<u64>().unwrap_or(0);
    number(1) + number(2)
}

#[test]
fn an_answer_can_be_computed() {
    let regex = Regex::new(r"([0-9]+)\+([0-9]+)$").unwrap();
    for count in [1, 20] {
        let robot = among(count, Rule::computed(regex.clone(), sum)).unwrap();
        for (request, expected) in [
            ("2+40", "42"),
            ("2+40\r\n", "42"),
            ("2+", "-"),
            ("= 2+40", "-"),
        ] {
            assert_eq!(answer(&robot, request), expected, "{request}");
        }
    }
    let anywhere = among(1, Rule::computed(regex, sum).anywhere()).unwrap();
    assert_eq!(answer(&anywhere, "1+1 and 2+3"), "5");
}

#[test]
fn an_answer_is_computed_once_and_substituted() {
    let calls = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&calls);
    let rule = Rule::computed(Regex::new("我").unwrap(), move |_| {
        counting.fetch_add(1, Ordering::Relaxed);
        "我和你"
    });
    for (from, to, expected) in [("我", "自己", "自己和你"), ("我和", "我们", "我们你")]
    {
        let robot = Robot::builder()
            .rules([rule.clone()])
            .substitute(from, to)
            .build()
            .unwrap();
        calls.store(0, Ordering::Relaxed);
        let answer = robot.answer("我");
        assert_eq!(answer.to_string(), expected);
        assert_eq!(answer.before_substitution().to_string(), "我和你");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_computed_answer_may_have_templates_beside_it() {
    let rule = Rule::computed(Regex::new("(.+)").unwrap(), |groups| groups[1].len());
    let robot = among(1, rule.or_template("{1}")).unwrap();
    let mut kinds = [0; 2];
    for number in 0..100 {
        let request = format!("request {number}");
        let answer = answer(&robot, &request);
        assert!(answer == request || answer == request.len().to_string());
        kinds[usize::from(answer == request)] += 1;
    }
    assert!(kinds.iter().all(|count| *count > 20), "{kinds:?}");
}
