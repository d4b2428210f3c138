//! What is measured, in which unit, and what it should be.

use std::{fmt::Write as _, time::Duration};

use podwright_integration::percentile::percentile;
use serde_json::{Value, json};

/// Which way is better, and where good enough begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// At most.
    Most(f64),
    /// At least.
    Least(f64),
    /// None: it tells more about other figures.
    None,
}

macro_rules! figures {
    ($($name:ident: $text:literal, $unit:literal, $goal:expr;)*) => {
        /// A row of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Figure { $(#[doc = $text] $name,)* }

        impl Figure {
            /// All rows, in order.
            const ALL: &[Figure] = &[$(Figure::$name,)*];

            /// Text, unit, and goal.
            fn about(self) -> (&'static str, &'static str, Goal) {
                match self { $(Figure::$name => ($text, $unit, $goal),)* }
            }
        }
    };
}

figures! {
    Access: "the machine at that time: a random access within 16 MiB", "ns", Goal::None;
    Stolen: "the machine at that time: taken by its host, single calls", "%", Goal::None;
    RunPod: "RunPodSandbox", "ms", Goal::Most(4.0);
    Create: "CreateContainer", "ms", Goal::Most(1.5);
    Start: "StartContainer", "ms", Goal::Most(3.0);
    PodUp: "pod up (the three)", "ms", Goal::Most(8.0);
    PodUpRatio: "pod up: the peer's time over ours", "times", Goal::Least(15.0);
    Exec: "ExecSync true", "ms", Goal::Most(2.0);
    Stop: "StopContainer(0)", "ms", Goal::Most(3.0);
    Remove: "RemoveContainer", "ms", Goal::Most(2.0);
    PodDown: "StopPodSandbox + RemovePodSandbox", "ms", Goal::Most(5.0);
    Rate: "pods up and down, 8 at once", "/s", Goal::Least(120.0);
    RateCpu: "machine CPU per pod up and down, 8 at once", "ms", Goal::Most(15.0);
    PodMemory: "runtime's memory per pod with one container (PSS)", "KiB", Goal::Most(200.0);
    ContainerMemory: "runtime's memory per further container (PSS)", "KiB", Goal::Most(40.0);
    MonitorMemory: "private memory of a pod's process, 50 pods", "KiB", Goal::Most(100.0);
    IdleMemory: "daemon without pods (PSS)", "MiB", Goal::Most(12.0);
    IdleCpu: "CPU of the idle runtime, 100 pods", "% of a core", Goal::Most(0.5);
    NewFile: "the machine at that time: a new file of 360 MiB", "MiB/s", Goal::None;
    LogRate: "log of 100-byte lines, 256 MiB", "MiB/s", Goal::Least(500.0);
    LogCpu: "runtime's CPU for that log", "s", Goal::Most(0.8);
    ExecOut: "output of an exec over WebSocket, 4 GiB", "MiB/s", Goal::Least(500.0);
    ExecIn: "input of an exec over WebSocket, 4 GiB", "MiB/s", Goal::Least(500.0);
    ForwardIn: "port-forward to a pod over WebSocket, 4 GiB", "MiB/s", Goal::Least(500.0);
    ForwardOut: "port-forward from a pod over WebSocket, 4 GiB", "MiB/s", Goal::Least(500.0);
    ContainerStats: "ListContainerStats, 100 pods", "ms", Goal::Most(8.0);
    PodStats: "ListPodSandboxStats, 100 pods", "ms", Goal::Most(8.0);
    PodMetrics: "ListPodSandboxMetrics, 100 pods", "ms", Goal::Most(40.0);
    List: "ListContainers, 100 pods", "ms", Goal::Most(0.5);
    Pull: "pull of 8 layers, 220 MiB unpacked", "s", Goal::Most(0.9);
    PullCpu: "runtime's CPU for that pull", "s", Goal::Most(1.5);
    Restart: "serving again after kill -9, 50 pods", "s", Goal::Most(0.1);
    Frozen: "ListContainerStats with 12 of 50 pods' processes frozen", "ms", Goal::Most(20.0);
    ProbesCpu: "machine CPU of 1,000 exec probes a second, 100 pods", "cores", Goal::Most(1.0);
    ProbesClientCpu: "the client's own CPU for them, not in that", "cores", Goal::None;
    ProbesLast: "latest answer to a probe, after it was due", "ms", Goal::Most(50.0);
    Probes99: "the same, p99", "ms", Goal::None;
    ScaleUp: "pod up, the last 50 of 1,000 pods over the first 50", "times", Goal::Most(1.3);
    ScaleExec: "ExecSync true, the last 50 of 1,000 pods over the first 50", "times", Goal::Most(1.3);
    ScaleDown: "pod down, 50 of 1,000 pods over the last 50", "times", Goal::Most(1.3);
    ScaleMemory: "runtime's memory per pod (PSS), 1,000 pods", "KiB", Goal::Most(200.0);
    ScaleContainers: "ListContainers, 1,000 pods, p99", "ms", Goal::Most(5.0);
    ScalePods: "ListPodSandbox, 1,000 pods, p99", "ms", Goal::Most(5.0);
    LinesLost: "lines lost of 100 writers, 1 MiB/s each, logs rotated at 10 MiB", "", Goal::Most(0.0);
    WritersCpu: "runtime's CPU for these writers", "% of a core", Goal::Most(15.0);
}

/// One runtime's column. A row that it has no answer for (UNIMPLEMENTED) stays empty.
#[derive(Debug)]
pub(crate) struct Measured {
    name: String,
    values: Vec<(Figure, f64)>,
}

impl Measured {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            values: Vec::new(),
        }
    }

    /// Adds a figure, and shows it at once.
    pub(crate) fn add(&mut self, figure: Figure, value: f64) {
        let (text, unit, _) = figure.about();
        println!("  {text:<64} {value:>10.2} {unit}");
        self.values.push((figure, value));
    }

    /// Adds the median of `times`, in the figure's unit.
    pub(crate) fn add_median(&mut self, figure: Figure, times: &mut [Duration]) {
        self.add_percentile(figure, times, 50);
    }

    /// Adds a percentile of `times`, in the figure's unit.
    pub(crate) fn add_percentile(
        &mut self,
        figure: Figure,
        times: &mut [Duration],
        percent: usize,
    ) {
        let factor = if figure.about().1 == "ms" { 1e3 } else { 1.0 };
        self.add(figure, percentile(times, percent).as_secs_f64() * factor);
    }

    fn value(&self, figure: Figure) -> Option<f64> {
        self.values
            .iter()
            .find(|(other, _)| *other == figure)
            .map(|(_, value)| *value)
    }
}

/// The rows that were measured for one column at least.
fn measured(columns: &[Measured]) -> impl Iterator<Item = Figure> {
    let has = |figure: &Figure| columns.iter().any(|column| column.value(*figure).is_some());
    Figure::ALL.iter().copied().filter(has)
}

/// Adds to the first column what is judged of it by the second.
pub(crate) fn add_ratios(columns: &mut [Measured]) {
    let [own, peer] = columns else { return };
    if let (Some(ours), Some(theirs)) = (own.value(Figure::PodUp), peer.value(Figure::PodUp)) {
        own.values.push((Figure::PodUpRatio, theirs / ours));
    }
}

/// Whether the first column reaches the goal.
fn reached(columns: &[Measured], figure: Figure) -> bool {
    let own = columns.first().and_then(|column| column.value(figure));
    own.is_some_and(|own| match figure.about().2 {
        Goal::Most(bound) => own <= bound,
        Goal::Least(bound) => own >= bound,
        Goal::None => true,
    })
}

/// How many of the rows miss their goal.
pub(crate) fn missed(columns: &[Measured]) -> usize {
    measured(columns)
        .filter(|figure| !reached(columns, *figure))
        .count()
}

/// The table in Markdown; the first column decides whether a goal is reached.
pub(crate) fn table(columns: &[Measured]) -> String {
    let mut text = String::from("| figure |");
    for column in columns {
        let _ = write!(text, " {} |", column.name);
    }
    text.push_str(" goal | |\n| --- |");
    text.push_str(&" ---: |".repeat(columns.len()));
    text.push_str(" ---: | --- |\n");
    for figure in measured(columns) {
        let (name, unit, goal) = figure.about();
        let _ = write!(text, "| {name} |");
        for column in columns {
            let value = column.value(figure);
            let value = value.map_or("–".to_owned(), |value| format!("{value:.2} {unit}"));
            let _ = write!(text, " {value} |");
        }
        let goal = match goal {
            Goal::Most(bound) => format!("≤ {bound}"),
            Goal::Least(bound) => format!("≥ {bound}"),
            Goal::None => {
                text.push_str(" – | |\n");
                continue;
            }
        };
        let verdict = if reached(columns, figure) {
            "yes"
        } else {
            "**no**"
        };
        let _ = writeln!(text, " {goal} | {verdict} |");
    }
    text
}

/// The same for programs.
pub(crate) fn json(columns: &[Measured]) -> Value {
    let rows = measured(columns).map(|figure| {
        let (name, unit, goal) = figure.about();
        let values: serde_json::Map<_, _> = columns
            .iter()
            .map(|column| (column.name.clone(), json!(column.value(figure))))
            .collect();
        let goal = match goal {
            Goal::Most(bound) => json!({ "at_most": bound }),
            Goal::Least(bound) => json!({ "at_least": bound }),
            Goal::None => Value::Null,
        };
        json!({ "figure": name, "unit": unit, "values": values, "goal": goal })
    });
    Value::Array(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, values: &[(Figure, f64)]) -> Measured {
        Measured {
            name: name.to_owned(),
            values: values.to_vec(),
        }
    }

    #[test]
    fn the_first_column_is_judged() {
        let own = column("own", &[(Figure::PodUp, 8.0), (Figure::Rate, 119.0)]);
        let peer = column("peer", &[(Figure::PodUp, 400.0), (Figure::Rate, 6.0)]);
        assert_eq!(missed(&[own, peer]), 1);
        let slow = column("slow", &[(Figure::PodUp, 8.1), (Figure::Rate, 120.0)]);
        assert_eq!(missed(&[slow]), 1);
        // A row that only the peer has an answer for.
        let peer = column("peer", &[(Figure::PodMetrics, 1.0)]);
        assert_eq!(missed(&[column("own", &[]), peer]), 1);
    }

    #[test]
    fn the_peer_must_be_slower_by_the_ratio() {
        for (theirs, expected) in [(120.0, 0), (119.0, 1)] {
            let own = column("own", &[(Figure::PodUp, 8.0)]);
            let mut columns = [own, column("peer", &[(Figure::PodUp, theirs)])];
            add_ratios(&mut columns);
            assert_eq!(missed(&columns), expected);
            let ratio = columns[0].value(Figure::PodUpRatio);
            assert_eq!(ratio, Some(theirs / 8.0));
        }
        let mut alone = [column("own", &[(Figure::PodUp, 8.0)])];
        add_ratios(&mut alone);
        assert_eq!(alone[0].value(Figure::PodUpRatio), None);
    }

    #[test]
    fn the_table_says_which_goal_is_missed() {
        let values = [
            (Figure::PodUp, 9.5),
            (Figure::Exec, 1.0),
            (Figure::Probes99, 3.0),
        ];
        let own = column("own", &values);
        assert_eq!(missed(std::slice::from_ref(&own)), 1);
        let text = table(&[own, column("peer", &[(Figure::PodUp, 185.0)])]);
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| pod up (the three) | 9.50 ms | 185.00 ms | ≤ 8 | **no** |",
                "| ExecSync true | 1.00 ms | – | ≤ 2 | yes |",
                "| the same, p99 | 3.00 ms | – | – | |",
            ]
        );
    }
}
