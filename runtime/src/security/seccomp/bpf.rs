//! An assembler for classic BPF that builds from the end: jumps only go forward, so every target is known when its
//! jump is written, and a target beyond the 8 bits of a conditional jump gets a stepping stone in between.

use std::collections::HashMap;

use super::rules::{Comparison, Test};

/// BPF_MAXINSNS.
pub(super) const MAX_INSTRUCTIONS: usize = 4096;
/// Offsets have 8 bits; the margin is for the stepping stones themselves.
const REACH: usize = 250;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Conditional jumps (BPF_JMP | … | BPF_K): compare the loaded word with a constant.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(super) enum If {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
}

/// Offsets in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// An instruction that is written; counted from the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Target(usize);

/// A program that grows towards its start.
#[derive(Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    returns: HashMap<u32, Target>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Target {
        self.reversed.push(Instruction { code, jt, jf, k });
        Target(self.reversed.len() - 1)
    }

    /// How many instructions a jump written next would skip.
    fn distance(&self, target: Target) -> usize {
        self.reversed.len() - 1 - target.0
    }

    /// Ends the program with `value`; one close by is used again.
    pub(super) fn give(&mut self, value: u32) -> Target {
        if let Some(known) = self.returns.get(&value).copied()
            && self.distance(known) < REACH
        {
            return known;
        }
        let target = self.push(RETURN, 0, 0, value);
        self.returns.insert(value, target);
        target
    }

    /// Loads the word at `offset` of `seccomp_data`, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Target) -> Target {
        self.fall_into(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Makes the instruction written next be followed by `next`.
    fn fall_into(&mut self, next: Target) {
        let skipped = self.distance(next);
        if skipped > 0 {
            self.jump(skipped);
        }
    }

    fn jump(&mut self, skipped: usize) -> Target {
        // Programs beyond 4096 instructions are refused in the end.
        self.push(JUMP, 0, 0, u32::try_from(skipped).unwrap_or(u32::MAX))
    }

    /// Compares the loaded word.
    pub(super) fn branch(&mut self, condition: If, value: u32, yes: Target, no: Target) -> Target {
        let yes = self.within_reach(yes);
        let no = self.within_reach(no);
        // The margin of REACH keeps both within 8 bits.
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(condition as u16, jt, jf, value)
    }

    fn within_reach(&mut self, target: Target) -> Target {
        if self.distance(target) < REACH {
            return target;
        }
        let end = self.reversed[target.0];
        if end.code == RETURN {
            return self.give(end.k);
        }
        self.jump(self.distance(target))
    }

    /// Tests a 64-bit argument in halves: the upper one decides unless it is equal.
    pub(super) fn compare(&mut self, comparison: Comparison, yes: Target, no: Target) -> Target {
        let low = ARGUMENTS + 8 * comparison.index;
        match comparison.test {
            Test::Equal(value) => self.compare_equal(low, u64::MAX, value, yes, no),
            Test::NotEqual(value) => self.compare_equal(low, u64::MAX, value, no, yes),
            Test::Masked { mask, value } => self.compare_equal(low, mask, value, yes, no),
            Test::Greater(value) => self.compare_order(low, If::Greater, value, yes, no),
            Test::LessOrEqual(value) => self.compare_order(low, If::Greater, value, no, yes),
            Test::GreaterOrEqual(value) => {
                self.compare_order(low, If::GreaterOrEqual, value, yes, no)
            }
            Test::Less(value) => self.compare_order(low, If::GreaterOrEqual, value, no, yes),
        }
    }

    fn compare_equal(
        &mut self,
        low: u32,
        mask: u64,
        value: u64,
        yes: Target,
        no: Target,
    ) -> Target {
        let (mask_high, mask_low) = halves(mask);
        let (high, value_low) = halves(value);
        let lower = self.branch(If::Equal, value_low, yes, no);
        let lower = self.load_masked(low, mask_low, lower);
        // A mask of the lower half alone (clone's flags) leaves nothing to test above.
        if mask_high == 0 {
            return lower;
        }
        let upper = self.branch(If::Equal, high, lower, no);
        self.load_masked(low + 4, mask_high, upper)
    }

    fn load_masked(&mut self, offset: u32, mask: u32, next: Target) -> Target {
        if mask == u32::MAX {
            return self.load(offset, next);
        }
        self.fall_into(next);
        let and = self.push(AND, 0, 0, mask);
        self.load(offset, and)
    }

    fn compare_order(
        &mut self,
        low: u32,
        condition: If,
        value: u64,
        yes: Target,
        no: Target,
    ) -> Target {
        let (high, value_low) = halves(value);
        let lower = self.branch(condition, value_low, yes, no);
        let lower = self.load(low, lower);
        let equal = self.branch(If::Equal, high, lower, no);
        let upper = self.branch(If::Greater, high, yes, equal);
        self.load(low + 4, upper)
    }

    pub(super) fn len(&self) -> usize {
        self.reversed.len()
    }

    /// `struct sock_filter[]` in the byte order of the machine.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.reversed.len() * 8);
        for Instruction { code, jt, jf, k } in self.reversed.into_iter().rev() {
            bytes.extend(code.to_ne_bytes());
            bytes.extend([jt, jf]);
            bytes.extend(k.to_ne_bytes());
        }
        bytes
    }
}

fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
