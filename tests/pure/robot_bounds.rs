//! Invariant 9: the work and the memory that a request to a robot can cause have a bound, whatever the
//! rules. Work is counted in steps, which depend on the rules and the request alone.

use std::fmt::Write as _;
use std::thread;

use rejoinder::bot::{Robot, Rule, zurich};
use rejoinder::codec::Text;
use rejoinder::transport::{MAX_DATAGRAM_BYTES, Meta, Outbox};
use rejoinder::{Context, Handler, Reply, Timestamp};

/// Rules whose needed texts can all be in one request that none matches.
fn bordered_words(count: usize) -> Robot {
    let rules = (0..count)
        .map(|number| Rule::new(format!(r"(?i)\b\w+ing \w+ed {number}\b"), "found {0}").anywhere());
    Robot::builder().rules(rules).fallback("-").build().unwrap()
}

fn all_needed(count: usize, bytes: usize) -> String {
    let mut text = "aing ".repeat(bytes / 10);
    let mut number = 0;
    while text.len() < bytes {
        write!(text, "ed {} ", number % count).unwrap();
        number += 1;
    }
    while text.len() > bytes {
        text.pop();
    }
    text
}

#[test]
#[cfg_attr(miri, ignore = "searches long texts")]
fn invariant_9_a_long_request_to_many_rules_gets_the_fallback_and_is_counted() {
    let robot = bordered_words(500);
    for request in [
        all_needed(500, 65_507),
        // Words of other letters than those of ASCII take longer.
        format!("é{}", all_needed(500, 1_198)),
        format!("é{}", all_needed(500, 65_505)),
    ] {
        let counted = robot.exhausted();
        let answer = robot.answer(&request);
        assert!(answer.is_exhausted(), "{}", request.len());
        assert_eq!((answer.rule(), answer.to_string().as_str()), (None, "-"));
        assert_eq!(robot.exhausted(), counted + 1);
    }
    let answer = robot.answer("We were walking and smiling unnoticed 499.");
    assert!(!answer.is_exhausted());
    assert_eq!(answer.to_string(), "found smiling unnoticed 499");
}

#[test]
#[cfg_attr(miri, ignore = "searches long texts")]
fn invariant_9_whether_the_work_is_too_much_depends_on_rules_and_request_alone() {
    let robot = bordered_words(300);
    let outcome = |robot: &Robot, bytes| {
        let request = all_needed(300, bytes);
        robot.answer(&request).is_exhausted()
    };
    let lengths: Vec<usize> = (100..3_000).step_by(100).collect();
    let cold: Vec<bool> = lengths
        .iter()
        .map(|bytes| outcome(&robot, *bytes))
        .collect();
    assert!(cold.contains(&true) && cold.contains(&false), "{cold:?}");
    let again: Vec<bool> = lengths
        .iter()
        .rev()
        .map(|bytes| outcome(&robot, *bytes))
        .rev()
        .collect();
    assert_eq!(again, cold);
    let clone = robot.clone();
    let elsewhere = thread::spawn(move || {
        lengths
            .iter()
            .map(|bytes| outcome(&clone, *bytes))
            .collect()
    });
    let elsewhere: Vec<bool> = elsewhere.join().unwrap();
    assert_eq!(elsewhere, cold);
    let found = cold.iter().filter(|exhausted| **exhausted).count() as u64;
    assert_eq!(robot.exhausted(), 3 * found, "clones count together");
}

#[test]
#[cfg_attr(miri, ignore = "searches long texts")]
fn invariant_9_a_pattern_whose_table_would_be_too_large_is_bounded_too() {
    for pattern in [
        "(?:a|b)*a(?:a|b){14}c",
        r"(?:\w{1,20}é?){1,10}c",
        r"(\w+) (?:\w{20} )?(\pL{10,30})!",
        "(?:[ab]?){200}c",
        "(((((a?){9})?){9})?){9}c",
    ] {
        let robot = Robot::builder()
            .rules([Rule::new(pattern, "{0}").anywhere()])
            .fallback("-")
            .build()
            .unwrap();
        for request in ["ab".repeat(32_753), "aé ".repeat(16_000), "a".repeat(1_200)] {
            assert_eq!(robot.answer(&request).to_string(), "-", "{pattern}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "searches long texts")]
fn invariant_9_groups_are_bounded_too() {
    // A match, of which the groups take more work than is left.
    let pattern = format!("((?:{})*)c", "(?:a|b?)".repeat(300));
    let robot = Robot::builder()
        .rule(&pattern, "<{1}>")
        .fallback("-")
        .build()
        .unwrap();
    assert_eq!(robot.answer("abc").to_string(), "<ab>");
    let request = format!("{}c", "ab".repeat(30_000));
    let answer = robot.answer(&request);
    assert!(answer.is_exhausted());
    assert_eq!(answer.to_string(), "-");
}

#[test]
#[cfg_attr(miri, ignore = "searches long texts")]
fn usual_rules_have_more_than_enough_work_for_the_longest_request() {
    let zurich = zurich();
    for request in [
        format!("你{}吗？", "我".repeat(21_000)),
        "我".repeat(21_835),
        "a".repeat(MAX_DATAGRAM_BYTES),
    ] {
        assert!(!zurich.answer(&request).is_exhausted());
    }
    let rules =
        (0..100).map(|number| Rule::new(format!(r"(?i)(.*) {number} (\d+|[^.!?]*)"), "{~1}{2}"));
    let robot = Robot::builder()
        .rules(rules)
        .reflect("my", "your")
        .fallback("-")
        .build()
        .unwrap();
    let request = format!("{}99 yes", "my ".repeat(21_000));
    assert_eq!(robot.answer(&request).rule(), Some(100));
    assert_eq!(robot.exhausted(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "makes long texts")]
fn invariant_9_an_answer_is_written_only_as_far_as_shows_that_it_is_too_long() {
    let long = "长".repeat(1_000_000);
    for (from, to) in [("我", long.as_str()), ("我们", long.as_str())] {
        let robot = Robot::builder()
            .rules([Rule::new("(.+)", "{1}".repeat(20))])
            .substitute(from, to)
            .fallback("-")
            .build()
            .unwrap();
        let request = from.repeat(21_000 / from.chars().count());
        let peer = "192.0.2.1:7".parse().unwrap();
        let context = Context::new(&Meta::new(peer), Timestamp::system());
        let mut outbox = Outbox::new(1, MAX_DATAGRAM_BYTES);
        let mut reply = Reply::new(&Text, request.as_bytes(), &context, &mut outbox);
        Handler::<Text>::handle(&robot, &request, &context, &mut reply).unwrap();
        let replies: Vec<_> = outbox.iter().map(|reply| reply.bytes.to_vec()).collect();
        assert_eq!(replies, [b"-"]);
    }
}

#[test]
#[cfg_attr(miri, ignore = "reflects long texts")]
fn long_words_are_reflected_in_linear_time() {
    // Each of the words is the beginning of a longer one; the text has all but the last of each.
    let mut builder = Robot::builder().rule("(?s)(.*)", "{~1}");
    for length in 1..=300 {
        builder = builder.reflect("a ".repeat(length) + "b", length.to_string());
    }
    builder = builder.reflect("x".repeat(60_000), "y");
    let robot = builder.build().unwrap();
    for request in ["a ".repeat(32_000), "x".repeat(59_999), "x ".repeat(30_000)] {
        assert_eq!(robot.answer(&request).to_string(), request);
    }
    assert_eq!(robot.answer("a a a b").to_string(), "3");
    assert_eq!(
        robot.answer(&"a ".repeat(301)).to_string(),
        "a ".repeat(301)
    );
    assert_eq!(robot.answer(&("a ".repeat(301) + "b")).to_string(), "a 300");
}

#[test]
#[cfg_attr(miri, ignore = "loads many rules")]
fn many_substitutions_reflections_and_rules_are_loaded() {
    let mut builder = Robot::builder().rule("(?s)(.*)", "{~1}");
    for number in 0..40_000 {
        builder = builder
            .substitute(format!("s{number}."), format!("S{number}."))
            .reflect(format!("r{number}"), format!("R{number}"));
    }
    let robot = builder.build().unwrap();
    assert_eq!(robot.answer("s39999. r39999").to_string(), "S39999. R39999");
}

#[test]
#[cfg_attr(miri, ignore = "loads many rules")]
fn invariant_9_ten_thousand_simple_rules_take_less_than_64_mib() {
    let kinds = [
        |number| Rule::new(format!("你喜欢{number}吗"), "{0}"),
        |number| Rule::new(format!("(?i)tell me about {number}"), "{0}").anywhere(),
        |number| Rule::new(format!("我要{number}(.+)"), "{1}"),
        |number| {
            Rule::new(
                format!("(?i)i (?:want|need) {number} (?<what>[^.!?]+)"),
                "{what}",
            )
        },
        |number| Rule::new(format!("question {number}$"), "{0}"),
    ];
    let rules = (0..10_000_usize).map(|number| kinds[number % kinds.len()](number));
    let robot = Robot::builder().rules(rules).build().unwrap();
    assert!(robot.memory_bytes() < 64 << 20, "{}", robot.memory_bytes());
    assert_eq!(robot.answer("question 9999\n").rule(), Some(10_000));
    assert_eq!(robot.answer("I need 9998 dogs.").to_string(), "dogs");
}
