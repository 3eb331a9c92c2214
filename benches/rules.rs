//! What a request costs where there are many rules, and the ways to find the first that matches.
//!
//!     cargo bench -p rejoinder-benches --bench rules
//!
//! Every way finds the same rule, which is checked before it is timed.

#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(
    clippy::wildcard_imports,
    reason = "the modules are the groups of the report"
)]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use regex::RegexSetBuilder;
use regex_automata::{Anchored, Input, meta};
use rejoinder::bot::{Robot, Rule};

fn main() {
    divan::main();
}

const ADJECTIVES: [(&str, &str); 20] = [
    ("red", "红"),
    ("green", "绿"),
    ("blue", "蓝"),
    ("old", "老"),
    ("new", "新"),
    ("big", "大"),
    ("small", "小"),
    ("fast", "快"),
    ("slow", "慢"),
    ("warm", "暖"),
    ("cold", "冷"),
    ("sweet", "甜"),
    ("sour", "酸"),
    ("bright", "亮"),
    ("dark", "暗"),
    ("quiet", "静"),
    ("loud", "响"),
    ("soft", "软"),
    ("hard", "硬"),
    ("round", "圆"),
];

const NOUNS: [(&str, &str); 50] = [
    ("apple", "苹果"),
    ("bread", "面包"),
    ("cheese", "奶酪"),
    ("dog", "狗"),
    ("engine", "引擎"),
    ("flower", "花"),
    ("garden", "花园"),
    ("house", "房子"),
    ("island", "岛"),
    ("jacket", "夹克"),
    ("kitchen", "厨房"),
    ("lamp", "灯"),
    ("mountain", "山"),
    ("notebook", "笔记本"),
    ("ocean", "海洋"),
    ("pencil", "铅笔"),
    ("queen", "王后"),
    ("river", "河"),
    ("school", "学校"),
    ("table", "桌子"),
    ("umbrella", "雨伞"),
    ("village", "村子"),
    ("window", "窗"),
    ("yard", "院子"),
    ("zebra", "斑马"),
    ("airport", "机场"),
    ("bridge", "桥"),
    ("camera", "相机"),
    ("doctor", "医生"),
    ("eagle", "鹰"),
    ("forest", "森林"),
    ("guitar", "吉他"),
    ("hotel", "酒店"),
    ("insect", "昆虫"),
    ("jungle", "丛林"),
    ("king", "国王"),
    ("letter", "信"),
    ("market", "市场"),
    ("needle", "针"),
    ("office", "办公室"),
    ("painter", "画家"),
    ("question", "问题"),
    ("radio", "收音机"),
    ("singer", "歌手"),
    ("teacher", "老师"),
    ("uncle", "叔叔"),
    ("violin", "小提琴"),
    ("wolf", "狼"),
    ("year", "年"),
    ("zoo", "动物园"),
];

/// So many rules, of the kinds that people write, and whether each may match anywhere.
fn rules(count: usize) -> Vec<(String, bool)> {
    let topics = NOUNS
        .iter()
        .flat_map(|noun| ADJECTIVES.iter().map(move |adjective| (adjective, noun)));
    let rules = topics.zip(0..).map(|((adjective, noun), number)| {
        let (en, zh) = (
            format!("{} {}", adjective.0, noun.0),
            format!("{}{}", adjective.1, noun.1),
        );
        match number % 5 {
            0 => (format!("你(?:知道|喜欢)(?<what>\\D*{zh})吗？"), false),
            1 => (format!("(?i)i (?:want|need) (?<what>.*{en}s?)"), false),
            2 => (format!(r"\b(?:{en}s?)\b"), true),
            3 => (format!("{zh}(?<rest>[^。！？]*)"), true),
            _ => (format!("(?i)(?<before>.*?)tell me about the {en}"), false),
        }
    });
    rules.take(count).collect()
}

fn robot(count: usize) -> Robot {
    let rules = rules(count).into_iter().map(|(pattern, anywhere)| {
        let rule = Rule::new(pattern, "{0}");
        if anywhere { rule.anywhere() } else { rule }
    });
    Robot::builder().rules(rules).build().unwrap()
}

/// What is asked.
const REQUESTS: [&str; 5] = [
    "the first rule",
    "the last rule",
    "no rule, 12 bytes",
    "no rule, 36 bytes",
    "no rule, 600 bytes",
];

/// A request, and the number of the rule that answers it.
fn request(name: &str) -> (String, Option<usize>) {
    match name {
        "the first rule" => ("你知道那个红苹果吗？".into(), Some(1)),
        "the last rule" => ("Please tell me about the round zoo".into(), Some(1_000)),
        "no rule, 12 bytes" => ("你好吗？".into(), None),
        "no rule, 36 bytes" => ("你觉得我是最帅最帅的吗？".into(), None),
        "no rule, 600 bytes" => ("觉得今天的天气是不是很好呢".repeat(15) + "谢谢", None),
        // Texts that rules need, in words where they match none.
        _ => {
            let topics = NOUNS.iter().step_by(5).flat_map(|noun| {
                let topic = move |adjective: &(&str, &str)| format!("_{} {}_", adjective.0, noun.0);
                ADJECTIVES.iter().map(topic)
            });
            (topics.collect(), None)
        }
    }
}

type Find = Box<dyn Fn(&str) -> Option<usize> + Sync>;

/// What is used: the rules of which a needed text is in the request.
fn by_robot(count: usize) -> Find {
    let robot = robot(count);
    Box::new(move |text| robot.answer(text).rule())
}

/// Each rule, one after the other, by the same engine.
fn each_in_turn(count: usize) -> Find {
    let robots: Vec<Robot> = rules(count)
        .into_iter()
        .map(|(pattern, anywhere)| {
            let rule = Rule::new(pattern, "");
            let rule = if anywhere { rule.anywhere() } else { rule };
            Robot::builder().rules([rule]).build().unwrap()
        })
        .collect();
    Box::new(move |text| {
        let mut robots = robots.iter().zip(1..);
        robots.find_map(|(robot, number)| robot.answer(text).rule().map(|_| number))
    })
}

/// All patterns in one automaton, in which the earlier is preferred.
fn one_automaton() -> Find {
    let regex = one_automaton_of_1000();
    Box::new(move |text| {
        let found = regex.search_half(&Input::new(text).anchored(Anchored::Yes))?;
        Some(found.pattern().as_usize() + 1)
    })
}

/// The `regex` crate's set, which finds all that match.
fn regex_set() -> Find {
    let patterns = anchored_patterns().into_iter();
    let set = RegexSetBuilder::new(patterns.map(|pattern| format!(r"\A(?:{pattern})")))
        .size_limit(1 << 30)
        .build()
        .unwrap();
    Box::new(move |text| set.matches(text).iter().next().map(|index| index + 1))
}

fn bench(bencher: Bencher<'_, '_>, name: &str, find: &Find) {
    let (request, expected) = request(name);
    assert_eq!(find(&request), expected, "{name}");
    bencher
        .counter(BytesCount::of_str(&request))
        .bench_local(|| find(black_box(&request)));
}

/// The ways to find the first of 1,000 rules that matches.
mod first_of_1000 {
    use super::*;

    #[divan::bench(args = REQUESTS)]
    fn robot(bencher: Bencher<'_, '_>, name: &str) {
        bench(bencher, name, &by_robot(1_000));
    }

    #[divan::bench(args = REQUESTS)]
    fn each_in_turn(bencher: Bencher<'_, '_>, name: &str) {
        bench(bencher, name, &super::each_in_turn(1_000));
    }

    #[divan::bench(args = REQUESTS)]
    fn one_automaton(bencher: Bencher<'_, '_>, name: &str) {
        bench(bencher, name, &super::one_automaton());
    }

    #[divan::bench(args = REQUESTS)]
    fn regex_set(bencher: Bencher<'_, '_>, name: &str) {
        bench(bencher, name, &super::regex_set());
    }
}

/// The same with 3 kB made to hurt: many rules are asked and do not match, and an automaton for all of them has
/// ever new states to build.
#[divan::bench_group(sample_count = 3, sample_size = 1)]
mod hostile_3_kb {
    use super::*;

    #[divan::bench]
    fn robot(bencher: Bencher<'_, '_>) {
        bench(bencher, "hostile", &by_robot(1_000));
    }

    #[divan::bench]
    fn each_in_turn(bencher: Bencher<'_, '_>) {
        bench(bencher, "hostile", &super::each_in_turn(1_000));
    }

    #[divan::bench]
    fn one_automaton(bencher: Bencher<'_, '_>) {
        bench(bencher, "hostile", &super::one_automaton());
    }

    #[divan::bench]
    fn regex_set(bencher: Bencher<'_, '_>) {
        bench(bencher, "hostile", &super::regex_set());
    }
}

fn anchored_patterns() -> Vec<String> {
    let patterns = rules(1_000).into_iter();
    patterns
        .map(|(pattern, anywhere)| {
            if anywhere {
                format!("(?s:.*?)(?:{pattern})")
            } else {
                pattern
            }
        })
        .collect()
}

fn one_automaton_of_1000() -> meta::Regex {
    meta::Builder::new()
        .configure(meta::Config::new().nfa_size_limit(None))
        .build_many(&anchored_patterns())
        .unwrap()
}

/// From how many rules on it pays: a request that none matches.
mod by_count {
    use super::*;

    const COUNTS: [usize; 7] = [1, 4, 8, 16, 64, 256, 1_000];

    #[divan::bench(args = COUNTS)]
    fn robot(bencher: Bencher<'_, '_>, count: usize) {
        bench(bencher, "no rule, 36 bytes", &by_robot(count));
    }

    #[divan::bench(args = COUNTS)]
    fn each_in_turn(bencher: Bencher<'_, '_>, count: usize) {
        bench(bencher, "no rule, 36 bytes", &super::each_in_turn(count));
    }
}

/// What one request can cost at most: 1 ms for 1,200 bytes, 50 ms for 65,507, whatever the rules. Every rule
/// here is asked, and none matches; most requests use up the steps that they have.
#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod bound {
    use super::*;

    const KINDS: [&str; 6] = [
        "borders of words",
        "borders of words, not ASCII",
        "small tables",
        "large tables",
        "no tables",
        "reflections",
    ];

    fn hostile(kind: &str) -> (Robot, &'static str) {
        let rules = |pattern: &dyn Fn(usize) -> String| {
            let rules = (0..1_000).map(|number| Rule::new(pattern(number), "{0}").anywhere());
            Robot::builder().rules(rules).build().unwrap()
        };
        match kind {
            "borders of words" => (
                rules(&|number| format!(r"(?i)\b\w+ing \w+ed\b [x-z]{{{}}}", number % 9 + 1)),
                "aing bed ",
            ),
            "borders of words, not ASCII" => (
                rules(&|number| format!(r"(?i)\b\w+ing \w+ed\b [x-z]{{{}}}", number % 9 + 1)),
                "éing bed ",
            ),
            "small tables" => (rules(&|number| format!("[ab]+[cd{number}]x")), "abbaab"),
            "large tables" => (
                rules(&|number| format!(r"(?i)[^{number}]*\d[a-z\u{{100}}-\u{{2ff}}]{{9}}[xyz]")),
                "ab9 ÿĀ7c",
            ),
            "no tables" => (
                rules(&|number| format!("(?:a|b)*a(?:a|b){{15}}[c{number}]")),
                "abbabaab",
            ),
            _ => {
                let rule = Rule::new("(?s)(.*)", "{~1}".repeat(20));
                let builder = Robot::builder().rules([rule]);
                let builder = (1..200).fold(builder, |builder, length| {
                    builder.reflect("a ".repeat(length) + "b", "c")
                });
                (builder.build().unwrap(), "a a A ")
            }
        }
    }

    fn run(bencher: Bencher<'_, '_>, kind: &str, bytes: usize) {
        let (robot, part) = hostile(kind);
        // It begins with what rules need.
        let mut request = format!("x y z c {}", part.repeat(bytes / part.len() + 1));
        while request.len() > bytes {
            request.pop();
        }
        bencher.bench_local(|| black_box(robot.answer(black_box(&request)).to_string()));
    }

    #[divan::bench(args = KINDS)]
    fn of_1200_bytes(bencher: Bencher<'_, '_>, kind: &str) {
        run(bencher, kind, 1_200);
    }

    #[divan::bench(args = KINDS)]
    fn of_65507_bytes(bencher: Bencher<'_, '_>, kind: &str) {
        run(bencher, kind, 65_507);
    }
}

/// How long it takes to compile 1,000 rules.
mod build_of_1000 {
    use super::*;

    #[divan::bench(sample_count = 5, sample_size = 1)]
    fn robot(bencher: Bencher<'_, '_>) {
        bencher
            .counter(ItemsCount::new(1_000_usize))
            .bench(|| super::robot(1_000));
    }

    #[divan::bench(sample_count = 5, sample_size = 1)]
    fn one_automaton(bencher: Bencher<'_, '_>) {
        bencher
            .counter(ItemsCount::new(1_000_usize))
            .bench(one_automaton_of_1000);
    }
}
