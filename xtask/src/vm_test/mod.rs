//! `cargo xtask vm-test`: the tests that a kernel can fail, in virtual machines with pure cgroup v2 and AppArmor.

mod left_out;
mod part;

use std::num::NonZero;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::phase::{Counts, Phases};
use crate::vm::TestProgram;
use crate::workspace;
use crate::{programs, setup, vm};
use left_out::LeftOut;
use part::Part;

/// Which parts run, and in what machine.
#[derive(Debug, clap::Args)]
pub(crate) struct VmTest {
    /// Only this part; may be repeated
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// The order of critest's specs, to repeat one
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// The Debian package of the kernel, such as linux-image-6.12-amd64
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
    /// Also the tests that take too long for CI in an emulated machine, however long it takes
    #[arg(long)]
    whole: bool,
}

/// What is the same in all machines.
#[derive(Debug)]
struct Plan {
    test_programs: Vec<TestProgram>,
    seed: Option<u32>,
    kernel: Option<String>,
    left_out: LeftOut,
    /// How long a machine may run.
    limit: Duration,
}

/// A part that has run.
struct Done {
    part: Part,
    took: Duration,
    result: Result<Counts>,
}

impl VmTest {
    /// Builds everything, runs the parts in machines of their own, as many at once as there are processors, and prints the
    /// sum as the last line.
    pub(crate) fn run(self) -> Result<()> {
        let mut phases = Phases::default();
        phases.check("set up", || setup::run(setup::Need::Everything));
        phases.check("build", || {
            programs::run(&mut workspace::build_all())?;
            programs::run(&mut workspace::build_next())
        });
        let parts = match self.only.as_slice() {
            [] => Part::ALL.to_vec(),
            chosen => Part::ALL
                .into_iter()
                .filter(|part| chosen.contains(part))
                .collect(),
        };
        let plan = Plan {
            test_programs: vm::test_programs()?,
            seed: self.seed,
            kernel: self.kernel,
            left_out: match self.whole {
                true => LeftOut::nothing(),
                false => LeftOut::in_ci()?,
            },
            limit: match self.whole {
                true => Duration::from_secs(4 * 3600),
                false => Duration::from_secs(40 * 60),
            },
        };
        for done in run_all(&plan, &parts) {
            phases.record(done.part.title(), done.took, done.result);
        }
        plan.left_out.tell(&parts);
        phases.finish(workspace::is_ci())
    }
}

/// Runs parts side by side; each processor takes the next one when it is done with one.
fn run_all(plan: &Plan, parts: &[Part]) -> Vec<Done> {
    let queue = Mutex::new(parts.iter().copied());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let lane = || {
        let mut done = Vec::new();
        while let Some(part) = next() {
            let start = Instant::now();
            let result = part
                .run(plan)
                .with_context(|| format!("the machine of the {}", part.title()));
            done.push(Done {
                part,
                took: start.elapsed(),
                result,
            });
        }
        done
    };
    let lanes = thread::available_parallelism().map_or(1, NonZero::get);
    let mut done = thread::scope(|scope| {
        let running: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        let joined = running.into_iter().filter_map(|lane| lane.join().ok());
        joined.flatten().collect::<Vec<_>>()
    });
    done.sort_by_key(|done| done.part);
    done
}
