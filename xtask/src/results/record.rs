//! A record: a commit, where and when it was measured, and the benchmark's rows.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{programs, workspace};

/// Whose figures they are.
#[derive(Debug)]
pub(crate) struct Commit(String);

impl Commit {
    /// The commit that is checked out.
    ///
    /// # Errors
    /// When something of it was changed: what is measured then is no commit.
    pub(crate) fn checked_out() -> Result<Self> {
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            programs::output(git.args(arguments).current_dir(workspace::root()))
        };
        let changed = git(&["status", "--porcelain"])?;
        if !changed.is_empty() {
            bail!("figures are recorded of a commit; commit first:\n{changed}");
        }
        Ok(Self(git(&["rev-parse", "HEAD"])?.trim().to_owned()))
    }
}

/// The name and content of the file of `rows`, as the benchmark writes them.
pub(super) fn file(commit: &Commit, rows: &str) -> Result<(String, String)> {
    let date = programs::output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    let date = date.trim();
    let rows: Value = serde_json::from_str(rows).context("reading the benchmark's figures")?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let record = json!({
        "commit": commit.0,
        "date": date,
        "kernel": kernel.trim(),
        "processors": processors(),
        "rows": rows,
    });
    let (day, _) = date.split_once('T').context("date prints no time")?;
    let short = commit.0.get(..12).unwrap_or(&commit.0);
    let text = serde_json::to_string_pretty(&record)? + "\n";
    Ok((format!("{day}-{short}.json"), text))
}

/// How many, and of which make.
fn processors() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim())
    });
    let models: Vec<_> = models.collect();
    let model = models.first().unwrap_or(&"unknown");
    format!("{} × {model}", models.len())
}

/// Which way is better, and where good enough begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    Most(f64),
    Least(f64),
}

impl Goal {
    pub(super) fn bound(self) -> f64 {
        match self {
            Self::Most(bound) | Self::Least(bound) => bound,
        }
    }
}

/// One figure.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) figure: String,
    pub(super) unit: String,
    pub(super) goal: Goal,
    /// Podwright's.
    pub(super) own: Option<f64>,
    /// Of the runtime beside it.
    pub(super) peer: Option<f64>,
}

/// What was measured of one commit.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    pub(super) commit: String,
    /// As RFC 3339 has it, in UTC: it sorts as text.
    pub(super) date: String,
    pub(super) rows: Vec<Row>,
}

impl Record {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let record: Value = serde_json::from_str(text)?;
        let rows = record["rows"].as_array().context("it has no rows")?;
        Ok(Self {
            commit: field(&record, "commit")?,
            date: field(&record, "date")?,
            rows: rows
                .iter()
                .filter_map(|of| row(of).transpose())
                .collect::<Result<_>>()?,
        })
    }
}

fn field(value: &Value, name: &str) -> Result<String> {
    let text = value[name].as_str().map(str::to_owned);
    text.with_context(|| format!("it has no {name}"))
}

/// None when it has no goal: it tells what the machine was like.
fn row(row: &Value) -> Result<Option<Row>> {
    if row.get("goal") == Some(&Value::Null) {
        return Ok(None);
    }
    let bound = |name: &str| row["goal"][name].as_f64();
    let goal = match (bound("at_most"), bound("at_least")) {
        (Some(bound), None) => Goal::Most(bound),
        (None, Some(bound)) => Goal::Least(bound),
        _ => bail!("a row's goal is neither a most nor a least: {row}"),
    };
    let values = row["values"].as_object().context("a row has no values")?;
    let value = |is_own: bool| {
        let of = |(name, _): &(&String, &Value)| name.starts_with("podwright ") == is_own;
        values.iter().find(of).and_then(|(_, value)| value.as_f64())
    };
    Ok(Some(Row {
        figure: field(row, "figure")?,
        unit: field(row, "unit")?,
        goal,
        own: value(true),
        peer: value(false),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = r#"[
        { "figure": "the machine", "unit": "ns", "goal": null,
          "values": { "podwright 0.1.0": 140.0, "containerd v2.3.4": 150.0 } },
        { "figure": "pod up", "unit": "ms", "goal": { "at_most": 8.0 },
          "values": { "podwright 0.1.0": 5.5, "containerd v2.3.4": 185.0 } },
        { "figure": "pods", "unit": "/s", "goal": { "at_least": 120.0 },
          "values": { "podwright 0.1.0": 130.0, "containerd v2.3.4": null } }
    ]"#;

    #[test]
    fn a_record_is_read_as_it_is_written() {
        let commit = Commit("0123456789abcdef0123456789abcdef01234567".to_owned());
        let Ok((name, text)) = file(&commit, ROWS) else {
            panic!("no record")
        };
        let Ok(record) = Record::parse(&text) else {
            panic!("{text}")
        };
        assert_eq!(name, format!("{}-0123456789ab.json", &record.date[..10]));
        assert_eq!(record.commit, commit.0);
        let row = |figure: &str, unit: &str, goal, own, peer| Row {
            figure: figure.to_owned(),
            unit: unit.to_owned(),
            goal,
            own: Some(own),
            peer,
        };
        let expected = [
            row("pod up", "ms", Goal::Most(8.0), 5.5, Some(185.0)),
            row("pods", "/s", Goal::Least(120.0), 130.0, None),
        ];
        assert_eq!(record.rows, expected);
    }

    #[test]
    fn what_is_no_record_says_so() {
        for text in [
            "",
            "{}",
            r#"{"commit":"a","date":"b","rows":[{"figure":"x"}]}"#,
        ] {
            assert!(Record::parse(text).is_err(), "{text}");
        }
    }
}
