//! Rule sets from files: the same robots as the builder's, and errors with a place.

use std::fmt::Write as _;
use std::sync::LazyLock;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use rejoinder::bot::{
    Robot, Rule, RuleError, RuleFile, RuleFileProblem, RuleProblem, RuleWarning, zurich,
};

const ZURICH: &str = include_str!("../../rules/zurich.toml");
const ELIZA: &str = include_str!("../../rules/eliza.toml");

static ELIZA_ROBOT: LazyLock<Robot> = LazyLock::new(|| Robot::from_toml(ELIZA).unwrap());

/// Everything that can be seen of an answer.
fn said(robot: &Robot, request: &str) -> (String, String, Option<usize>) {
    let answer = robot.answer(request);
    (
        answer.to_string(),
        answer.before_substitution().to_string(),
        answer.rule(),
    )
}

fn request() -> impl Strategy<Value = String> {
    let part = select(vec![
        "你",
        "我",
        "您",
        "吗？",
        "吗",
        "好",
        "觉得",
        "因为",
        "我们",
        "朋友",
        "叫",
        "机器人",
        "1",
        "？",
        "。",
        "\n",
        "I ",
        "I'm ",
        "i’m ",
        "am ",
        "You ",
        "you're ",
        "my ",
        "MY ",
        "think ",
        "can't ",
        "because ",
        "mother",
        "robots",
        "Hello",
        "sad",
        ".",
        "!",
        " ",
        "é",
        "👩\u{200d}💻",
        "myth ",
        "why ",
    ]);
    prop_oneof![
        9 => vec(part, 0..9).prop_map(|parts| parts.concat()),
        1 => any::<String>(),
    ]
}

/// The builder's robot for a rule set, put together from TOML's own values.
fn built(file: &str) -> Robot {
    let file: toml::Table = toml::from_str(file).unwrap();
    let strings = |value: &toml::Value| -> Vec<String> {
        match value {
            toml::Value::Array(several) => several
                .iter()
                .map(|one| one.as_str().unwrap().into())
                .collect(),
            one => vec![one.as_str().unwrap().into()],
        }
    };
    let pairs = |name: &str| -> Vec<(String, String)> {
        let pairs = file.get(name).and_then(|pairs| pairs.as_table());
        let pairs = pairs.into_iter().flatten();
        pairs
            .map(|(from, to)| (from.clone(), to.as_str().unwrap().into()))
            .collect()
    };
    let mut builder = Robot::builder();
    for rule in file["rule"].as_array().unwrap() {
        let templates = strings(&rule["answer"]);
        let pattern = rule["pattern"].as_str().unwrap();
        let first = Rule::new(pattern, &templates[0]);
        let mut rule_built = templates[1..].iter().fold(first, Rule::or_template);
        if rule
            .get("anywhere")
            .is_some_and(|anywhere| anywhere.as_bool().unwrap())
        {
            rule_built = rule_built.anywhere();
        }
        builder = builder.rules([rule_built]);
    }
    for answer in file.get("fallback").map(strings).unwrap_or_default() {
        builder = builder.fallback(answer);
    }
    for (from, to) in pairs("reflect") {
        builder = builder.reflect(from, to);
    }
    for (from, to) in pairs("substitute") {
        builder = builder.substitute(from, to);
    }
    builder.build().unwrap()
}

/// A string as TOML writes it, in the ways there are.
fn toml_string(text: &str, style: u8) -> String {
    let escaped = |multiline: bool| {
        let mut written = String::new();
        for (index, c) in text.chars().enumerate() {
            match c {
                '\n' if multiline => written.push('\n'),
                '"' | '\\' => written.extend(['\\', c]),
                // Some are written by number though they need not be.
                c if c.is_control() || index % 5 == 4 => {
                    write!(written, "\\U{:08x}", u32::from(c)).unwrap();
                }
                c => written.push(c),
            }
        }
        written
    };
    let is_plain = !text.contains(|c: char| c == '\'' || c.is_control());
    match style % 4 {
        0 if is_plain => format!("'{text}'"),
        1 if is_plain => format!("'''\n{text}'''"),
        2 => format!("\"\"\"\n{}\\\n   \"\"\"", escaped(true)),
        _ => format!("\"{}\"", escaped(false)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 2_000 }))]

    #[test]
    fn zurich_from_its_file_is_the_same_robot(requests in vec(request(), 8)) {
        static FROM_FILE: LazyLock<Robot> = LazyLock::new(|| Robot::from_toml(ZURICH).unwrap());
        static BUILT: LazyLock<Robot> = LazyLock::new(zurich);
        for request in requests {
            let request = format!("你{request}");
            for request in [request.as_str(), &request[3..]] {
                prop_assert_eq!(said(&FROM_FILE, request), said(&BUILT, request), "{}", request);
            }
        }
    }

    #[test]
    fn the_listener_from_its_file_is_the_robot_that_is_built(requests in vec(request(), 8)) {
        static BUILT: LazyLock<Robot> = LazyLock::new(|| built(ELIZA));
        for request in requests {
            prop_assert_eq!(said(&ELIZA_ROBOT, &request), said(&BUILT, &request), "{}", request);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 300 }))]

    #[test]
    fn any_rule_set_in_a_file_is_the_robot_that_is_built(
        rules in vec((
            select(vec!["a(.*)", "你(?<x>\\D+)吗", "[^\"']", "I am (.*)\\.", "", "'|\"", "(?x)\n b # \\\\\n", "我|my"]),
            vec(select(vec!["", "{0}", "{{", "\"{~0}'\\", "你\n{0}\n", "'''", "\t\u{7f}{0}", "我{0}my"]), 1..4),
            option::of(any::<bool>()),
        ), 1..12),
        fallbacks in vec(select(vec!["", "{", "\"\n'", "我"]), 0..4),
        reflections in btree_map(select(vec!["my", "I am", "我", "\"", "é\n"]), select(vec!["your", "", "你\\"]), 1..5),
        substitutions in btree_map(select(vec!["a", "我", "my", "\\", "你"]), select(vec!["b", "", "\"\"\""]), 0..4),
        styles in vec(any::<u8>(), 64),
        crlf in any::<bool>(),
        requests in vec(request(), 6),
    ) {
        let mut styles = styles.into_iter().cycle();
        let mut string = |text: &str| toml_string(text, styles.next().unwrap());
        let mut strings = |texts: &[&str]| match texts {
            [one] => string(one),
            several => {
                let several: Vec<_> = several.iter().map(|text| string(text)).collect();
                format!("[\n  {},\n]", several.join(", "))
            }
        };
        let mut file = String::new();
        let mut builder = Robot::builder();
        if !fallbacks.is_empty() {
            writeln!(file, "fallback = {}", strings(&fallbacks)).unwrap();
        }
        for answer in fallbacks {
            builder = builder.fallback(answer);
        }
        for (pattern, templates, anywhere) in rules {
            let (pattern_string, answer) = (strings(&[pattern]), strings(&templates));
            writeln!(file, "[[rule]]\npattern = {pattern_string}\nanswer = {answer}").unwrap();
            let first = Rule::new(pattern, templates[0]);
            let mut rule = templates[1..].iter().fold(first, |rule, template| rule.or_template(*template));
            if let Some(anywhere) = anywhere {
                writeln!(file, "anywhere = {anywhere}").unwrap();
                rule = if anywhere { rule.anywhere() } else { rule };
            }
            builder = builder.rules([rule]);
        }
        // A key is never written over several lines.
        file += "[reflect]\n";
        for (from, to) in &reflections {
            writeln!(file, "{} = {}", toml_string(from, 3), strings(&[to])).unwrap();
            builder = builder.reflect(*from, *to);
        }
        file += "[substitute]\n";
        for (from, to) in &substitutions {
            writeln!(file, "{} = {}", toml_string(from, 0), strings(&[to])).unwrap();
            builder = builder.substitute(*from, *to);
        }
        if crlf {
            file = file.replace('\n', "\r\n");
        }
        let from_file = Robot::from_toml(&file).map_err(|error| TestCaseError::fail(format!("{error}\n{file}")))?;
        let built = builder.build().unwrap();
        for request in requests {
            prop_assert_eq!(said(&from_file, &request), said(&built, &request), "{} on\n{}", request, file);
        }
    }

    #[test]
    fn any_text_is_a_rule_set_or_an_error_with_a_place_in_it(
        at in any::<prop::sample::Index>(), junk in any::<String>(), cut in any::<bool>(), file in select(vec![ZURICH, ELIZA]),
    ) {
        let at = at.index(file.len());
        let at = (0..=at).rev().find(|at| file.is_char_boundary(*at)).unwrap();
        let text = if cut { format!("{}{junk}", &file[..at]) } else { format!("{}{junk}{}", &file[..at], &file[at..]) };
        if let Err(error) = Robot::from_toml(&text) {
            let line = text.split('\n').nth(error.line - 1).expect("the line is in the text");
            prop_assert!((1..=line.chars().count() + 1).contains(&error.column), "{}\n{}", error, text);
            prop_assert!(!error.to_string().contains(|c: char| c.is_control()), "{}", error);
        }
    }
}

/// `|` marks the place of the error, and is taken out. Without a message, any error will do: TOML's
/// parser has its own idea of the place.
fn check_error(marked: &str, message: &str) {
    let (before, after) = marked.split_once('|').unwrap();
    let error = Robot::from_toml(format!("{before}{after}")).unwrap_err();
    if message.is_empty() {
        return;
    }
    let line = before.matches('\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap();
    let column = last.trim_start_matches('\u{feff}').chars().count() + 1;
    assert_eq!(
        (error.line, error.column),
        (line, column),
        "{marked}: {error}"
    );
    let shown = error.to_string();
    assert!(
        shown.starts_with(&format!("line {line}, column {column}: {message}")),
        "{marked}: {shown}"
    );
    assert!(!shown.contains('\n'), "{shown}");
}

#[test]
fn an_error_of_the_format_tells_line_column_and_rule() {
    for (marked, message) in [
        // TOML's syntax.
        ("fallback = |", "string values must be quoted"),
        (
            "[[rule]]\npattern = 'a|\nanswer = 'b'",
            "rule 1: invalid literal string",
        ),
        ("fallback = \"你\\|q\"", "missing escaped value"),
        (
            "[[rule]]\npattern = 'a'\n|pattern = 'b'\nanswer = 'c'",
            "rule 1: duplicate key",
        ),
        ("# 注释\r\nfallback = '好'\r\n\u{feff}|x", ""),
        // What is unknown, missing, or of the wrong type.
        ("|fallbak = ''", "unknown field `fallbak`"),
        ("\u{feff}|fallbak = ''", "unknown field `fallbak`"),
        (
            "[[rule]]\npattern = 'a'\nanswer = 'b'\n[[rule]]\n'答' = ''|",
            "",
        ),
        (
            "[[rule]]\r\npattern = '你'\r\nanswer = 'b'\r\n[[rule]]\r\n|\"答\" = 'b'",
            "rule 2: unknown field `答`",
        ),
        (
            "[[rule]]\npattern = 'a'\nanswer = 'b'\n|anywere = true\n[[rule]]",
            "rule 1: unknown field `anywere`",
        ),
        (
            "[[rule]]\npattern = 'a'\nanswer = 'b'\n[|reflekt]",
            "unknown field `reflekt`",
        ),
        (
            "[[rule]]\npattern = 'a'\nanswer = 'b'\n|[[rule]]\npattern = 'b'",
            "rule 2: missing field `answer`",
        ),
        (
            "rule = [{pattern = 'a', answer = 'b'}, |{answer = 'c'}]",
            "rule 2: missing field `pattern`",
        ),
        ("rule = |3", "invalid type: integer `3`"),
        (
            "[[rule]]\npattern = 'a'\nanswer = ['b', |3]",
            "rule 1: invalid type: integer `3`",
        ),
        (
            "[[rule]]\npattern = 'a'\nanswer = |[]",
            "rule 1: invalid length 0",
        ),
        (
            "[[rule]]\npattern = 'a'\nanswer = ''\nanywhere = |'yes'",
            "rule 1: invalid type: string \"yes\"",
        ),
        ("[reflect]\n'我' = |1", "invalid type: integer `1`"),
        ("'a\\n|", ""),
    ] {
        check_error(marked, message);
    }
}

#[test]
fn an_error_of_a_rule_tells_line_column_and_rule() {
    for (marked, message) in [
        (
            "[[rule]]\npattern = '你好|('\nanswer = ''",
            "rule 1: bad pattern at byte 6: unclosed group",
        ),
        (
            "[[rule]]\npattern = \"\\u4f60\\\\d|(\"\nanswer = ''",
            "rule 1: bad pattern at byte 5: unclosed group",
        ),
        (
            "[[rule]]\npattern = \"\"\"\n你\\\n   |(\"\"\"\nanswer = ''",
            "rule 1: bad pattern at byte 3",
        ),
        (
            "[[rule]]\npattern = '''\r\n你\r\n好|('''\r\nanswer = ''",
            "rule 1: bad pattern at byte 7",
        ),
        (
            "[[rule]]\npattern = '|\\w{1000}{1000}'\nanswer = ''",
            "rule 1: bad pattern at byte 0: its automaton",
        ),
        (
            "[[rule]]\npattern='a'\nanswer='b'\n[[rule]]\npattern = 'a'\nanswer = ['x', '你|{1}']",
            "rule 2: bad template 2 at byte 3: `{1}`, but the pattern has no such group",
        ),
        (
            "[[rule]]\npattern = 'a'\nanswer = \"\\t\\\"\\x41\\U0001f916|{x}\"",
            "rule 1: bad template 1 at byte 7",
        ),
        (
            "[[rule]]\npattern = 'a'\nanswer = \"\"\"a\"\"|{\n}\"\"\"",
            "rule 1: bad template 1 at byte 3: `{\\n}`",
        ),
        (
            "[[rule]]\npattern = 'a'\nanswer = '''a''|}'''",
            "rule 1: bad template 1 at byte 3",
        ),
        (
            "[[rule]]\npattern = 'a'\nanswer = '|{~0}'",
            "rule 1: bad template 1 at byte 0",
        ),
        (
            "[substitute]\na = 'b'\n|\"\" = 'c'",
            "bad substitution of ``: it is empty",
        ),
        (
            "[reflect]\n|'' = 'c'\n'b' = 'c'",
            "bad reflection of ``: it is empty",
        ),
        ("[reflect]\n|my = 'a'\nMy = 'b'", "bad reflection of `my`"),
    ] {
        check_error(marked, message);
    }
}

#[test]
fn an_error_is_of_the_format_or_of_a_rule() {
    let problem = |file: &str| Robot::from_toml(file).unwrap_err().problem;
    assert!(matches!(
        problem("[[rule]]\npattern = 'a'\nanswer = 'b'\nx = 1"),
        RuleFileProblem::Format { rule: Some(1), .. }
    ));
    assert!(matches!(
        problem("x = 1"),
        RuleFileProblem::Format { rule: None, .. }
    ));
    assert!(matches!(
        problem("[[rule]]\npattern = '('\nanswer = 'b'"),
        RuleFileProblem::Rule(RuleError::Pattern {
            rule: 1,
            offset: 0,
            ..
        })
    ));
}

#[test]
fn a_file_without_rules_is_refused() {
    for file in [
        "",
        "\n",
        "\u{feff}",
        "# nothing\r\n",
        "fallback = 'Go on.'\n",
        "rule = []\n[reflect]\n[substitute]\n",
    ] {
        let error = Robot::from_toml(file).unwrap_err();
        assert_eq!(error.problem, RuleFileProblem::NoRules, "{file:?}");
        assert_eq!(
            error.to_string(),
            "line 1, column 1: there is no rule: it needs at least one `[[rule]]`"
        );
    }
}

#[test]
fn bytes_that_are_no_text_are_an_error_with_their_place() {
    for (before, line, column) in [
        (&b""[..], 1, 1),
        (b"\xef\xbb\xbf", 1, 1),
        (b"# \xe5\xa5\xbd", 1, 4),
        ("[[rule]]\r\npattern = '你好".as_bytes(), 2, 14),
    ] {
        for bad in [&b"\xff"[..], b"\xe4\xbd", b"\xc3("] {
            let error = Robot::from_toml([before, bad, b"'\n"].concat()).unwrap_err();
            assert_eq!(error.problem, RuleFileProblem::NotUtf8);
            assert_eq!((error.line, error.column), (line, column), "{before:?}");
        }
    }
}

#[test]
fn a_file_may_be_as_any_editor_leaves_it() {
    let text = "fallback = '-'\n[[rule]]\npattern = '''\na\n(.)'''\nanswer = '{1}'";
    let requests = ["a\nb", "a\r\nb", "ab"];
    let expected = requests.map(|request| said(&Robot::from_toml(text).unwrap(), request));
    for mark in ["", "\u{feff}"] {
        for end in ["", "\n"] {
            let lf = format!("{mark}{text}{end}");
            for file in [lf.replace('\n', "\r\n"), lf] {
                let robot = Robot::from_toml(&file).unwrap();
                let answers = requests.map(|request| said(&robot, request));
                assert_eq!(answers, expected, "{file:?}");
            }
        }
    }
}

#[test]
fn rules_that_never_answer_are_warned_of_with_their_line() {
    let file = "\u{feff}[[rule]]\r\npattern = 'hi'\r\nanswer = '1'\r\n\r\n\
                [[rule]]\r\nanswer = '2'\r\npattern = 'hi'\r\n\r\n\
                [[rule]]\npattern = 'hi'\nanswer = '3'\nanywhere = true\n\
                [[rule]]\npattern = 'hi'\nanswer = '4'\ncase_insensitive = true\n\
                [[rule]]\npattern = ''\nanswer = '5'\n\
                [[rule]]\npattern = 'hi'\nanswer = '6'\n\
                [[rule]]\npattern = '(a?)'\nanswer = '7'\n\
                [[rule]]\npattern = ''\nanswer = '8'\nanywhere = true\n";
    let robot = Robot::from_toml(file).unwrap();
    let warnings = robot.warnings().iter().map(RuleWarning::to_string);
    let matches_all = "matches every request, so no rule behind it ever answers: its pattern matches \
                       the empty text";
    let expected = [
        "line 7: rule 2 never answers: its pattern is the same as that of rule 1".to_owned(),
        format!("line 18: rule 5 {matches_all}"),
        "line 21: rule 6 never answers: its pattern is the same as that of rule 3".to_owned(),
        format!("line 24: rule 7 {matches_all}"),
        "line 27: rule 8 matches every request: its pattern is empty; a fallback does the same"
            .to_owned(),
    ];
    assert_eq!(warnings.collect::<Vec<_>>(), expected);
    assert_eq!(
        robot.warnings()[0].problem,
        RuleProblem::Repeated { earlier: 1 }
    );
    assert!(Robot::from_toml(ELIZA).unwrap().warnings().is_empty());
    assert!(Robot::from_toml(ZURICH).unwrap().warnings().is_empty());
}

#[test]
#[cfg_attr(miri, ignore = "builds large automata")]
fn too_many_rules_are_refused_where_they_become_too_many() {
    let mut rules = String::new();
    for number in 0..40 {
        writeln!(
            rules,
            "[[rule]]\npattern = '{number}\\w{{20}}'\nanswer = ''"
        )
        .unwrap();
    }
    let file = RuleFile::parse(&rules).unwrap();
    assert_eq!(file.rules(), 40);
    let error = file.memory_limit(4 << 20).build().unwrap_err();
    let RuleFileProblem::Rule(RuleError::TooManyRules { rule, bytes, limit }) = error.problem
    else {
        panic!("{error}");
    };
    assert_eq!((error.line, error.column), (3 * rule - 1, 11));
    assert_eq!(limit, 4 << 20);
    assert!((limit..2 * limit).contains(&bytes), "{bytes}");
    let robot = RuleFile::parse(&rules)
        .unwrap()
        .memory_limit(1 << 30)
        .build();
    assert_eq!(robot.unwrap().rules(), 40);
}

#[test]
#[cfg_attr(miri, ignore = "builds large automata")]
fn a_rule_in_a_file_has_the_flags_of_a_rule_that_is_built() {
    type Set = fn(Rule, bool) -> Rule;
    let flags: [(&str, Set, &str); 7] = [
        ("case_insensitive", Rule::case_insensitive, "K"),
        ("multi_line", Rule::multi_line, "^b$"),
        ("dot_matches_new_line", Rule::dot_matches_new_line, "a.b"),
        ("crlf", Rule::crlf, "(?m)^b$"),
        ("ignore_whitespace", Rule::ignore_whitespace, "a b"),
        ("swap_greed", Rule::swap_greed, "a+"),
        ("unicode", Rule::unicode, r"\w"),
    ];
    let requests = [
        "k", "\u{212a}", "b\nc", "b\r\nc", "a\nb", "ab", "a b", "aaa", "é",
    ];
    for (name, set, pattern) in flags {
        let mut answers = Vec::new();
        for yes in [false, true] {
            let file = format!(
                "fallback = '-'\n[[rule]]\npattern = '{pattern}'\nanswer = '<{{0}}>'\n{name} = {yes}\n"
            );
            let from_file = Robot::from_toml(&file).unwrap();
            let rule = set(Rule::new(pattern, "<{0}>"), yes);
            let built = Robot::builder()
                .fallback("-")
                .rules([rule])
                .build()
                .unwrap();
            for request in requests {
                assert_eq!(said(&from_file, request), said(&built, request), "{file}");
            }
            answers.push(requests.map(|request| said(&built, request)));
        }
        assert_ne!(answers[0], answers[1], "{name} changes nothing");
    }
}

#[test]
fn the_listener_reflects_what_it_is_told() {
    for (request, answers) in [
        (
            "I am sad about my job.",
            [
                "How long have you been sad about your job?",
                "What is it like to be sad about your job?",
                "Who else knows that you are sad about your job?",
            ]
            .as_slice(),
        ),
        (
            "I think you hate me and my myths",
            &[
                "What makes you say that I hate you and your myths?",
                "Was there a time when you did not think that I hate you and your myths?",
            ],
        ),
        // A name is left as it is.
        (
            "My name is My",
            &[
                "Nice to meet you, My. What brings you here?",
                "My, what would you like to tell me?",
            ],
        ),
        (
            "我觉得你不喜欢我",
            &[
                "是什么让您觉得我不喜欢您？",
                "有没有人不觉得我不喜欢您？",
                "如果不是我不喜欢您呢？",
            ],
        ),
        (
            "我叫小我",
            &[
                "小我，很高兴认识您。今天为什么来？",
                "小我，您想先说哪一件事？",
            ],
        ),
        (
            "Is that a ROBOT?",
            &[
                "Yes, I am a few rules in a file. Does that trouble you?",
                "What would be different if I were a person?",
            ],
        ),
    ] {
        let answer = said(&ELIZA_ROBOT, request).0;
        assert!(answers.contains(&answer.as_str()), "{request}: {answer}");
    }
}

#[test]
fn every_rule_of_the_listener_answers_something() {
    let requests = [
        "hello!",
        "Bye",
        "my name is Ada",
        "what a machine",
        "I'm afraid of spiders",
        "I am tired",
        "I love you",
        "I want a dog",
        "i believe it",
        "I can't sleep",
        "you are kind",
        "You know",
        "why?",
        "ask my friends",
        "well, because I said so",
        "Yes",
        "你好！",
        "再见",
        "我叫小明",
        "你是机器人",
        "我怕黑",
        "我想要一只狗",
        "我觉得冷",
        "我妈妈来了",
        "我们走吧",
        "我累了",
        "你累吗？",
        "你不懂",
        "为什么？",
        "是因为你",
    ];
    for (request, rule) in requests.iter().zip(1..) {
        assert_eq!(ELIZA_ROBOT.answer(request).rule(), Some(rule), "{request}");
    }
    let rules = ELIZA.matches("[[rule]]").count();
    assert_eq!(requests.len(), rules);
}
