//! What a process that does not answer is doing, for whoever must find out why.

use std::fmt;
use std::fs;

/// Calls of the kernel's stack that are told. The rest is how the process came into the kernel.
const CALLS: usize = 8;

/// What a process was doing when it was looked at. Displayed as the end of a sentence about it.
#[derive(Debug)]
pub(crate) struct Activity {
    /// None when it is not known which it is.
    pid: Option<u32>,
    /// As in proc_pid_stat(5).
    state: Option<char>,
    /// Where it waits in the kernel, innermost first; empty on a kernel that does not tell (CONFIG_STACKTRACE).
    stack: Vec<String>,
}

impl Activity {
    /// Looks at process `pid`.
    pub(super) fn of(pid: Option<u32>) -> Self {
        let read = |file| {
            let text = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/{file}")).ok());
            text.unwrap_or_default()
        };
        Self {
            pid,
            state: state(&read("stat")),
            stack: stack(&read("stack")),
        }
    }

    /// Whether a freezer holds it: that of cgroup v1, or that of v2, which stops processes where a signal would.
    fn is_frozen(&self) -> bool {
        let freezers = ["refrigerator", "do_freezer_trap"];
        self.stack
            .iter()
            .any(|call| freezers.iter().any(|freezer| call.contains(freezer)))
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(pid), Some(state)) = (self.pid, self.state) else {
            return write!(out, "it may be frozen");
        };
        if self.is_frozen() {
            return write!(out, "process {pid} is frozen");
        }
        let doing = match state {
            'R' => "runs, or waits for a processor",
            'S' => "sleeps",
            'D' => "is in an uninterruptible sleep",
            'T' => "was stopped by a signal",
            't' => "is held by a debugger",
            'Z' | 'X' => "has ended",
            _ => "is in a state that is not known",
        };
        write!(out, "process {pid} {doing}")?;
        if !self.stack.is_empty() {
            write!(out, ", in the kernel's {}", self.stack.join(" < "))?;
        }
        Ok(())
    }
}

/// The state in a line of /proc/pid/stat; the name before it may have any bytes.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The calls in a text of /proc/pid/stack, whose lines are like `[<0>] do_sys_poll+0x3c1/0x5e0`.
fn stack(text: &str) -> Vec<String> {
    let call = |line: &str| {
        let name = line.split_whitespace().nth(1)?.split('+').next()?;
        Some(name.to_owned())
    };
    text.lines().filter_map(call).take(CALLS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(state_of: &str, stack_of: &str) -> String {
        let activity = Activity {
            pid: Some(7),
            state: state(state_of),
            stack: stack(stack_of),
        };
        activity.to_string()
    }

    #[test]
    fn a_wait_in_the_kernel_is_told_by_its_calls() {
        let stack = "[<0>] rwsem_down_read_slowpath+0x2a/0x40\n[<0>] copy_net_ns+0x9c/0x2a0\n";
        assert_eq!(
            told("7 (a) b) D 1 7", stack),
            "process 7 is in an uninterruptible sleep, in the kernel's rwsem_down_read_slowpath < copy_net_ns"
        );
        assert_eq!(told("7 (pause) S 1 7", ""), "process 7 sleeps");
    }

    #[test]
    fn both_freezers_are_seen() {
        for call in ["__refrigerator", "do_freezer_trap"] {
            let stack = format!("[<0>] {call}+0x10/0x20\n[<0>] get_signal+0x1/0x2\n");
            assert_eq!(told("7 (pause) D 1 7", &stack), "process 7 is frozen");
        }
    }

    #[test]
    fn what_has_gone_or_is_not_known_may_be_frozen() {
        assert_eq!(told("", ""), "it may be frozen");
        assert_eq!(Activity::of(None).to_string(), "it may be frozen");
    }

    #[test]
    fn a_living_process_is_seen() {
        // Its first thread, which waits for the one that runs the tests.
        let pid = std::process::id();
        let told = Activity::of(Some(pid)).to_string();
        let doing = ["sleeps", "runs, or waits for a processor"];
        let mut begun = doing
            .map(|doing| format!("process {pid} {doing}"))
            .into_iter();
        assert!(begun.any(|begun| told.starts_with(&begun)), "{told}");
    }
}
