//! Runs critest and reads its report.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Tools;

/// A run of critest against one socket.
#[derive(Clone, Debug)]
pub struct Critest {
    socket: PathBuf,
    focus: Vec<String>,
    skip: Vec<String>,
    flags: Vec<String>,
}

impl Critest {
    /// All specs, against the server at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            focus: Vec::new(),
            skip: Vec::new(),
            flags: Vec::new(),
        }
    }

    /// Only specs whose full text matches one of these regular expressions (Go's).
    pub fn focus(mut self, patterns: &[&str]) -> Self {
        self.focus.extend(patterns.iter().map(ToString::to_string));
        self
    }

    /// No specs that match one of these.
    pub fn skip(mut self, patterns: &[&str]) -> Self {
        self.skip.extend(patterns.iter().map(ToString::to_string));
        self
    }

    /// Further flags, such as `-websocket-exec`.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Runs the specs to their end; what critest prints goes to `log`.
    ///
    /// # Errors
    /// When critest does not start or writes no report. Failed specs are in the report.
    pub fn run(&self, tools: &Tools, log: &Path) -> Result<Report> {
        let scratch = tempfile::tempdir()?;
        let report = scratch.path().join("report.json");
        let endpoint = format!("unix://{}", self.socket.display());
        let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = Command::new(tools.critest());
        command
            .args(["-config", "/dev/null", "-runtime-endpoint", &endpoint])
            .args(["-image-endpoint", &endpoint, "--ginkgo.no-color"])
            .arg(format!("--ginkgo.json-report={}", report.display()))
            .args(&self.flags)
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output);
        for (flag, patterns) in [("focus", &self.focus), ("skip", &self.skip)] {
            command.args(
                patterns
                    .iter()
                    .map(|pattern| format!("--ginkgo.{flag}={pattern}")),
            );
        }
        let status = command.status().context("starting critest")?;
        let json = fs::read(&report).with_context(|| {
            format!(
                "critest ended with {status} and wrote no report; see {}",
                log.display()
            )
        })?;
        Report::parse(&serde_json::from_slice(&json)?)
    }
}

/// How a spec ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should.
    Passed,
    /// Not chosen, or it skipped itself.
    Skipped,
    /// Any other way: failed, panicked, interrupted, timed out.
    Failed,
}

/// One spec of a run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The texts of its containers and its own, joined by spaces.
    pub name: String,
    /// How it ended.
    pub state: State,
    /// How long it took.
    pub time: Duration,
    /// Why it failed or skipped itself; empty otherwise.
    pub message: String,
}

/// All specs of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order in which they ran.
    pub specs: Vec<Spec>,
}

impl Report {
    /// How many specs ended in `state`.
    pub fn count(&self, state: State) -> usize {
        self.specs.iter().filter(|spec| spec.state == state).count()
    }

    /// Reads ginkgo's JSON report.
    fn parse(json: &Value) -> Result<Self> {
        let suite = &json[0];
        let reports = suite["SpecReports"]
            .as_array()
            .context("the report has no specs")?;
        let specs = reports.iter().filter(|spec| spec["LeafNodeType"] == "It");
        let specs: Vec<_> = specs.map(spec).collect();
        ensure!(
            !specs.is_empty(),
            "critest ran nothing: {}",
            suite["SpecialSuiteFailureReasons"]
        );
        Ok(Self { specs })
    }
}

fn spec(json: &Value) -> Spec {
    let texts = json["ContainerHierarchyTexts"]
        .as_array()
        .into_iter()
        .flatten();
    let mut name: Vec<_> = texts.filter_map(Value::as_str).collect();
    name.extend(json["LeafNodeText"].as_str());
    let state = match json["State"].as_str() {
        Some("passed") => State::Passed,
        Some("skipped" | "pending") => State::Skipped,
        _ => State::Failed,
    };
    Spec {
        name: name.join(" "),
        state,
        time: Duration::from_nanos(json["RunTime"].as_u64().unwrap_or_default()),
        message: json["Failure"]["Message"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Passed => "pass",
            State::Skipped => "skip",
            State::Failed => "FAIL",
        };
        write!(
            f,
            "{state} {:6.2} s  {}",
            self.time.as_secs_f64(),
            self.name
        )?;
        if !self.message.is_empty() {
            write!(
                f,
                "\n       {}",
                self.message.trim().replace('\n', "\n       ")
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_are_read() {
        let spec = |kind: &str, state: &str, message: &str| {
            json!({
                "LeafNodeType": kind, "LeafNodeText": "works", "State": state,
                "ContainerHierarchyTexts": ["[k8s.io] Container", "when started"],
                "RunTime": 1_500_000_000_u64, "Failure": { "Message": message },
            })
        };
        let report = Report::parse(&json!([{ "SpecReports": [
            spec("BeforeSuite", "passed", ""),
            spec("It", "passed", ""),
            spec("It", "skipped", ""),
            spec("It", "timedout", "too slow"),
        ]}]))
        .unwrap();
        let states: Vec<_> = report.specs.iter().map(|spec| spec.state).collect();
        assert_eq!(states, [State::Passed, State::Skipped, State::Failed]);
        assert_eq!(
            report.specs[0].name,
            "[k8s.io] Container when started works"
        );
        assert_eq!(
            report.specs[2].to_string(),
            "FAIL   1.50 s  [k8s.io] Container when started works\n       too slow"
        );
        assert!(Report::parse(&json!([{ "SpecReports": [] }])).is_err());
    }
}
