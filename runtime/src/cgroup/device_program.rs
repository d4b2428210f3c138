//! Device rules as a program for the kernel's BPF machine, which decides on each access of a cgroup's processes
//! (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15).
//!
//! The kernel calls it with a `struct bpf_cgroup_dev_ctx` of three 32-bit fields: what is accessed and how, the major
//! and the minor number. It allows the access when the program returns 1. Instructions: see the kernel's
//! `Documentation/bpf/standardization/instruction-set.rst`.

use super::device_rule::{Access, DeviceRule, Effect, Kind};

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`, in the lower half of the first field.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// `BPF_LDX | BPF_MEM | BPF_W`: dst = *(u32 *)(src + offset).
const LOAD: u8 = 0x61;
/// `BPF_ALU | BPF_MOV | BPF_K`, 32 bits: dst = imm.
const MOVE_NUMBER: u8 = 0xb4;
/// `BPF_ALU | BPF_MOV | BPF_X`, 32 bits: dst = src.
const MOVE: u8 = 0xbc;
/// `BPF_ALU | BPF_AND | BPF_K`, 32 bits: dst &= imm.
const AND: u8 = 0x54;
/// `BPF_ALU | BPF_RSH | BPF_K`, 32 bits: dst >>= imm.
const SHIFT_RIGHT: u8 = 0x74;
/// `BPF_JMP32 | BPF_JEQ | BPF_K` (Linux 5.1): jumps by offset if dst = imm.
const JUMP_IF_EQUAL: u8 = 0x16;
/// `BPF_JMP32 | BPF_JNE | BPF_K`: jumps by offset if dst ≠ imm.
const JUMP_UNLESS_EQUAL: u8 = 0x56;
/// `BPF_JMP | BPF_EXIT`: returns r0.
const EXIT: u8 = 0x95;

/// The result and scratch.
const R0: u8 = 0;
/// The context, at the start.
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The kernel's `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// The destination in the lower half, the source in the upper one.
    registers: u8,
    offset: i16,
    number: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Instruction {
    Instruction {
        code,
        registers: from << 4 | to,
        offset,
        number,
    }
}

/// The program for `rules`, of which the last that matches an access decides; what none matches is denied.
pub(super) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD, TYPE, CONTEXT, 0, 0),
        instruction(MOVE, ACCESS, TYPE, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(AND, TYPE, 0, 0, 0xffff),
        instruction(LOAD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(decision(rule));
        if rule.is_universal() {
            // Nothing comes to what would follow, and the kernel refuses programs with such parts.
            return program;
        }
    }
    program.extend(returns(Effect::Deny));
    program
}

/// Returns the rule's effect if the access matches it, and goes on behind otherwise.
fn decision(rule: &DeviceRule) -> Vec<Instruction> {
    let mut conditions = Vec::new();
    let kind = match rule.kind {
        Kind::All => None,
        Kind::Character => Some(CHARACTER),
        Kind::Block => Some(BLOCK),
    };
    let numbers = [
        (TYPE, kind),
        (MAJOR, rule.major.map(u32::cast_signed)),
        (MINOR, rule.minor.map(u32::cast_signed)),
    ];
    for (register, number) in numbers {
        conditions.extend(number.map(|number| (JUMP_UNLESS_EQUAL, register, number)));
    }
    let mut code = Vec::new();
    let bits = i32::from(rule.access.bits());
    let (mask, jump) = match rule.effect {
        // Each of the accesses has to be allowed: none may be left without those of the rule.
        Effect::Allow => (!bits, JUMP_UNLESS_EQUAL),
        // One that is denied denies all.
        Effect::Deny => (bits, JUMP_IF_EQUAL),
    };
    let access = if rule.access == Access::ALL {
        Vec::new()
    } else {
        vec![
            instruction(MOVE, R0, ACCESS, 0, 0),
            instruction(AND, R0, 0, 0, mask),
            instruction(jump, R0, 0, RETURN_LENGTH, 0),
        ]
    };
    // A condition that does not hold jumps over all that is left of this rule.
    let mut behind = access.len() + conditions.len();
    for (jump, register, number) in conditions {
        behind -= 1;
        let offset = i16::try_from(behind).unwrap_or(i16::MAX) + RETURN_LENGTH;
        code.push(instruction(jump, register, 0, offset, number));
    }
    code.extend(access);
    code.extend(returns(rule.effect));
    code
}

/// The number of instructions that [`returns`] gives.
const RETURN_LENGTH: i16 = 2;

const fn returns(effect: Effect) -> [Instruction; RETURN_LENGTH as usize] {
    let allowed = match effect {
        Effect::Allow => 1,
        Effect::Deny => 0,
    };
    [
        instruction(MOVE_NUMBER, R0, 0, 0, allowed),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use oci_spec::runtime::LinuxDeviceCgroup;
    use proptest::prelude::*;

    use super::*;
    use crate::security::{Privilege, devices};

    /// An access as the kernel describes it to the program.
    #[derive(Clone, Copy, Debug)]
    struct Attempt {
        kind: i32,
        access: u32,
        major: u32,
        minor: u32,
    }

    const MAKE: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;

    /// Executes a program as the kernel's interpreter does; panics at what the verifier refuses.
    fn allowed(program: &[Instruction], attempt: Attempt) -> bool {
        let context = [
            attempt.access << 16 | attempt.kind.cast_unsigned(),
            attempt.major,
            attempt.minor,
        ];
        let (mut registers, mut at) = ([None; 6], 0);
        loop {
            let Instruction {
                code,
                registers: pair,
                offset,
                number,
            } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let number = number.cast_unsigned();
            let read = |register: usize| registers[register].expect("a register that was set");
            at += 1;
            let jumps = match code {
                EXIT => return read(0) == 1,
                LOAD => {
                    assert_eq!(from, usize::from(CONTEXT));
                    registers[to] = Some(context[usize::try_from(offset).unwrap() / 4]);
                    false
                }
                MOVE_NUMBER => {
                    registers[to] = Some(number);
                    false
                }
                MOVE => {
                    registers[to] = Some(read(from));
                    false
                }
                AND => {
                    registers[to] = Some(read(to) & number);
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] = Some(read(to) >> number);
                    false
                }
                JUMP_IF_EQUAL => read(to) == number,
                JUMP_UNLESS_EQUAL => read(to) != number,
                other => panic!("no instruction {other:#x}"),
            };
            if jumps {
                at += usize::try_from(offset).unwrap();
            }
        }
    }

    /// What the rules mean, said another way.
    fn expected(rules: &[DeviceRule], attempt: Attempt) -> bool {
        let mut verdict = false;
        for rule in rules {
            let kind = match rule.kind {
                Kind::All => true,
                Kind::Character => attempt.kind == CHARACTER,
                Kind::Block => attempt.kind == BLOCK,
            };
            let device = rule.major.is_none_or(|major| major == attempt.major)
                && rule.minor.is_none_or(|minor| minor == attempt.minor);
            let bits = u32::from(rule.access.bits());
            let access = match rule.effect {
                Effect::Allow => attempt.access & !bits == 0,
                Effect::Deny => attempt.access & bits != 0,
            };
            if kind && device && access {
                verdict = rule.effect == Effect::Allow;
            }
        }
        verdict
    }

    fn parsed(rules: &[LinuxDeviceCgroup]) -> Vec<DeviceRule> {
        rules
            .iter()
            .map(|rule| DeviceRule::parse(rule).unwrap())
            .collect()
    }

    #[test]
    fn a_confined_container_makes_any_node_and_opens_its_own() {
        let program = compile(&parsed(&devices::rules(Privilege::Confined)));
        for (kind, access, major, minor, expected) in [
            (CHARACTER, READ | WRITE, 1, 3, true),
            (CHARACTER, MAKE, 1, 3, true),
            (CHARACTER, READ | WRITE, 136, 7, true),
            (CHARACTER, MAKE, 1, 1, true),
            (BLOCK, MAKE, 254, 0, true),
            (CHARACTER, READ, 1, 1, false),
            (CHARACTER, READ | MAKE, 1, 1, false),
            (BLOCK, READ, 254, 0, false),
            (BLOCK, READ, 1, 3, false),
            (CHARACTER, WRITE, 10, 229, false),
        ] {
            let attempt = Attempt {
                kind,
                access,
                major,
                minor,
            };
            assert_eq!(allowed(&program, attempt), expected, "{attempt:?}");
        }
    }

    #[test]
    fn nothing_follows_a_rule_for_everything() {
        let program = compile(&parsed(&devices::rules(Privilege::Privileged)));
        assert_eq!(program.len(), 6 + usize::try_from(RETURN_LENGTH).unwrap());
        let attempt = Attempt {
            kind: BLOCK,
            access: WRITE,
            major: 8,
            minor: 0,
        };
        assert!(allowed(&program, attempt));
        assert!(!allowed(&compile(&[]), attempt));
    }

    fn rules() -> impl Strategy<Value = Vec<DeviceRule>> {
        let number = || prop_oneof![Just(-1_i64), 0..3_i64, Just(i64::from(u32::MAX))];
        let rule = (any::<bool>(), "[abc]", number(), number(), "r?w?m?");
        let rule = rule.prop_map(|(allow, kind, major, minor, access)| {
            let mut rule = LinuxDeviceCgroup::default();
            let kind = match kind.as_str() {
                "a" => oci_spec::runtime::LinuxDeviceType::A,
                "b" => oci_spec::runtime::LinuxDeviceType::B,
                _ => oci_spec::runtime::LinuxDeviceType::C,
            };
            rule.set_allow(allow)
                .set_typ(Some(kind))
                .set_major(Some(major))
                .set_minor(Some(minor))
                .set_access(Some(access));
            DeviceRule::parse(&rule).unwrap()
        });
        prop::collection::vec(rule, 0..8)
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_rules_mean(
            rules in rules(),
            kind in BLOCK..=CHARACTER,
            access in 1..8_u32,
            major in prop_oneof![0..3_u32, Just(u32::MAX)],
            minor in prop_oneof![0..3_u32, Just(u32::MAX)],
        ) {
            let attempt = Attempt { kind, access, major, minor };
            prop_assert_eq!(allowed(&compile(&rules), attempt), expected(&rules, attempt));
        }
    }
}
