//! Tables, and a plot.

use std::fmt;

use crate::peers::Peer;

/// One measurement.
#[derive(Clone, Copy)]
pub struct Sample {
    pub table: &'static str,
    pub load: &'static str,
    pub peer: Peer,
    pub round: usize,
    pub value: f64,
}

#[derive(Default)]
pub struct Report(Vec<Sample>);

struct Table {
    key: &'static str,
    title: &'static str,
    /// What one unit of the values is in the unit of the table.
    scale: f64,
    /// The ratios to these are shown.
    others: &'static [(&'static str, Peer)],
}

const USUAL: &[(&str, Peer)] = &[
    ("std loop", Peer::Std),
    ("UdpFramed", Peer::Framed),
    ("bare loop", Peer::Bare),
    ("rejoinder", Peer::Ours),
];

const TABLES: [Table; 5] = [
    Table {
        key: "cpu",
        title: "CPU time of the server per answer, µs",
        scale: 1e-3,
        others: USUAL,
    },
    Table {
        key: "throughput",
        title: "Answers per second, thousands",
        scale: 1e-3,
        others: USUAL,
    },
    Table {
        key: "latency",
        title: "One request in flight: median time of an exchange, µs",
        scale: 1e-3,
        others: USUAL,
    },
    Table {
        key: "waiting",
        title: "Handlers that wait 5 ms: CPU time of the server per answer, µs",
        scale: 1e-3,
        others: &[("task per datagram", Peer::WaitSpawn)],
    },
    Table {
        key: "clients",
        title: "CPU time of the client per answer, µs (blocking: rejoinder)",
        scale: 1e-3,
        others: &[("blocking", Peer::Ours)],
    },
];

impl Report {
    pub fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    fn values(&self, table: &str, load: &str, peer: Peer) -> Vec<f64> {
        let ours =
            |sample: &&Sample| sample.table == table && sample.load == load && sample.peer == peer;
        self.0
            .iter()
            .filter(ours)
            .map(|sample| sample.value)
            .collect()
    }

    fn loads(&self, table: &str) -> Vec<&'static str> {
        let mut loads = Vec::new();
        for sample in self.0.iter().filter(|sample| sample.table == table) {
            if !loads.contains(&sample.load) {
                loads.push(sample.load);
            }
        }
        loads
    }

    pub fn json(&self) -> String {
        let line = |sample: &Sample| {
            let Sample {
                table,
                load,
                peer,
                round,
                value,
            } = sample;
            let peer = peer.name();
            format!(
                "{{\"table\":\"{table}\",\"load\":\"{load}\",\"server\":\"{peer}\",\
                 \"round\":{round},\"value\":{value}}}\n"
            )
        };
        self.0.iter().map(line).collect()
    }

    /// Bars: the CPU time per answer, by load and server.
    pub fn svg(&self) -> String {
        const ROW: f64 = 18.0;
        const LEFT: f64 = 150.0;
        const WIDTH: f64 = 420.0;
        let shown = [Peer::Std, Peer::Framed, Peer::Ours, Peer::Bare];
        let colours = ["#9aa5b1", "#c3ccd5", "#d1495b", "#edae49"];
        let loads = self.loads("cpu");
        let medians: Vec<Vec<f64>> = loads
            .iter()
            .map(|load| {
                shown
                    .map(|peer| median(self.values("cpu", load, peer)))
                    .to_vec()
            })
            .collect();
        let most = medians.iter().flatten().copied().fold(1.0, f64::max);
        let mut y = 34.0;
        let mut body = String::new();
        for (load, values) in loads.iter().zip(&medians) {
            y += 14.0;
            body += &format!("<text x='8' y='{y}' font-weight='bold'>{load}</text>\n");
            y += 6.0;
            for ((value, peer), colour) in values.iter().zip(shown).zip(colours) {
                let width = (value / most * WIDTH).max(1.0);
                let (text_y, text_x) = (y + 12.0, LEFT + width + 6.0);
                body += &format!(
                    "<text x='{}' y='{text_y}' text-anchor='end'>{}</text>\
                     <rect x='{LEFT}' y='{y}' width='{width:.1}' height='14' fill='{colour}'/>\
                     <text x='{text_x:.1}' y='{text_y}'>{:.2}</text>\n",
                    LEFT - 6.0,
                    peer.name(),
                    value / 1e3
                );
                y += ROW;
            }
        }
        let (width, height) = (LEFT + WIDTH + 60.0, y + 10.0);
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' \
             width='{width}' height='{height}' font-family='sans-serif' font-size='12'>\n\
             <rect width='100%' height='100%' fill='white'/>\n\
             <text x='8' y='20' font-size='14'>{} (median; less is better)</text>\n{body}</svg>\n",
            TABLES[0].title
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &TABLES {
            let loads = self.loads(table.key);
            if loads.is_empty() {
                continue;
            }
            writeln!(f, "## {}\n", table.title)?;
            writeln!(
                f,
                "Median (range); ratios are medians (ranges) of the ratios of each round.\n"
            )?;
            for load in loads {
                write!(f, "| {load} | |")?;
                for (name, _) in table.others {
                    write!(f, " / {name} |")?;
                }
                writeln!(f, "\n| --- | --- |{}", " --- |".repeat(table.others.len()))?;
                for peer in Peer::ALL.into_iter().chain(Peer::WAITING) {
                    let values = self.values(table.key, load, peer);
                    if values.is_empty() {
                        continue;
                    }
                    let scaled = values.iter().map(|value| value * table.scale).collect();
                    write!(f, "| {} | {} |", peer.name(), Spread(scaled))?;
                    for &(_, other) in table.others {
                        let others = self.values(table.key, load, other);
                        let ratios: Vec<_> =
                            values.iter().zip(&others).map(|(a, b)| a / b).collect();
                        write!(
                            f,
                            " {} |",
                            Spread(if peer == other { Vec::new() } else { ratios })
                        )?;
                    }
                    writeln!(f)?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// A median and a range.
struct Spread(Vec<f64>);

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let min = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let digits = if max >= 100.0 {
            0
        } else if max >= 0.2 {
            2
        } else {
            3
        };
        match self.0.is_empty() {
            true => Ok(()),
            false => write!(
                f,
                "{:.digits$} ({min:.digits$}–{max:.digits$})",
                median(self.0.clone())
            ),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
