//! Samples by stack, from what `perf script` prints.

use std::collections::{BTreeMap, HashMap};

/// The process that all threads of the kernel are children of.
const KTHREADD: &str = "2";
/// What stands for them all.
const KERNEL: &str = "kernel threads";
/// Processors that have nothing to do.
const IDLE: &str = "0";

/// How often each stack was seen: the process's name, then functions, outermost first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stacks(BTreeMap<Vec<String>, u64>);

/// A process as far as the lines so far tell.
#[derive(Debug, Clone, Default)]
struct Process {
    name: String,
    is_kernel: bool,
}

impl Stacks {
    /// Reads lines of samples and of tasks that are born and named.
    pub(super) fn parse(text: &str) -> Self {
        let mut stacks = Self::default();
        let mut processes: HashMap<&str, Process> = HashMap::new();
        for event in text
            .split_terminator('\n')
            .collect::<Vec<_>>()
            .split_inclusive(|line| line.is_empty())
        {
            let mut lines = event.iter().copied().filter(|line| !line.is_empty());
            // Lines about tasks have no empty line behind them.
            let header = lines.by_ref().find(|line| !is_task(line, &mut processes));
            let Some((comm, pid)) = header.and_then(task_of) else {
                continue;
            };
            if pid == IDLE {
                continue;
            }
            let process = processes.get(pid).cloned();
            let name = match process {
                Some(Process {
                    is_kernel: true, ..
                }) => KERNEL.to_owned(),
                Some(process) if !process.name.is_empty() => process.name,
                _ => comm.to_owned(),
            };
            let mut stack: Vec<_> = lines.filter_map(function).collect();
            stack.push(name);
            stack.reverse();
            *stacks.0.entry(stack).or_default() += 1;
        }
        stacks
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each stack with its count, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[String], u64)> {
        self.0
            .iter()
            .map(|(stack, count)| (stack.as_slice(), *count))
    }

    /// A line for each stack, as other programs that show profiles read them.
    pub(super) fn folded(&self) -> String {
        let line = |(stack, count): (&[String], u64)| format!("{} {count}\n", stack.join(";"));
        self.iter().map(line).collect()
    }
}

/// The name and process id that a sample begins with: `tokio-rt 12/14`.
fn task_of(line: &str) -> Option<(&str, &str)> {
    let (comm, ids) = line.trim_end().rsplit_once(' ')?;
    let (pid, _) = ids.split_once('/')?;
    Some((comm.trim(), pid))
}

/// Takes in a line about a task, if it is one.
fn is_task<'a>(line: &'a str, processes: &mut HashMap<&'a str, Process>) -> bool {
    if let Some((_, fork)) = line.split_once("PERF_RECORD_FORK(") {
        // `(child:thread):(parent:thread)`
        let ids: Vec<_> = fork
            .split(['(', ')', ':'])
            .filter(|id| !id.is_empty())
            .collect();
        if let [child, thread, parent, _] = ids[..]
            && child == thread
        {
            let mut process = processes.get(parent).cloned().unwrap_or_default();
            process.is_kernel = parent == KTHREADD;
            processes.insert(child, process);
        }
        return true;
    }
    if let Some((_, comm)) = line.split_once("PERF_RECORD_COMM") {
        // ` exec: name:pid/tid`, of which a name may have anything.
        let comm = comm.trim_start_matches(" exec").trim_start_matches(": ");
        if let Some((name, ids)) = comm.rsplit_once(':')
            && let Some((pid, tid)) = ids.trim().split_once('/')
            && pid == tid
        {
            name.clone_into(&mut processes.entry(pid).or_default().name);
        }
        return true;
    }
    line.contains("PERF_RECORD_")
}

/// The function of a line `address symbol (object)`, with the object for one that has no symbol.
fn function(line: &str) -> Option<String> {
    let (_, rest) = line.trim_start().split_once(' ')?;
    let (symbol, object) = rest.rsplit_once(" (")?;
    let object = object.trim_end_matches(')').rsplit('/').next();
    // pause is executed from a mount that has no place in the tree, so perf has no path of it.
    let object = object.filter(|name| !name.is_empty() && *name != "[unknown]");
    let object = object.unwrap_or("unknown");
    let symbol = symbol.replace(';', ":");
    Some(match (symbol.as_str(), object) {
        ("[unknown]", object) => format!("[{object}]"),
        (_, "[kernel.kallsyms]") => format!("{symbol}_[k]"),
        _ => symbol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
swapper     0/0     PERF_RECORD_FORK(2:2):(0:0)
kthreadd     0/0     PERF_RECORD_COMM: kthreadd:2/2
kthreadd     0/0     PERF_RECORD_FORK(9:9):(2:2)
kworker/u8:1     0/0     PERF_RECORD_COMM: kworker/u8:1:9/9
podwright    50/50    PERF_RECORD_COMM exec: podwright:50/50
podwright    50/50    PERF_RECORD_FORK(50:51):(50:50)
tokio-rt    50/51    PERF_RECORD_COMM: tokio-rt:50/51
tokio-rt    50/51
\tffffffff81 vfs_read ([kernel.kallsyms])
\t   1234 <T as a::B>::read (/usr/bin/podwright)
\t     10 [unknown] (/usr/bin/podwright)
\t      0 [unknown] ([unknown])

tokio-rt    50/51    PERF_RECORD_FORK(60:60):(50:51)
podwright-pause 60/60
\tffffffff81 vfs_read ([kernel.kallsyms])
\t  6a7f6 [unknown] (/)

kworker/u8:1     9/9
\tffffffff82 worker_thread ([kernel.kallsyms])

swapper     0/0
\tffffffff82 idle ([kernel.kallsyms])

podwright-pause 60/60    PERF_RECORD_COMM exec: sh:60/60
sh 60/60
\tffffffff82 do_exit ([kernel.kallsyms])

";

    #[test]
    fn samples_are_folded_by_process() {
        assert_eq!(
            Stacks::parse(SCRIPT).folded(),
            "kernel threads;worker_thread_[k] 1\n\
             podwright;[unknown];[podwright];<T as a::B>::read;vfs_read_[k] 1\n\
             podwright;[unknown];vfs_read_[k] 1\n\
             sh;do_exit_[k] 1\n"
        );
        assert!(Stacks::parse("").is_empty());
    }
}
