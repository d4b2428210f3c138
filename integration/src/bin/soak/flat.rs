//! Compares what was before with what is after.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use crate::{
    census::{Census, Company},
    items::{Allowance, ITEMS, Scope},
};

/// By how much a count may differ in the end.
const FLAT: f64 = 0.02;
/// How much longer a call may take in the end.
const SLOWER: f64 = 1.2;

/// Whether a count stayed the same but for a share of it, or what is allowed.
pub(crate) fn is_flat(before: f64, after: f64, share: f64, allowance: Allowance) -> bool {
    (after - before).abs() <= (before * share).max(allowance.amount())
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is as it was.
    Flat,
    /// It is not.
    Changed,
    /// Others change it too.
    NotJudged,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Flat => "ok",
            Self::Changed => "FAILED",
            Self::NotJudged => "not judged",
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    what: &'static str,
    unit: &'static str,
    before: f64,
    after: f64,
    bound: String,
    pub(crate) verdict: Verdict,
}

impl Line {
    /// A percentile of the first calls and of the last.
    pub(crate) fn time(what: &'static str, before: Duration, after: Duration) -> Self {
        let (before, after) = (before.as_secs_f64() * 1e3, after.as_secs_f64() * 1e3);
        let verdict = match after <= before * SLOWER {
            true => Verdict::Flat,
            false => Verdict::Changed,
        };
        Self {
            what,
            unit: "ms",
            before,
            after,
            bound: format!("≤ {SLOWER} times"),
            verdict,
        }
    }
}

/// A line of each item that both have.
pub(crate) fn compare(before: &Census, after: &Census, company: Company) -> Vec<Line> {
    let lines = ITEMS.iter().filter_map(|item| {
        let (before, after) = ((item.count)(before)?, (item.count)(after)?);
        let verdict = match (item.scope, company) {
            (Scope::Machine, Company::Others) => Verdict::NotJudged,
            _ if is_flat(before, after, FLAT, item.allowance) => Verdict::Flat,
            _ => Verdict::Changed,
        };
        let bound = match item.allowance {
            Allowance::Nothing => format!("± {} %", FLAT * 100.0),
            other => format!("± {} %, or {}", FLAT * 100.0, other.amount()),
        };
        Some(Line {
            what: item.what,
            unit: item.unit,
            before,
            after,
            bound,
            verdict,
        })
    });
    lines.collect()
}

/// The table in Markdown.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text =
        String::from("| | before | after | bound | |\n| --- | ---: | ---: | ---: | --- |\n");
    for line in lines {
        let value = |value: f64| match line.unit {
            "" => format!("{value:.0}"),
            "ms" => format!("{value:.2} ms"),
            unit => format!("{value:.0} {unit}"),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            line.what,
            value(line.before),
            value(line.after),
            line.bound,
            line.verdict.word()
        );
    }
    text
}

/// The same for programs.
pub(crate) fn json(cycles: usize, lines: &[Line]) -> Value {
    let lines = lines.iter().map(|line| {
        json!({
            "what": line.what, "unit": line.unit, "before": line.before, "after": line.after,
            "bound": line.bound, "verdict": line.verdict.word(),
        })
    });
    json!({ "cycles": cycles, "lines": lines.collect::<Vec<_>>() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use podwright_integration::{
        node::Node,
        pod::{ContainerSpec, PodSpec},
    };

    use super::*;

    #[test]
    fn two_percent_are_flat_and_more_are_not() {
        for (before, after, expected) in [
            (1000.0, 1020.0, true),
            (1000.0, 1021.0, false),
            (1000.0, 979.0, false),
            (10.0, 11.0, false),
            (0.0, 0.0, true),
            (0.0, 1.0, false),
        ] {
            let flat = is_flat(before, after, FLAT, Allowance::Nothing);
            assert_eq!(flat, expected, "{before} to {after}");
        }
    }

    #[test]
    fn an_allowance_is_all_that_a_small_count_may_grow_by() {
        let allowance = Allowance::PerProcessor(8.0);
        let amount = allowance.amount();
        assert!(is_flat(1.0, 1.0 + amount, FLAT, allowance));
        assert!(!is_flat(1.0, 2.0 + amount, FLAT, allowance));
    }

    #[test]
    fn a_call_that_is_slower_in_the_end_fails() {
        let time = |after| Line::time("exec", Duration::from_micros(1000), after).verdict;
        assert_eq!(time(Duration::from_micros(1200)), Verdict::Flat);
        assert_eq!(time(Duration::from_micros(1201)), Verdict::Changed);
        assert_eq!(time(Duration::from_micros(10)), Verdict::Flat);
    }

    /// The lines that are not flat any more, without those that measure memory: a test's daemon has had no time to warm up.
    fn changed(before: &Census, daemon: &podwright_integration::node::Daemon) -> Vec<&'static str> {
        let after = Census::take(daemon, Company::Others).unwrap();
        let lines = compare(before, &after, Company::Others);
        let changed = lines
            .iter()
            .filter(|line| line.verdict == Verdict::Changed && line.unit.is_empty());
        let names = changed.map(|line| line.what);
        // They come and go with work.
        names.filter(|what| *what != "daemon, threads").collect()
    }

    #[tokio::test]
    async fn what_stays_behind_fails() -> anyhow::Result<()> {
        let mut node = Node::start().await?;
        // The first pod brings what stays for all others.
        let first = node.cri.run_pod(PodSpec::new("first")).await?;
        node.cri.run(&first, ContainerSpec::new("c")).await?;
        node.cri.remove_all_pods().await?;
        node.check_leaks().await?;
        node.settle()?;
        let before = Census::take(&node.daemon, Company::Others)?;

        let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
        node.cri.run(&pod, ContainerSpec::new("c")).await?;
        let held = changed(&before, &node.daemon);
        for what in [
            "daemon, descriptors",
            "daemon, child processes",
            "processes of pods",
            "files, state and run directories",
            "cgroups, all hierarchies",
            "links at the bridge",
            "nftables rules and elements",
        ] {
            assert!(held.contains(&what), "{what} is not in {held:?}");
        }
        node.cri.remove_all_pods().await?;
        node.check_leaks().await?;

        for number in 0..100 {
            std::fs::write(
                node.daemon
                    .slot()
                    .path(&format!("state/forgotten-{number}")),
                "",
            )?;
        }
        let held = changed(&before, &node.daemon);
        assert_eq!(held, ["files, state and run directories"]);
        for number in 0..100 {
            std::fs::remove_file(
                node.daemon
                    .slot()
                    .path(&format!("state/forgotten-{number}")),
            )?;
        }
        assert_eq!(changed(&before, &node.daemon), [""; 0]);
        node.finish().await
    }

    #[tokio::test]
    async fn the_machines_counts_are_judged_by_who_is_alone() -> anyhow::Result<()> {
        let node = Node::start().await?;
        let before = Census::take(&node.daemon, Company::Others)?;
        let after = Census::take(&node.daemon, Company::Others)?;
        let verdict = |company| {
            let lines = compare(&before, &after, company);
            let mounts = lines.iter().find(|line| line.what == "mounts");
            mounts.unwrap().verdict
        };
        assert_eq!(verdict(Company::Others), Verdict::NotJudged);
        assert_ne!(verdict(Company::Alone), Verdict::NotJudged);
        node.finish().await
    }
}
