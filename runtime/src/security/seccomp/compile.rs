//! From ordered rules to a program.

use std::sync::Arc;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

use super::SeccompError;
use super::bpf::{ARCH, Assembler, If, MAX_INSTRUCTIONS, NUMBER, Target};
use super::numbers::{ARM_PRIVATE, Abi, X32_BIT};
use super::rules::{AbiRules, CallRules, Overlap, Rules};

/// What a call of an architecture outside the profile gets: the whole process ends.
const BAD_ARCHITECTURE: u32 = libc::SECCOMP_RET_KILL_PROCESS;
/// What a call gets that is newer than the profile.
const NEWER: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
/// A tracer sets this number to skip a call; it is not one of x32.
const SKIPPED: u32 = u32::MAX;

/// A program for seccomp(2) `SECCOMP_SET_MODE_FILTER`.
#[derive(Clone, Debug)]
pub struct Program {
    /// `struct sock_filter[]`, eight bytes each.
    pub bytes: Arc<[u8]>,
    /// Flags for seccomp(2). TSYNC is left out: the program is loaded by a single thread.
    pub flags: u32,
    /// Names that no architecture knows; they have no effect.
    pub unknown: Vec<String>,
    /// Rules that are decided by their order.
    pub overlaps: Vec<Overlap>,
}

/// Compiles a profile. An empty list of architectures means this machine's own; those this program does not know are
/// passed over, so that their calls end the process.
///
/// # Errors
/// [`SeccompError`] when the profile contradicts itself, asks for what is not supported or gets too large.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, SeccompError> {
    let rules = Rules::new(profile)?;
    let mut assembler = Assembler::default();
    let mut start = assembler.give(BAD_ARCHITECTURE);
    for sections in by_architecture(&rules.abis) {
        let ranges = ranges(&sections, rules.default);
        let search = search(&mut assembler, &ranges, rules.default);
        let section = assembler.load(NUMBER, search);
        start = assembler.branch(If::Equal, sections[0].abi.audit_arch(), section, start);
    }
    assembler.load(ARCH, start);
    if assembler.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooComplex {
            instructions: assembler.len(),
        });
    }
    Ok(Program {
        bytes: assembler.finish().into(),
        flags: flags(profile),
        unknown: rules.unknown,
        overlaps: rules.overlaps,
    })
}

fn flags(profile: &LinuxSeccomp) -> u32 {
    let flag = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32
        }
        // The second only matters to notifications, which are refused.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync
        | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    };
    profile
        .flags()
        .iter()
        .flatten()
        .map(flag)
        .fold(0, |all, one| all | one)
}

/// x86_64 and x32 share an architecture value. The machine's own comes last, so that it is tested first.
fn by_architecture(abis: &[AbiRules]) -> Vec<Vec<&AbiRules>> {
    let mut groups: Vec<Vec<&AbiRules>> = Vec::new();
    for rules in abis {
        match groups
            .iter_mut()
            .find(|group| group[0].abi.audit_arch() == rules.abi.audit_arch())
        {
            Some(group) => group.push(rules),
            None => groups.push(vec![rules]),
        }
    }
    groups.sort_by_key(|group| group[0].abi.audit_arch() == Abi::NATIVE.audit_arch());
    groups
}

/// What all numbers from one on get, up to the next.
#[derive(Clone, Copy, PartialEq)]
enum Decision<'a> {
    Give(u32),
    Rules(&'a CallRules),
}

/// The ranges of numbers of one architecture, in order, from 0 on, neighbours distinct.
fn ranges<'a>(sections: &[&'a AbiRules], default: u32) -> Vec<(u32, Decision<'a>)> {
    let mut cuts = vec![0, X32_BIT, SKIPPED, ARM_PRIVATE];
    for section in sections {
        cuts.extend(
            section
                .calls
                .keys()
                .flat_map(|number| [*number, number + 1]),
        );
    }
    cuts.sort_unstable();
    cuts.dedup();
    let mut ranges: Vec<_> = cuts
        .into_iter()
        .map(|from| (from, at(sections, from, default)))
        .collect();
    ranges.dedup_by(|next, before| next.1 == before.1);
    ranges
}

/// What `number` gets.
fn at<'a>(sections: &[&'a AbiRules], number: u32, default: u32) -> Decision<'a> {
    let is_x32 = number & X32_BIT != 0 && number != SKIPPED;
    let belongs = |abi: Abi| match abi {
        Abi::X86_64 => !is_x32,
        Abi::X32 => is_x32,
        Abi::X86 | Abi::Aarch64 | Abi::Arm => true,
    };
    let Some(section) = sections.iter().find(|section| belongs(section.abi)) else {
        return Decision::Give(BAD_ARCHITECTURE);
    };
    if let Some(rules) = section.calls.get(&number) {
        let last = rules.otherwise.unwrap_or(default);
        let plain = rules.conditional.iter().all(|(_, action)| *action == last);
        return if plain {
            Decision::Give(last)
        } else {
            Decision::Rules(rules)
        };
    }
    let is_private = |number: u32| section.abi == Abi::Arm && number >= ARM_PRIVATE;
    let newest = section
        .calls
        .keys()
        .rev()
        .find(|known| !is_private(**known));
    let is_newer = newest.is_some_and(|newest| number > *newest) && !is_private(number);
    Decision::Give(if is_newer && denies(default) {
        NEWER
    } else {
        default
    })
}

fn denies(action: u32) -> bool {
    !matches!(action, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG)
        && action & 0xffff_0000 != libc::SECCOMP_RET_TRACE
}

/// Binary search over the loaded number.
fn search(assembler: &mut Assembler, ranges: &[(u32, Decision<'_>)], default: u32) -> Target {
    if let [(_, decision)] = ranges {
        return match decision {
            Decision::Give(value) => assembler.give(*value),
            Decision::Rules(rules) => conditions(assembler, rules, default),
        };
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let upper = search(assembler, right, default);
    let lower = search(assembler, left, default);
    assembler.branch(If::GreaterOrEqual, right[0].0, upper, lower)
}

/// The rules with arguments one after the other. Those at the end that change nothing are left out.
fn conditions(assembler: &mut Assembler, rules: &CallRules, default: u32) -> Target {
    let last = rules.otherwise.unwrap_or(default);
    let needed = rules
        .conditional
        .iter()
        .rposition(|(_, action)| *action != last)
        .map_or(0, |at| at + 1);
    let mut otherwise = assembler.give(last);
    for (comparisons, action) in rules.conditional[..needed].iter().rev() {
        let mut next = assembler.give(*action);
        for comparison in comparisons.iter().rev() {
            next = assembler.compare(*comparison, next, otherwise);
        }
        otherwise = next;
    }
    otherwise
}
