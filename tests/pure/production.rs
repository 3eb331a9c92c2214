//! The page on running a server in production: it leaves nothing out that an operator meets.

use rejoinder::{DropReason, Stats};

const PAGE: &str = include_str!("../../src/guide/production.md");

/// The first cells of a table's rows, in the section with a heading.
fn first_cells(heading: &str) -> Vec<&'static str> {
    let section = PAGE.split("\n# ").find(|part| part.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no section `{heading}`"));
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| Some(row.split_once(" |")?.0))
        .collect()
}

#[test]
fn every_reason_for_a_drop_is_explained_under_both_its_names_in_order() {
    let stats = Stats::default();
    let mut expected: Vec<_> = stats
        .drops()
        .map(|(reason, _)| format!("`{reason}` ([`{reason:?}`](crate::DropReason::{reason:?}))"))
        .collect();
    assert!(expected.len() >= 11);
    let gate = format!("{:?}", DropReason::Gate(""));
    let gate = gate.split('(').next().unwrap_or_default();
    let gates = format!("a gate's own text ([`{gate}`](crate::DropReason::{gate}))");
    let after_the_rate = expected.iter().position(|row| row.contains("RateLimited"));
    expected.insert(after_the_rate.map_or(0, |at| at + 1), gates);
    // Below the header and the line under it.
    assert_eq!(first_cells("Why datagrams are dropped")[2..], expected);
}

#[test]
fn every_counter_and_every_class_of_errors_is_explained() {
    let counters = first_cells("What the counters mean");
    let classes = first_cells("Errors of the socket");
    for (name, _) in Stats::default().counters() {
        let class = ["receive_errors_", "send_errors_"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix));
        let (table, row) = match (class, name.starts_with("dropped_")) {
            (Some(class), _) => (&classes, class),
            (None, true) => (&counters, "dropped"),
            (None, false) => (&counters, name),
        };
        assert!(table.contains(&format!("`{row}`").as_str()), "{name}");
    }
}
