//! What callgrind writes: see "Callgrind Format Specification" in valgrind's manual.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::Count;

/// How Rust programs allocate. (A call's own line in a profile counts also what is called while nothing is collected.)
const ALLOCATORS: &[&str] = &[
    "__rustc::__rust_alloc",
    "__rustc::__rust_alloc_zeroed",
    "__rustc::__rust_realloc",
];

/// The instructions in `program` itself, and the calls of its allocator. The profile has lines for instructions, and neither names
/// nor positions are compressed.
pub(super) fn count(profile: &str, program: &Path) -> Result<Count> {
    let program = program.display().to_string();
    let mut count = Count::default();
    let (mut is_own, mut is_call, mut function) = (false, false, "");
    // How often the first instruction of each allocator was executed.
    let mut entries: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_own = object == program;
        } else if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if line.starts_with("calls=") {
            // The next line is what the call took: that is counted where it was spent.
            is_call = true;
        } else if let Some(position) = line.strip_prefix("0x") {
            if is_own && !is_call {
                let (address, cost) = parse(position)?;
                count.instructions += cost;
                if ALLOCATORS.contains(&function) {
                    let entry = entries.entry(function).or_insert((address, cost));
                    *entry = (*entry).min((address, cost));
                }
            }
            is_call = false;
        }
    }
    count.allocations = entries.values().map(|(_, calls)| calls).sum();
    Ok(count)
}

/// An address, a line and a cost.
fn parse(position: &str) -> Result<(u64, u64)> {
    let mut words = position.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let address = u64::from_str_radix(word(), 16);
    word();
    let cost = word().parse();
    let both = address.ok().zip(cost.ok());
    both.with_context(|| format!("callgrind writes 0x{position:?} for a position and its cost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_s_own_instructions_count() {
        let profile = "version: 1\npositions: instr line\nevents: Ir\n\n\
            ob=/t/program\nfl=a.rs\nfn=own\n0x10 7 70\n0x11 8 5\n\
            cob=/lib/libc.so.6\ncfi=malloc.c\ncfn=malloc\ncalls=3 0x5\n0x11 8 900\n\
            cfn=other\ncalls=2 0x20\n0x11 8 300\n0x12 9 1\n\n\
            ob=/lib/libc.so.6\nfl=malloc.c\nfn=malloc\n0x5 1 900\n\n\
            ob=/t/program\nfl=b.rs\nfn=__rustc::__rust_alloc\n0x32 1 3\n0x30 1 4\n0x31 1 4\n\
            fn=__rustc::__rust_realloc\n0x41 1 2\n0x40 1 2\n\ntotals: 1213\n";
        let expected = Count {
            instructions: 70 + 5 + 1 + 11 + 4,
            allocations: 4 + 2,
        };
        assert_eq!(count(profile, Path::new("/t/program")).ok(), Some(expected));
        let broken = "ob=/t/program\n0x10 x\n";
        assert!(count(broken, Path::new("/t/program")).is_err());
    }
}
