//! `--html`: a report that needs nothing outside its one file.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::plot::{Curve, escaped, float, shown};
use super::summary::Summary;

/// The page: numbers, the latency by percentile, and how many answers took how long.
pub(crate) fn page(summary: &Summary<'_>, time: &str) -> String {
    let title = format!("{}: {}", summary.target, summary.load());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         <p>{:.1} s, {time}</p>\n<pre>{summary}</pre>\n",
        summary.tally.time.as_secs_f64(),
        title = escaped(&title),
        time = escaped(time),
        summary = escaped(&summary.to_string()),
    );
    match Curve::new(&summary.tally.latency) {
        None => page.push_str("<p>No right answer came: there is nothing to plot.</p>\n"),
        Some(curve) => {
            let _ = write!(
                page,
                "<h2>Latency by percentile</h2>\n{}\n<h2>How many answers took how long</h2>\n{}\n",
                curve.svg("", ""),
                bars(&summary.tally.latency)
            );
        }
    }
    let _ = write!(
        page,
        "<h2>As JSON</h2>\n<pre class=\"json\">{}</pre>\n</body>\n</html>\n",
        escaped(summary.json().trim_end())
    );
    page
}

/// How many answers fell into each of some spans of time, which are equally wide on a logarithmic axis.
fn bars(latency: &Histogram<u64>) -> String {
    let (left, top, width, height) = (76.0, 20.0, 600.0, 220.0);
    let bottom = top + height;
    let (least, most) = (float(latency.min().max(1)), float(latency.max().max(1)));
    // One bar of a round width, if all took the same time.
    let (least, most) = (least * 0.9, (most * 1.1).max(least * 2.0));
    let place = |nanos: f64| ((nanos / least).ln() / (most / least).ln()).clamp(0.0, 1.0);
    let mut counts = [0_u64; BARS];
    for value in latency.iter_recorded() {
        let at = place(float(value.value_iterated_to())) * float(BARS as u64);
        counts[index(at)] += value.count_since_last_iteration();
    }
    let highest = float(counts.iter().copied().max().unwrap_or(1).max(1));
    let mut svg =
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 720 290' width='720' height='290' \
         font-family='sans-serif' font-size='12' fill='#222'>\n\
         <rect width='100%' height='100%' fill='white'/>\n"
            .to_string();
    for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let bar = (float(*count) / highest * height).max(1.0);
        let step = width / float(BARS as u64);
        let _ = writeln!(
            svg,
            "<rect x='{:.1}' y='{:.1}' width='{:.1}' height='{bar:.1}' fill='#2e86ab'/>",
            left + float(at as u64) * step,
            bottom - bar,
            step - 1.0
        );
    }
    for quarter in 0..=4_u8 {
        let part = f64::from(quarter) / 4.0;
        let _ = writeln!(
            svg,
            "<text x='{:.1}' y='{}' text-anchor='middle'>{}</text>",
            left + part * width,
            bottom + 18.0,
            shown(least * (most / least).powf(part))
        );
    }
    let _ = write!(
        svg,
        "<path d='M{left} {top}V{bottom}H{}' fill='none' stroke='#222'/>\n\
         <text x='{}' y='{}' text-anchor='end' fill='#555'>time on a logarithmic axis; the highest bar: \
         {highest:.0}</text>\n</svg>",
        left + width,
        left + width,
        bottom + 42.0
    );
    svg
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is not negative, and small"
)]
fn index(at: f64) -> usize {
    (at as usize).min(BARS - 1)
}

const BARS: usize = 60;
const STYLE: &str = "body{font-family:sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}\
    h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}pre{background:#f6f6f6;padding:1rem;\
    overflow-x:auto}pre.json{white-space:pre-wrap}svg{max-width:100%;height:auto}";
