//! The tables that crictl prints: columns begin where their headings do.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

/// A row's cells by their columns' headings.
pub(super) type Row = BTreeMap<String, String>;

/// What `crictl stats` begins with: an empty screen.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// The rows below the headings.
pub(super) fn rows(text: &str) -> Result<Vec<Row>> {
    let text = text.trim_start_matches(CLEAR);
    let mut lines = text.lines();
    let headings = lines.next().context("no line of headings")?;
    let columns = columns(headings);
    ensure!(!columns.is_empty(), "no headings in {headings:?}");
    let row = |line: &str| {
        let cells = columns.iter().map(|(start, end)| {
            let heading = cut(headings, *start, *end);
            (heading, cut(line, *start, *end))
        });
        cells.collect()
    };
    Ok(lines
        .filter(|line| !line.trim().is_empty())
        .map(row)
        .collect())
}

/// Where columns begin and end: after two spaces or more.
fn columns(headings: &str) -> Vec<(usize, usize)> {
    let mut starts = vec![0];
    let bytes = headings.as_bytes();
    starts.extend((2..bytes.len()).filter(|at| bytes[at - 2..*at] == *b"  " && bytes[*at] != b' '));
    let ends = starts[1..].iter().copied().chain([usize::MAX]);
    starts.iter().copied().zip(ends).collect()
}

fn cut(line: &str, start: usize, end: usize) -> String {
    let end = end.min(line.len());
    line.get(start.min(end)..end)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// One column of all rows.
pub(super) fn column(rows: &[Row], heading: &str) -> Vec<String> {
    let cell = |row: &Row| row.get(heading).cloned().unwrap_or_default();
    rows.iter().map(cell).collect()
}

#[test]
fn cells_are_cut_at_the_headings() -> Result<()> {
    let text = "\u{1b}[2J\u{1b}[HPOD ID              CREATED          NAME\n\
                abc                 2 seconds ago    a b\n";
    let rows = rows(text)?;
    assert_eq!(column(&rows, "POD ID"), ["abc"]);
    assert_eq!(column(&rows, "CREATED"), ["2 seconds ago"]);
    assert_eq!(column(&rows, "NAME"), ["a b"]);
    Ok(())
}
