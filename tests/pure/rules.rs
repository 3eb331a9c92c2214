//! What a robot's rules can do: several templates, matches anywhere, words reflected, many rules.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use regex::{Captures, Regex};
use rejoinder::bot::{Robot, Rule, RuleError};
use rejoinder::codec::Text;
use rejoinder::transport::{MAX_DATAGRAM_BYTES, Meta, Outbox};
use rejoinder::{Context, Handler, Reply, Timestamp};

fn answer(robot: &Robot, request: &str) -> String {
    robot.answer(request).to_string()
}

/// A rule that answers with the number of the template.
fn numbered(pattern: &str, templates: usize) -> Rule {
    (1..templates).fold(Rule::new(pattern, "0"), |rule, number| {
        rule.or_template(number.to_string())
    })
}

/// SipHash-2-4 under the key 0, computed by another implementation, which was checked with the test
/// vector of the paper. Should these ever change, retransmissions that meet an update in between
/// would get two answers.
const HASHES: [(&str, u64); 9] = [
    ("", 0x1e92_4b9d_7377_00d7),
    ("hi", 0x83c7_8ce6_2776_003d),
    ("hello", 0x8cc1_5d5d_b2f7_52b9),
    ("Hello", 0xa616_1360_58c4_be1a),
    ("abcdefgh", 0xe65b_a172_cce2_2193),
    ("abcdefghi", 0x5327_3c4a_18d0_258c),
    ("你好", 0xae86_b6aa_cbe7_4799),
    ("你好吗？", 0xcd71_a375_986a_aaf0),
    ("👩\u{200d}💻", 0xf5a2_fc67_f2a3_9707),
];

#[test]
fn the_template_is_chosen_by_a_published_hash_of_the_request() {
    for templates in 1..=9 {
        let robot = Robot::builder()
            .rules([numbered("(?s).*", templates)])
            .build()
            .unwrap();
        for (request, hash) in HASHES {
            assert_eq!(
                answer(&robot, request),
                (hash % templates as u64).to_string(),
                "{request:?}, {templates} templates"
            );
        }
    }
}

#[test]
fn a_fallback_is_chosen_like_a_template() {
    let robot = (0..5).fold(Robot::builder().rule("never$", "x"), |builder, number| {
        builder.fallback(number.to_string())
    });
    let robot = robot.build().unwrap();
    for (request, hash) in HASHES {
        assert_eq!(answer(&robot, request), (hash % 5).to_string());
    }
    assert_eq!(robot.fallback().to_string(), "0");
}

#[test]
#[cfg_attr(miri, ignore = "a share needs many requests")]
fn every_template_has_its_turn_and_a_retransmission_gets_the_same_answer() {
    let robot = Robot::builder()
        .rules([numbered("(?s).*", 7)])
        .build()
        .unwrap();
    let again = robot.clone();
    let mut counts = BTreeMap::<_, u32>::new();
    for number in 0..7_000 {
        let request = format!("request {number}");
        let first = answer(&robot, &request);
        assert_eq!(answer(&robot, &request), first);
        assert_eq!(answer(&again, &request), first);
        *counts.entry(first).or_default() += 1;
    }
    assert_eq!(counts.len(), 7);
    assert!(
        counts.values().all(|count| (800..1_200).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn each_template_has_groups_of_its_own() {
    let rule = Rule::new("(?<a>.)(?:([^-])|-)(.)?", "{1}")
        .or_template("{2}{~3}")
        .or_template("{a}{3}{2}{0}");
    let robot = Robot::builder()
        .rules([rule])
        .reflect("x", "y")
        .build()
        .unwrap();
    let answers: BTreeSet<String> = (0..100)
        .flat_map(|number| {
            [
                answer(&robot, &format!("abx {number}")),
                answer(&robot, &format!("a-x{number}")),
            ]
        })
        .collect();
    let expected = ["a", "by", "axbabx", "y", "axa-x"].map(str::to_owned);
    assert_eq!(answers, BTreeSet::from(expected));
}

#[test]
fn a_rule_matches_anywhere_only_if_asked_to() {
    for (pattern, request, at_start, anywhere) in [
        ("b", "abc", "-", "<b>"),
        ("", "abc", "<>", "<>"),
        ("b|abc", "abc", "<abc>", "<abc>"),
        ("b.|bcd", "abcd", "-", "<bc>"),
        ("(?m)^b", "a\nb", "-", "<b>"),
        ("^b", "a\nb", "-", "-"),
        (r"\Bc", "a c bc", "-", "<c>"),
        ("吗？", "你好吗？", "-", "<吗？>"),
        ("好(.*)吗", "你好我好吗", "-", "<好我好吗>"),
        ("b*", "abb", "<>", "<>"),
        ("x", "", "-", "-"),
        ("$", "", "<>", "<>"),
        ("$", "你", "-", "<>"),
        ("👩", "a👩\u{200d}💻", "-", "<👩>"),
    ] {
        let robot = |rule: Rule| {
            Robot::builder()
                .rules([rule])
                .fallback("-")
                .build()
                .unwrap()
        };
        let rule = Rule::new(pattern, "<{0}>");
        assert_eq!(answer(&robot(rule.clone()), request), at_start, "{pattern}");
        assert_eq!(
            answer(&robot(rule.anywhere()), request),
            anywhere,
            "{pattern}, anywhere"
        );
    }
}

#[test]
fn the_number_of_the_rule_that_answers_is_told() {
    let robot = Robot::builder()
        .rule("a", "")
        .rules([Rule::new("b", "").anywhere(), Rule::new("a", "")])
        .rule("c", "")
        .build()
        .unwrap();
    for (request, rule) in [
        ("ab", Some(1)),
        ("cb", Some(2)),
        ("c", Some(4)),
        ("d", None),
    ] {
        assert_eq!(robot.answer(request).rule(), rule, "{request}");
    }
    assert_eq!(robot.fallback().rule(), None);
}

/// A robot that repeats the request, with these reflections.
fn reflecting(pairs: &[(&str, &str)]) -> Robot {
    let builder = Robot::builder().rule("(?s)(.*)", "{~1}");
    let builder = pairs
        .iter()
        .fold(builder, |builder, (from, to)| builder.reflect(*from, *to));
    builder.build().unwrap()
}

#[test]
fn words_are_reflected_in_one_pass() {
    let robot = reflecting(&[
        ("I", "you"),
        ("my", "your"),
        ("your", "my"),
        ("you", "I"),
        ("I am", "you are"),
        ("I'm", "you're"),
        ("me", "you"),
        ("straße", "weg"),
        ("я", "ты"),
        ("我", "你"),
        ("你", "我"),
        ("我们", "你们"),
        ("ถาม", "ตอบ"),
    ]);
    for (request, reflected) in [
        ("", ""),
        ("my dog and your cat", "your dog and my cat"),
        // Whole words only, in scripts that put spaces between them.
        (
            "myth army my_ my2 amy me\u{301} am\u{e9}",
            "myth army my_ my2 amy me\u{301} am\u{e9}",
        ),
        ("my-self, (my) \"my\"", "your-self, (your) \"your\""),
        ("яма ямя", "яма ямя"),
        ("я", "ты"),
        ("my", "your"),
        ("mymy my", "mymy your"),
        // Chinese puts none; and where it begins, another script's word ends.
        ("我爱你", "你爱我"),
        ("我们和你", "你们和我"),
        ("给my朋友", "给your朋友"),
        ("Iは犬", "youは犬"),
        ("ฉันถามเธอ", "ฉันตอบเธอ"),
        // The longest first, and a shorter one where the longer is no word.
        ("I am and I ammo", "you are and you ammo"),
        ("I a", "you a"),
        ("I'm I’m I’d", "you're you're you’d"),
        // The case of the words, unless the rule's own begin with a capital.
        ("My MY mY", "Your YOUR your"),
        ("You YOU", "I I"),
        ("i I", "you you"),
        ("I AM", "you are"),
        ("Straße STRASSE", "Weg STRASSE"),
        ("Я", "Ты"),
        // Nothing of what has been put in is looked at again.
        ("you my", "I your"),
    ] {
        assert_eq!(answer(&robot, request), reflected, "{request:?}");
    }
}

#[test]
fn only_what_is_marked_is_reflected() {
    let robot = Robot::builder()
        .rule("(?<a>.*)/(?<b>.*)", "my {a} {~a} {0} {~0} {~b} my")
        .fallback("my")
        .reflect("my", "your")
        .reflect("your", "my")
        .build()
        .unwrap();
    assert_eq!(
        answer(&robot, "my/your"),
        "my my your my/your your/my my my"
    );
    assert_eq!(answer(&robot, "my"), "my");
}

#[test]
fn substitutions_come_after_reflections() {
    for (from, to, expected) in [
        // A single character, piece by piece; and a text that begins in one piece and ends in another.
        ("你", "您", "甲您我乙"),
        ("甲你", "-", "-我乙"),
        ("我乙", "-", "甲你-"),
    ] {
        let robot = Robot::builder()
            .rule("(.*)", "甲{~1}乙")
            .reflect("我", "你")
            .reflect("你", "我")
            .substitute(from, to)
            .build()
            .unwrap();
        let answer = robot.answer("我你");
        assert_eq!(answer.to_string(), expected);
        assert_eq!(answer.before_substitution().to_string(), "甲你我乙");
    }
}

#[test]
fn a_bad_reflection_is_an_error_with_its_words() {
    for (pairs, bad) in [
        (&[("a", "b"), ("", "x")][..], ""),
        (&[("my", "b"), ("c", "d"), ("My", "b")], "My"),
        (&[("I'm", "b"), ("i’m", "d")], "i’m"),
        (&[("я", "b"), ("Я", "d")], "Я"),
    ] {
        let builder = pairs.iter().fold(Robot::builder(), |builder, (from, to)| {
            builder.reflect(*from, *to)
        });
        let error = builder.build().unwrap_err();
        assert!(
            matches!(&error, RuleError::Reflection { from, .. } if from == bad),
            "{error:?}"
        );
    }
    for (reflections, template) in [
        (false, "ab{~0}"),
        (true, "ab{~1}"),
        (true, "ab{~}"),
        (true, "ab{~~0}"),
    ] {
        let builder = Robot::builder().rules([Rule::new("a", "fine").or_template(template)]);
        let builder = if reflections {
            builder.reflect("a", "b")
        } else {
            builder
        };
        assert!(
            matches!(
                builder.build(),
                Err(RuleError::Template {
                    rule: 1,
                    template: 2,
                    offset: 2,
                    ..
                })
            ),
            "{template}"
        );
    }
}

/// The same reflections as a person would make them: at every place, the longest words that fit.
fn reflected(text: &str, pairs: &BTreeMap<String, String>) -> String {
    let text: Vec<char> = text.chars().collect();
    let spaced =
        |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric() && !matches!(c, '我' | '你'));
    let same = |one: &char, other: &char| one.to_lowercase().eq(other.to_lowercase());
    let mut result = String::new();
    let mut at = 0;
    while at < text.len() {
        let fitting = pairs.iter().filter_map(|(from, to)| {
            let from: Vec<char> = from.chars().collect();
            let found = text.get(at..at + from.len())?;
            let before = at.checked_sub(1).map(|before| &text[before]);
            let goes_on = |one, next| spaced(one) && spaced(next);
            let whole = !goes_on(before, found.first())
                && !goes_on(found.last(), text.get(at + from.len()));
            let same = found.iter().zip(&from).all(|(one, other)| same(one, other));
            (whole && same).then(|| (from.clone(), found.to_vec(), to))
        });
        let Some((from, found, to)) = fitting.max_by_key(|(from, ..)| from.len()) else {
            result.push(text[at]);
            at += 1;
            continue;
        };
        at += from.len();
        let letters: Vec<&char> = found.iter().filter(|c| c.is_alphabetic()).collect();
        if !from[0].is_lowercase() || !letters[0].is_uppercase() {
            result.push_str(to);
        } else if letters.len() > 1 && letters.iter().all(|c| c.is_uppercase()) {
            result.push_str(&to.to_uppercase());
        } else {
            let mut rest = to.chars();
            result.extend(rest.next().into_iter().flat_map(char::to_uppercase));
            result.push_str(rest.as_str());
        }
    }
    result
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 2_000 }))]

    #[test]
    fn reflections_are_those_of_a_person(
        pairs in proptest::collection::btree_map("[abé我 ]{1,4}", "[abé我]{0,3}", 1..6),
        text in "[abABéÉ我你 ,]{0,24}",
    ) {
        let builder = Robot::builder().rule("(?s)(.*)", "{~1}");
        let robot = pairs.iter().fold(builder, |builder, (from, to)| builder.reflect(from, to));
        let robot = robot.build().unwrap();
        prop_assert_eq!(answer(&robot, &text), reflected(&text, &pairs));
    }

    #[test]
    fn a_swap_made_twice_changes_nothing(text in "[我你好a？ ]{0,40}") {
        let robot = reflecting(&[("我", "你"), ("你", "我")]);
        prop_assert_eq!(answer(&robot, &answer(&robot, &text)), text);
    }

    #[test]
    fn any_text_is_reflected_without_panic(text in any::<String>()) {
        let robot = reflecting(&[("my", "your"), ("我", "你"), ("’", "\""), (" ", "_"), ("é", "e")]);
        let reflected = answer(&robot, &text);
        if !text.contains(['m', 'M', '我', '\'', '’', ' ', 'é', 'É', 'y', 'Y']) {
            prop_assert_eq!(reflected, text);
        }
    }
}

/// Parts of patterns, some of which need a text and some of which do not.
fn pattern() -> impl Strategy<Value = String> {
    let part = select(vec![
        "a",
        "b",
        "ab",
        "ba",
        "你",
        "我",
        "你我",
        "é",
        "(a)",
        "(b+)",
        "(?:a|b)",
        "(?:ab|你)",
        "(.)",
        ".*",
        ".*?",
        "(?s:.*)",
        "[^a]",
        "[ab]",
        "[我你]",
        "(?i)a",
        "(?i:é)",
        "(?i:K)",
        r"\b",
        r"\B",
        "^",
        "$",
        "(?m:^)",
        "(a)?",
        "(?:你)*",
        "(?:ab){2}",
        "a{0}",
        "|",
        "()",
        r"\D+",
        "(?:(a)|b)",
        r"[a&&b]",
        r"\n",
        "(?:a|ab)(?:c|b)",
        "(?:a|b|)",
        "((你)(.*))",
        "(?:a{1,3}b)+",
        r"\pL",
        "(?:)",
    ]);
    vec(part, 1..5).prop_map(|parts| parts.concat())
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

fn text() -> impl Strategy<Value = String> {
    let part = select(vec![
        "a", "b", "ab", "你", "我", "é", "É", "k", "\u{212a}", "K", "c", "\n", " ", "1", "吗",
    ]);
    vec(part, 0..10).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 100 }))]

    /// With few rules and with many, of which only some are asked.
    #[test]
    fn the_first_rule_that_matches_is_the_one_that_asking_each_in_turn_finds(
        rules in vec((pattern(), any::<bool>()), 1..80),
        texts in vec(text(), 8),
    ) {
        let robot = Robot::builder().fallback("-").rules(rules.iter().map(|(pattern, anywhere)| {
            let rule = Rule::new(pattern, "{0}");
            if *anywhere { rule.anywhere() } else { rule }
        }));
        let robot = robot.build().unwrap();
        let oracle: Vec<Regex> = rules.iter().map(|(pattern, anywhere)| {
            let start = if *anywhere { "" } else { r"\A" };
            Regex::new(&format!("{start}(?:{pattern})")).unwrap()
        }).collect();
        for text in texts {
            let found = oracle.iter().zip(1..).find_map(|(regex, number)| Some((captures(regex, &text)?.get(0)?, number)));
            let answer = robot.answer(&text);
            prop_assert_eq!(answer.rule(), found.map(|(_, number)| number), "{:?}", text);
            prop_assert_eq!(answer.to_string(), found.map_or("-", |(found, _)| found.as_str()), "{:?}", text);
        }
    }

    #[test]
    fn groups_of_a_match_anywhere_are_those_of_the_regular_expression(pattern in pattern(), texts in vec(text(), 8)) {
        let reference = Regex::new(&pattern).unwrap();
        let template: Vec<_> = (0..reference.captures_len()).map(|group| format!("<{{{group}}}>")).collect();
        let template = template.concat();
        let robot = Robot::builder().rules([Rule::new(&pattern, template).anywhere()]).fallback("-").build().unwrap();
        for text in texts {
            let expected = captures(&reference, &text).map_or("-".to_owned(), |captures| {
                let groups = captures.iter().map(|group| group.map_or("", |group| group.as_str()));
                format!("<{}>", groups.collect::<Vec<_>>().join("><"))
            });
            prop_assert_eq!(answer(&robot, &text), expected, "{} on {:?}", pattern, text);
        }
    }
}

/// Rules of all kinds that a robot distinguishes, each for a topic of its own.
fn thousand_rules() -> Vec<Rule> {
    (0..1_000)
        .map(|number| {
            let topic = format!("topic{number}x");
            let template = format!("{number}: {{1}}");
            match number % 5 {
                0 => Rule::new(format!("(?i)tell me about ({topic})"), template),
                1 => Rule::new(format!("(.*){topic}"), template),
                2 => Rule::new(format!("你(\\D+){topic}"), template).anywhere(),
                3 => Rule::new(format!("[^?]*\\b({topic})\\b"), template),
                _ => Rule::new(format!("({topic}|话题{number}。)"), template).anywhere(),
            }
        })
        .collect()
}

#[test]
#[cfg_attr(miri, ignore = "builds a thousand rules")]
fn each_of_a_thousand_rules_is_found() {
    let robot = Robot::builder()
        .rules(thousand_rules())
        .fallback("-")
        .build()
        .unwrap();
    for number in 0..1_000 {
        let topic = format!("topic{number}x");
        let (request, captured) = match number % 5 {
            0 => (format!("TELL me about {topic}"), topic),
            1 => (format!("well: {topic}"), "well: ".into()),
            2 => (format!("好，你说{topic}"), "说".into()),
            3 => (format!("and {topic}!"), topic),
            _ => (format!("讲讲话题{number}。"), format!("话题{number}。")),
        };
        assert_eq!(answer(&robot, &request), format!("{number}: {captured}"));
        assert_eq!(robot.answer(&request).rule(), Some(number + 1));
    }
    assert_eq!(answer(&robot, "topic1000x"), "-");
    assert_eq!(answer(&robot, ""), "-");
}

#[test]
#[cfg_attr(miri, ignore = "builds a thousand rules")]
fn the_earliest_of_many_rules_that_match_answers() {
    let robot = Robot::builder().rules(thousand_rules()).build().unwrap();
    // Every topic at once, from the last to the first.
    let topics: Vec<_> = (0..1_000)
        .map(|number| format!(" topic{number}x 话题{number}。"))
        .collect();
    let all: String = topics.iter().rev().map(String::as_str).collect();
    assert_eq!(robot.answer(&all).rule(), Some(2));
    let some: String = [999, 704, 707, 700]
        .map(|number| format!("话题{number}。topic{number}x"))
        .concat();
    assert_eq!(robot.answer(&some).rule(), Some(705));
}

/// A backtracking matcher would need more steps on these than there are atoms: that they end at all
/// shows that none is at work. Each is asked alone, and all together.
#[test]
#[cfg_attr(miri, ignore = "searches nearly 64 KiB")]
fn catastrophic_patterns_come_to_an_end_on_the_longest_request() {
    let patterns = [
        "(a+)+b",
        "(a|a)*b",
        "(a|aa)+b",
        "(a*)*b",
        "(?:a?){50}a{50}b",
        "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)b",
        "(?:a+a+)+b",
        "(?i)(?:a|A)*?(?:a|A)*?b",
        "(.*)+b",
        "(?:(a+)(a*))+c|b",
        r"\b(?:a+)+\bb",
    ];
    let longest = "a".repeat(MAX_DATAGRAM_BYTES);
    let unlucky = format!("{}我", "a".repeat(MAX_DATAGRAM_BYTES - 3));
    let rules = patterns.iter().flat_map(|pattern| {
        let rule = Rule::new(*pattern, "{0}");
        [rule.clone(), rule.anywhere()]
    });
    let all = Robot::builder().rules(rules.clone()).fallback("-");
    let all = all.build().unwrap();
    for request in [&longest, &unlucky] {
        assert_eq!(answer(&all, request), "-");
    }
    for rule in rules {
        let robot = Robot::builder()
            .rules([rule.clone()])
            .fallback("-")
            .build()
            .unwrap();
        for request in [&longest, &unlucky] {
            assert_eq!(answer(&robot, request), "-", "{rule:?}");
        }
    }
    // Neither does what matches, whose groups are searched as well.
    let robot = Robot::builder()
        .rule("((a+)+)(.*)(.*)$", "{4}{3}")
        .build()
        .unwrap();
    assert_eq!(answer(&robot, &longest), "");
}

#[test]
#[cfg_attr(miri, ignore = "builds large automata")]
fn a_pattern_that_would_take_too_much_memory_is_an_error() {
    for pattern in [
        r"\w{1000}{1000}",
        r"(?:\pL{200}){200}",
        "((a{100}){100}){100}",
    ] {
        let error = Robot::builder().rule(pattern, "").build().unwrap_err();
        assert!(
            matches!(&error, RuleError::Pattern { problem, .. } if problem.contains("bytes")),
            "{error}"
        );
    }
    // Neither may many do together what one may not.
    let rules = (0..200).map(|number| Rule::new(format!(r"{number}\w{{100}}"), ""));
    let error = Robot::builder().rules(rules.clone()).build().unwrap_err();
    assert!(
        matches!(error, RuleError::TooManyRules { rule: 10.., bytes, limit } if bytes > limit),
        "{error}"
    );
    assert!(error.to_string().contains("memory_limit"), "{error}");
    let allowed = Robot::builder().rules(rules.take(40)).memory_limit(1 << 30);
    assert!(allowed.build().unwrap().memory_bytes() > 64 << 20);
}

#[test]
fn an_answer_that_is_too_long_is_replaced_by_the_first_fallback() {
    let robot = Robot::builder()
        .rules([Rule::new("(.+)", "{1}{1}{1}").or_template("{1}{1}{1}{1}")])
        .fallback("first")
        .fallback("second")
        .build()
        .unwrap();
    let peer = "192.0.2.1:7".parse().unwrap();
    let context = Context::new(&Meta::new(peer), Timestamp::system());
    let mut outbox = Outbox::new(1, 16);
    for request in ["aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"] {
        outbox.clear();
        let mut reply = Reply::new(&Text, request.as_bytes(), &context, &mut outbox);
        Handler::<Text>::handle(&robot, request, &context, &mut reply).unwrap();
        let replies: Vec<_> = outbox.iter().map(|reply| reply.bytes.to_vec()).collect();
        assert_eq!(replies, [b"first"]);
    }
}
