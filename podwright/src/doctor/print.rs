//! Findings as text for people, and as JSON.

use std::fmt::Write as _;

use podwright_runtime::doctor::{Finding, Need, Verdict};

/// No line is longer, if no single word is.
const WIDTH: usize = 100;

/// Where names begin, and what is said of them.
const NAME: usize = 11;
const SAID: usize = 48;

/// One JSON object, of which scripts can take what they want.
pub(super) fn json(findings: &[Finding]) -> String {
    let whole = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": !findings.iter().any(Finding::is_fatal),
        "findings": findings,
    });
    format!("{whole:#}\n")
}

/// A table by area. What is missing is followed by what that means and what to do.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut area = None;
    for finding in findings {
        if area.replace(finding.area) != Some(finding.area) {
            let blank = if text.is_empty() { "" } else { "\n" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{blank}{}", finding.area.title());
        }
        let start = format!("  {:<8} {}", word(finding), finding.name);
        let said = wrapped(&finding.said, WIDTH - SAID);
        let mut lines = said.iter().map(String::as_str);
        // A name that reaches into the column of what is said has a line of its own.
        if start.chars().count() < SAID {
            let first = lines.next().unwrap_or_default();
            let _ = writeln!(text, "{}", format!("{start:<SAID$}{first}").trim_end());
        } else {
            let _ = writeln!(text, "{start}");
        }
        for line in lines {
            let _ = writeln!(text, "{:SAID$}{line}", "");
        }
        if finding.verdict != Verdict::There {
            for (title, body) in [
                ("tried", &finding.tried),
                ("without it", &finding.without),
                ("to do", &finding.remedy),
            ] {
                for line in wrapped(&format!("{title}: {body}"), WIDTH - NAME - 2) {
                    let _ = writeln!(text, "{:1$}{line}", "", NAME + 2);
                }
            }
        }
    }
    let _ = write!(text, "\n{}", summary(findings));
    text
}

fn word(finding: &Finding) -> &'static str {
    match (finding.verdict, finding.need) {
        (Verdict::There, _) => "ok",
        (Verdict::Missing, Need::Required) => "MISSING",
        (Verdict::Missing, Need::Optional) => "missing",
        (Verdict::Unknown, Need::Required) => "UNKNOWN",
        (Verdict::Unknown, Need::Optional) => "unknown",
    }
}

fn summary(findings: &[Finding]) -> String {
    let fatal: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.is_fatal())
        .map(|finding| finding.name.as_str())
        .collect();
    let lacking = findings
        .iter()
        .filter(|finding| finding.verdict != Verdict::There)
        .count();
    let verdict = if fatal.is_empty() {
        format!(
            "Podwright works here; {lacking} of {} are missing, none of them is required.",
            findings.len()
        )
    } else {
        format!(
            "Podwright does not work here: {}. As root?",
            fatal.join(", ")
        )
    };
    let mut text = wrapped(&verdict, WIDTH).join("\n");
    text.push('\n');
    text
}

/// Lines of whole words, none longer than `width` if no word is.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use podwright_runtime::doctor::Area;

    use super::*;

    fn finding(name: &str, need: Need, verdict: Verdict) -> Finding {
        Finding {
            area: Area::Mounts,
            name: name.into(),
            need,
            verdict,
            tried: "a mount".into(),
            said: "Invalid argument, ".repeat(12),
            without: "nothing works ".repeat(12),
            remedy: "think".into(),
        }
    }

    #[test]
    fn lines_fit_and_what_is_missing_is_explained() {
        let findings = [
            finding("a", Need::Required, Verdict::There),
            finding(&"long ".repeat(12), Need::Optional, Verdict::Missing),
        ];
        let text = text(&findings);
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        assert_eq!(text.matches("without it: nothing").count(), 1, "{text}");
        assert!(text.contains("Podwright works here; 1 of 2"), "{text}");
        let broken = [finding("a", Need::Required, Verdict::Unknown)];
        assert!(super::text(&broken).contains("does not work here: a."));
    }

    #[test]
    fn json_says_whether_the_node_is_ready() {
        for (need, ready) in [(Need::Required, false), (Need::Optional, true)] {
            let text = json(&[finding("a", need, Verdict::Missing)]);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            assert_eq!(value["ready"], ready, "{text}");
            assert_eq!(value["findings"][0]["verdict"], "missing");
        }
    }
}
