//! A robot of rules: patterns, templates, and words that are reflected.
//!
//! ```text
//! cargo run --example rules -- 'I am proud of my bot.' 今天我觉得你懂我
//! ```
//!
//! With the feature `rules`, the same can stand in a file: see `rules/eliza.toml`.

use rejoinder::bot::{Robot, Rule};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let robot = Robot::builder()
        // `{~name}` is the captured text, reflected.
        .rule("I am (?<what>[^.!?]+)", "Why are you {~what}?")
        .rules([Rule::new("我觉得(.+)", "为什么觉得{~1}？")
            .or_template("从什么时候起觉得{~1}？")
            .anywhere()])
        .reflect("my", "your")
        .reflect("我", "你")
        .reflect("你", "我")
        .fallback("Go on.")
        .build()?;

    let mut requests: Vec<String> = std::env::args().skip(1).collect();
    if requests.is_empty() {
        requests = ["I am proud of my bot.", "今天我觉得你懂我", "…"]
            .map(Into::into)
            .into();
    }
    for request in requests {
        let answer = robot.answer(&request);
        println!("{request}\n  {answer}  (rule {:?})", answer.rule());
    }
    Ok(())
}
