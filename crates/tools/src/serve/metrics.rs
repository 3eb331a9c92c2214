//! `--metrics`: counters for Prometheus, as text over HTTP (exposition format 0.0.4).

use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rejoinder::{ServerHandle, Stats};

use super::rules::Counters;
use super::transcript::Transcribed;
use crate::program::http::{Endpoint, Page as HttpPage};
use crate::program::output::Output;

/// Where the numbers come from.
struct Source {
    handle: ServerHandle,
    robot: Transcribed,
    rules: Arc<Counters>,
    outputs: [(&'static str, Option<Output>); 2],
    started: u64,
}

/// Answers scrapers on a thread of its own, as long as the program runs.
pub(super) fn serve(
    endpoint: Endpoint,
    handle: ServerHandle,
    robot: Transcribed,
    rules: Arc<Counters>,
    outputs: [(&'static str, Option<Output>); 2],
) -> io::Result<()> {
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    let source = Source {
        handle,
        robot,
        rules,
        outputs,
        started: started.map_or(0, |time| time.as_secs()),
    };
    endpoint.serve("metrics", move |path| match path {
        "/metrics" => Some(HttpPage {
            status: "200 OK",
            kind: "text/plain; version=0.0.4; charset=utf-8",
            body: source.text(),
        }),
        "/" => Some(HttpPage {
            status: "200 OK",
            kind: "text/html; charset=utf-8",
            body: INDEX.to_owned(),
        }),
        _ => None,
    })
}

const INDEX: &str = "<!doctype html><title>rejoinder</title><a href=\"/metrics\">metrics</a>\n";

impl Source {
    fn text(&self) -> String {
        let mut page = Page(String::new());
        page.info();
        page.stats(&self.handle.stats());
        page.family(
            "ready",
            "gauge",
            "1 while the server is in service, 0 when it is taken out of it.",
        );
        page.value("ready", "", u8::from(self.handle.is_ready()));
        page.family(
            "rules",
            "gauge",
            "Rules of the robot in use; 0 for the built-in one.",
        );
        page.value("rules", "", self.rules.rules());
        page.family(
            "rules_loaded_timestamp_seconds",
            "gauge",
            "When they were read, in seconds since 1970.",
        );
        page.value("rules_loaded_timestamp_seconds", "", self.rules.loaded_at());
        page.family(
            "rules_reloads_total",
            "counter",
            "Attempts to read the rules again, by result.",
        );
        page.value(
            "rules_reloads_total",
            "{result=\"used\"}",
            self.rules.reloads(),
        );
        page.value(
            "rules_reloads_total",
            "{result=\"refused\"}",
            self.rules.failures(),
        );
        let help =
            "Requests whose search for a rule took too much work, since the rules were read.";
        page.family("rules_exhausted_total", "counter", help);
        page.value("rules_exhausted_total", "", self.robot.exhausted());
        page.family(
            "output_lines_left_out_total",
            "counter",
            "Lines that a stream did not take.",
        );
        for (name, output) in &self.outputs {
            if let Some(output) = output {
                let labels = format!("{{stream=\"{name}\"}}");
                page.value("output_lines_left_out_total", &labels, output.left_out());
            }
        }
        page.family(
            "start_time_seconds",
            "gauge",
            "When the server started, in seconds since 1970.",
        );
        page.value("start_time_seconds", "", self.started);
        page.0
    }
}

/// A text under construction. Every name begins with `rejoinder_`.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(
            self.0,
            "# HELP rejoinder_{name} {help}\n# TYPE rejoinder_{name} {kind}\n"
        );
    }

    fn value(&mut self, name: &str, labels: &str, value: impl fmt::Display) {
        let _ = writeln!(self.0, "rejoinder_{name}{labels} {value}");
    }

    fn info(&mut self) {
        self.family(
            "build_info",
            "gauge",
            "The version, as a label of a constant 1.",
        );
        let labels = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        self.value("build_info", &labels, 1);
    }

    /// All counters, also those that the library gets later: what counts by reason or class becomes one
    /// family with a label.
    fn stats(&mut self, stats: &Stats) {
        let counters: Vec<_> = stats.counters().collect();
        for (name, value) in &counters {
            if LABELLED
                .iter()
                .all(|(prefix, ..)| !name.starts_with(prefix))
            {
                let (family, kind, help) = described(name);
                self.family(&family, kind, &help);
                self.value(&family, "", value);
            }
        }
        for (prefix, family, label, help) in LABELLED {
            self.family(family, "counter", help);
            for (name, value) in &counters {
                if let Some(of) = name.strip_prefix(prefix) {
                    self.value(family, &format!("{{{label}=\"{of}\"}}"), value);
                }
            }
        }
    }
}

/// The family of a counter, its kind and its help.
fn described(name: &str) -> (String, &'static str, String) {
    let help = match name {
        "received" => "Datagrams received.",
        "replied" => "Datagrams that were replied to.",
        "silent" => "Datagrams to which the handler chose not to reply.",
        "pending" => "Datagrams that wait for the handler.",
        "deferred" => "Datagrams whose handler has not finished.",
        "responses_sent" => "Responses sent.",
        "responses_failed" => "Responses that could not be sent.",
        "receive_errors" => "Errors of receiving, interruptions excepted.",
        "kernel_drops" => "Datagrams that the kernel dropped because the receive buffer was full.",
        _ => "",
    };
    let help = match help {
        "" => format!("The counter `{name}` of the library."),
        help => help.to_owned(),
    };
    match name {
        "pending" | "deferred" => (format!("datagrams_{name}"), "gauge", help),
        "received" | "replied" | "silent" => (format!("datagrams_{name}_total"), "counter", help),
        name => (format!("{name}_total"), "counter", help),
    }
}

/// A prefix of counters, their family, its label, and its help.
const LABELLED: [(&str, &str, &str, &str); 3] = [
    (
        "dropped_",
        "datagrams_dropped_total",
        "reason",
        "Datagrams dropped, by reason.",
    ),
    (
        "receive_errors_",
        "receive_errors_by_class_total",
        "class",
        "Errors of receiving, by class.",
    ),
    (
        "send_errors_",
        "send_errors_total",
        "class",
        "Errors of sending, by class.",
    ),
];

/// Among those that exporters share out (9000 to 9999).
pub(super) const DEFAULT_PORT: u16 = 9_888;

#[cfg(test)]
mod tests {
    use rejoinder::Stats;

    use super::Page;

    #[test]
    fn every_counter_of_the_library_is_there() {
        let mut page = Page(String::new());
        let mut stats = Stats::default();
        stats.received = 7;
        page.stats(&stats);
        assert!(
            page.0.contains("\nrejoinder_datagrams_received_total 7\n"),
            "{}",
            page.0
        );
        let values = page.0.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(values.count(), stats.counters().count(), "{}", page.0);
        // A family stands together, and has a help and a type.
        let families: Vec<_> = page
            .0
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let mut names: Vec<_> = families.iter().map(|line| line.split(' ').next()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), families.len());
    }
}
