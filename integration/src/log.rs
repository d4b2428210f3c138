//! Reads log files in the CRI's format: `TIME STREAM TAG TEXT`, one record a line.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

/// Where a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Whether a record ends its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// More of the same line follows.
    Partial,
    /// The line ends here.
    Full,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// RFC 3339 with nanoseconds, as written.
    pub time: String,
    /// Where it came from.
    pub stream: Stream,
    /// Whether it ends its line.
    pub tag: Tag,
    /// The text without the newline.
    pub text: String,
}

/// Reads the whole file at `path`.
///
/// # Errors
/// When it cannot be read, or a record is malformed, also one without its newline.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let bytes = fs::read(path).with_context(|| format!("reading the log {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    ensure!(
        text.is_empty() || text.ends_with('\n'),
        "{}: the last record is torn",
        path.display()
    );
    text.lines()
        .map(|line| parse(line).with_context(|| format!("the record {line:?}")))
        .collect()
}

fn parse(line: &str) -> Result<Line> {
    let mut parts = line.splitn(4, ' ');
    let mut next = |what: &str| parts.next().with_context(|| format!("has no {what}"));
    let time = next("time")?.to_owned();
    ensure!(
        is_time(&time),
        "{time:?} is no RFC 3339 time with nanoseconds"
    );
    let stream = match next("stream")? {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        other => anyhow::bail!("{other:?} is no stream"),
    };
    let tag = match next("tag")? {
        "P" => Tag::Partial,
        "F" => Tag::Full,
        other => anyhow::bail!("{other:?} is no tag"),
    };
    Ok(Line {
        time,
        stream,
        tag,
        text: next("text")?.to_owned(),
    })
}

/// `2026-01-02T03:04:05.123456789` and `Z` or an offset such as `+02:00`.
fn is_time(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    ["Z", "+00:00", "-00:00"]
        .iter()
        .any(|zone| shape.strip_suffix(zone) == Some("0000-00-00T00:00:00.000000000"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_are_parsed() {
        let line = parse("2026-01-02T03:04:05.123456789Z stderr P a b").unwrap();
        assert_eq!(
            (line.stream, line.tag, line.text.as_str()),
            (Stream::Stderr, Tag::Partial, "a b")
        );
        assert_eq!(
            parse("2026-01-02T03:04:05.123456789+02:00 stdout F ")
                .unwrap()
                .text,
            ""
        );
    }

    #[test]
    fn malformed_records_are_refused() {
        for line in [
            "",
            "2026-01-02T03:04:05Z stdout F a",
            "2026-01-02T03:04:05.123456789Z out F a",
            "2026-01-02T03:04:05.123456789Z stdout X a",
            "2026-01-02T03:04:05.123456789Z stdout F",
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
