//! What is measured, in which unit, and what it should be.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

/// Which way is better, and where good enough begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// At most.
    Most(f64),
    /// At least.
    Least(f64),
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
    RunPod: "RunPodSandbox", "ms", Goal::Most(4.0);
    Create: "CreateContainer", "ms", Goal::Most(1.5);
    Start: "StartContainer", "ms", Goal::Most(3.0);
    PodUp: "pod up (the three)", "ms", Goal::Most(8.0);
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
        println!("  {text:<58} {value:>10.2} {unit}");
        self.values.push((figure, value));
    }

    /// Adds the median of `times`, in the figure's unit.
    pub(crate) fn add_median(&mut self, figure: Figure, times: &mut [Duration]) {
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let factor = if figure.about().1 == "ms" { 1e3 } else { 1.0 };
        self.add(figure, median.as_secs_f64() * factor);
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
        let own = columns[0].value(figure);
        let (sign, bound, reached) = match goal {
            Goal::Most(bound) => ("≤", bound, own.is_some_and(|own| own <= bound)),
            Goal::Least(bound) => ("≥", bound, own.is_some_and(|own| own >= bound)),
        };
        let _ = writeln!(
            text,
            " {sign} {bound} | {} |",
            if reached { "yes" } else { "no" }
        );
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
        };
        json!({ "figure": name, "unit": unit, "values": values, "goal": goal })
    });
    Value::Array(rows.collect())
}
