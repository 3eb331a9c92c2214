//! Latency by percentile, on a terminal and as SVG.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// The latency at every percentile, over an axis on which each further nine takes as much space as
/// the one before, and a logarithmic one of times.
pub(crate) struct Curve<'a> {
    latency: &'a Histogram<u64>,
    /// How many nines there are to show.
    nines: f64,
    /// The axis of times, in nanoseconds.
    least: f64,
    most: f64,
}

impl<'a> Curve<'a> {
    /// `None` if there is nothing to draw.
    pub(crate) fn new(latency: &'a Histogram<u64>) -> Option<Self> {
        if latency.is_empty() {
            return None;
        }
        let (least, most) = (float(latency.min().max(1)), float(latency.max().max(1)));
        Some(Self {
            latency,
            nines: float(latency.len()).log10().clamp(1.0, MOST_NINES),
            least: least * 0.9,
            most: (most * 1.1).max(least * 2.0),
        })
    }

    /// The height, from 0 to 1, at a place along the axis of percentiles, from 0 to 1.
    fn at(&self, place: f64) -> f64 {
        let quantile = 1.0 - 10_f64.powf(-place * self.nines);
        self.height(float(self.latency.value_at_quantile(quantile)))
    }

    fn height(&self, nanos: f64) -> f64 {
        ((nanos / self.least).ln() / (self.most / self.least).ln()).clamp(0.0, 1.0)
    }

    /// The time at a height.
    fn time(&self, height: f64) -> f64 {
        self.least * (self.most / self.least).powf(height)
    }

    /// Percentiles worth a mark, and where they are.
    fn marks(&self) -> impl Iterator<Item = (&'static str, f64)> {
        MARKS
            .into_iter()
            .map(|(name, nines)| (name, nines / self.nines))
            .filter(|&(_, place)| place <= 1.0)
    }

    /// Drawn with dots, eight to a character (Braille, which no terminal takes for wide), at most so
    /// many columns wide.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "columns and dots are few, and not negative"
    )]
    pub(crate) fn text(&self, columns: usize) -> String {
        let width = columns.clamp(LABEL + 12, 110) - LABEL - 2;
        let heights: Vec<usize> = (0..2 * width)
            .map(|dot| {
                let height = self.at(float(dot as u64) / float(2 * width as u64 - 1));
                (height * float(4 * ROWS as u64)).round() as usize
            })
            .collect();
        let mut text = String::new();
        for row in (0..ROWS).rev() {
            let label = match row {
                _ if row + 1 == ROWS => shown(self.time(1.0)),
                _ if row == ROWS / 2 => shown(self.time(0.5)),
                0 => shown(self.time(0.0)),
                _ => String::new(),
            };
            let _ = write!(text, "{label:>LABEL$} |");
            for pair in heights.chunks_exact(2) {
                text.push(braille([
                    pair[0].saturating_sub(4 * row),
                    pair[1].saturating_sub(4 * row),
                ]));
            }
            text.push('\n');
        }
        let _ = writeln!(text, "{:LABEL$} +{}", "", "-".repeat(width));
        let mut axis = String::new();
        for (name, place) in self.marks() {
            let at = (place * float(width as u64 - 1)).round() as usize;
            let start = at.min(width.saturating_sub(name.len()));
            if axis.is_empty() || axis.len() < start {
                let _ = write!(axis, "{:1$}{name}", "", start - axis.len());
            }
        }
        let _ = writeln!(text, "{:LABEL$}  {axis}", "");
        text
    }

    /// A picture of its own, with a title and a line below it.
    pub(crate) fn svg(&self, title: &str, subtitle: &str) -> String {
        let (left, top, width, height) = (76.0, 62.0, 600.0, 260.0);
        let (right, bottom) = (left + width, top + height);
        let x = |place: f64| left + place * width;
        let y = |at: f64| bottom - at * height;
        let mut svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 720 380' width='720' \
             height='380' font-family='sans-serif' font-size='12' fill='#222'>\n\
             <rect width='100%' height='100%' fill='white'/>\n\
             <text x='{left}' y='24' font-size='16'>{}</text>\n\
             <text x='{left}' y='44' fill='#555'>{}</text>\n",
            escaped(title),
            escaped(subtitle)
        );
        for time in self.round_times() {
            let at = y(self.height(time));
            let _ = writeln!(
                svg,
                "<path d='M{left} {at:.1}H{right}' stroke='#ddd'/>\
                 <text x='{}' y='{:.1}' text-anchor='end'>{}</text>",
                left - 8.0,
                at + 4.0,
                shown(time)
            );
        }
        for (name, place) in self.marks() {
            let at = x(place);
            let _ = writeln!(
                svg,
                "<path d='M{at:.1} {top}V{bottom}' stroke='#ddd'/>\
                 <text x='{at:.1}' y='{}' text-anchor='middle'>{name}</text>",
                bottom + 18.0
            );
        }
        let mut path = String::new();
        for step in 0..=POINTS {
            let place = f64::from(step) / f64::from(POINTS);
            let verb = if step == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{:.1} {:.1}", x(place), y(self.at(place)));
        }
        let _ = write!(
            svg,
            "<path d='{path}' fill='none' stroke='#d1495b' stroke-width='2'/>\n\
             <path d='M{left} {top}V{bottom}H{right}' fill='none' stroke='#222'/>\n\
             <text x='{right}' y='{}' text-anchor='end' fill='#555'>\
             percentile of the right answers; time on a logarithmic axis</text>\n</svg>\n",
            bottom + 42.0
        );
        svg
    }

    /// 1, 2 and 5 times the powers of ten that are on the axis, in nanoseconds.
    fn round_times(&self) -> impl Iterator<Item = f64> {
        let wide = self.most / self.least > 1_000.0;
        let steps: &[f64] = if wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
        (0..13)
            .flat_map(move |power| steps.iter().map(move |step| step * 10_f64.powi(power)))
            .filter(|time| (self.least..=self.most).contains(time))
    }
}

/// A time in nanoseconds, with a unit and three digits.
pub(crate) fn shown(nanos: f64) -> String {
    let (value, unit) = match nanos {
        ..1e3 => (nanos, "ns"),
        ..1e6 => (nanos / 1e3, "µs"),
        ..1e9 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// Numbers of nanoseconds, of requests and of columns, none of which needs more than 53 bits.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// A character with two columns of dots, filled from below.
fn braille(heights: [usize; 2]) -> char {
    const LEFT: [u8; 5] = [0, 0x40, 0x44, 0x46, 0x47];
    const RIGHT: [u8; 5] = [0, 0x80, 0xa0, 0xb0, 0xb8];
    let dots = LEFT[heights[0].min(4)] | RIGHT[heights[1].min(4)];
    char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' ')
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const MOST_NINES: f64 = 5.0;
/// Percentiles, and how many nines that is: -log₁₀ of the rest.
const MARKS: [(&str, f64); 7] = [
    ("0 %", 0.0),
    ("50 %", 0.301),
    ("90 %", 1.0),
    ("99 %", 2.0),
    ("99.9 %", 3.0),
    ("99.99 %", 4.0),
    ("99.999 %", 5.0),
];
/// The width of the times beside the plot.
const LABEL: usize = 8;
const ROWS: usize = 8;
/// How finely the curve is drawn.
const POINTS: u32 = 300;
