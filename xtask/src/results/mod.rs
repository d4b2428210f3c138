//! Figures that were measured, a file for each commit, and the chart of them all.
//!
//! A file per commit merges with any other; nothing else is stored, and the chart is drawn anew from all of them.

mod chart;
mod record;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::workspace;
pub(crate) use record::Commit;
use record::Record;

/// What a chart that is out of date needs.
const REMEDY: &str = "run cargo xtask chart, and commit what it writes";

fn directory() -> PathBuf {
    workspace::root().join("docs/performance/results")
}

fn chart() -> PathBuf {
    workspace::root().join("docs/performance/chart.svg")
}

/// Writes the record of `rows`, which the benchmark has measured of `commit`, and the chart.
pub(crate) fn record(commit: &Commit, rows: &str) -> Result<()> {
    let directory = directory();
    std::fs::create_dir_all(&directory)?;
    let (name, text) = record::file(commit, rows)?;
    let path = directory.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    draw()
}

/// `cargo xtask chart`: draws the chart of all records.
pub(crate) fn draw() -> Result<()> {
    let path = chart();
    let chart = chart::svg(&records()?);
    std::fs::write(&path, chart).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// Whether the chart is that of the records.
pub(crate) fn check() -> Result<()> {
    let (path, records) = (chart(), records()?);
    let drawn = std::fs::read_to_string(&path).unwrap_or_default();
    ensure!(
        drawn == chart::svg(&records),
        "{} is not the chart of the {} records: {REMEDY}",
        path.display(),
        records.len()
    );
    Ok(())
}

/// All records, oldest first.
fn records() -> Result<Vec<Record>> {
    let directory = directory();
    let mut records = Vec::new();
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(records),
        entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    for entry in entries {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let record = Record::parse(&text);
        records.push(record.with_context(|| format!("{} is no record", path.display()))?);
    }
    records.sort_by(|a, b| (&a.date, &a.commit).cmp(&(&b.date, &b.commit)));
    Ok(records)
}
