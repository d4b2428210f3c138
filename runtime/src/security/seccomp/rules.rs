//! A profile's rules, brought into one order per interface and number.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::SeccompError;
use super::numbers::{Abi, is_known};

/// MAX_ERRNO: seccomp(2) caps the value there.
const MAX_ERRNO: u32 = 4095;

/// Two rules of one call whose arguments can both match and whose actions differ; the first listed counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The call.
    pub syscall: String,
    /// The action that counts.
    pub first: String,
    /// The action that does not where both match.
    pub second: String,
}

/// A comparison with one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) index: u32,
    pub(super) test: Test,
}

/// What is asked of the argument; unsigned, 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    Masked { mask: u64, value: u64 },
}

/// What a call gets: the first matching condition, else `otherwise`, else the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CallRules {
    /// All comparisons of one must hold; the value is the filter's return value.
    pub(super) conditional: Vec<(Vec<Comparison>, u32)>,
    pub(super) otherwise: Option<u32>,
}

/// A profile for one interface.
pub(super) struct AbiRules {
    pub(super) abi: Abi,
    pub(super) calls: BTreeMap<u32, CallRules>,
}

/// Everything a program is made of.
pub(super) struct Rules {
    pub(super) default: u32,
    pub(super) abis: Vec<AbiRules>,
    pub(super) unknown: Vec<String>,
    pub(super) overlaps: Vec<Overlap>,
}

/// One OCI rule, checked.
struct Rule<'a> {
    names: &'a [String],
    action: u32,
    comparisons: Vec<Comparison>,
}

impl Rules {
    pub(super) fn new(profile: &LinuxSeccomp) -> Result<Self, SeccompError> {
        if profile.listener_path().is_some() {
            return Err(SeccompError::Notify);
        }
        let default = return_value(profile.default_action(), profile.default_errno_ret())?;
        let mut checked = Vec::new();
        for syscall in profile.syscalls().iter().flatten() {
            check(syscall, &mut checked)?;
        }
        let mut unknown: Vec<String> = checked
            .iter()
            .flat_map(|rule| rule.names)
            .filter(|name| !is_known(name))
            .cloned()
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        let mut overlaps = Vec::new();
        let mut abis = Vec::new();
        for abi in interfaces(profile)? {
            let mut calls = BTreeMap::new();
            for rule in &checked {
                for name in rule.names {
                    add(abi, name, rule, &mut calls, &mut overlaps)?;
                }
            }
            abis.push(AbiRules { abi, calls });
        }
        overlaps.dedup();
        Ok(Self {
            default,
            abis,
            unknown,
            overlaps,
        })
    }
}

fn interfaces(profile: &LinuxSeccomp) -> Result<Vec<Abi>, SeccompError> {
    let listed = profile.architectures().as_deref().unwrap_or_default();
    if listed.is_empty() {
        return Ok(vec![Abi::NATIVE]);
    }
    let mut abis: Vec<Abi> = listed
        .iter()
        .filter_map(|arch| Abi::from_oci(*arch))
        .collect();
    abis.sort_unstable();
    abis.dedup();
    if abis.is_empty() {
        return Err(SeccompError::Architecture {
            architectures: listed.iter().map(ToString::to_string).collect(),
        });
    }
    Ok(abis)
}

fn check<'a>(syscall: &'a LinuxSyscall, into: &mut Vec<Rule<'a>>) -> Result<(), SeccompError> {
    let action = return_value(syscall.action(), syscall.errno_ret())?;
    let names = syscall.names().as_slice();
    let comparisons = syscall
        .args()
        .iter()
        .flatten()
        .map(comparison)
        .collect::<Result<Vec<_>, _>>()?;
    let repeats = comparisons.iter().enumerate().any(|(at, one)| {
        comparisons[..at]
            .iter()
            .any(|other| other.index == one.index)
    });
    if repeats {
        into.extend(comparisons.into_iter().map(|one| Rule {
            names,
            action,
            comparisons: vec![one],
        }));
    } else {
        into.push(Rule {
            names,
            action,
            comparisons,
        });
    }
    Ok(())
}

fn comparison(arg: &LinuxSeccompArg) -> Result<Comparison, SeccompError> {
    let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| SeccompError::Field {
        field: "args[].index",
        value: arg.index().to_string(),
        reason: "is not 0 to 5",
    })?;
    let value = arg.value();
    let test = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => Test::Masked {
            mask: value,
            value: arg.value_two().unwrap_or(0) & value,
        },
    };
    Ok(Comparison { index, test })
}

/// The filter's return value (`SECCOMP_RET_*`). `SCMP_ACT_KILL` kills the thread, as in libseccomp.
fn return_value(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, SeccompError> {
    if action == LinuxSeccompAction::ScmpActNotify {
        return Err(SeccompError::Notify);
    }
    let limit = match action {
        LinuxSeccompAction::ScmpActErrno => MAX_ERRNO,
        LinuxSeccompAction::ScmpActTrace => 0xffff,
        _ => u32::MAX,
    };
    match errno {
        Some(value) if value > limit => Err(SeccompError::Field {
            field: "errnoRet",
            value: value.to_string(),
            reason: "is too large",
        }),
        _ => Ok(action.as_u32(errno)),
    }
}

fn add(
    abi: Abi,
    name: &str,
    rule: &Rule<'_>,
    calls: &mut BTreeMap<u32, CallRules>,
    overlaps: &mut Vec<Overlap>,
) -> Result<(), SeccompError> {
    if let Some(number) = abi.number(name) {
        let comparisons = rule
            .comparisons
            .iter()
            .map(|one| one.for_abi(abi))
            .collect();
        insert(
            calls.entry(number).or_default(),
            name,
            comparisons,
            rule.action,
            overlaps,
        )?;
    }
    // The arguments lie in memory there, out of the filter's reach: only rules without any carry over.
    if rule.comparisons.is_empty()
        && let Some(way) = abi.multiplexed(name)
    {
        let test = if way.mask == u64::MAX {
            Test::Equal(way.call)
        } else {
            Test::Masked {
                mask: way.mask,
                value: way.call,
            }
        };
        let comparisons = vec![Comparison { index: 0, test }];
        insert(
            calls.entry(way.number).or_default(),
            name,
            comparisons,
            rule.action,
            overlaps,
        )?;
    }
    Ok(())
}

fn insert(
    call: &mut CallRules,
    name: &str,
    comparisons: Vec<Comparison>,
    action: u32,
    overlaps: &mut Vec<Overlap>,
) -> Result<(), SeccompError> {
    let contradiction = |first: u32| SeccompError::Contradiction {
        syscall: name.to_owned(),
        first: action_name(first),
        second: action_name(action),
    };
    if comparisons.is_empty() {
        return match call.otherwise.replace(action) {
            Some(first) if first != action => Err(contradiction(first)),
            _ => Ok(()),
        };
    }
    for (known, first) in &call.conditional {
        let same =
            known.len() == comparisons.len() && known.iter().all(|one| comparisons.contains(one));
        match (same, *first == action) {
            (true, true) => return Ok(()),
            (true, false) => return Err(contradiction(*first)),
            (false, false) if can_both_match(known, &comparisons) => {
                overlaps.push(Overlap {
                    syscall: name.to_owned(),
                    first: action_name(*first),
                    second: action_name(action),
                });
            }
            (false, _) => {}
        }
    }
    call.conditional.push((comparisons, action));
    Ok(())
}

/// False only when some argument cannot satisfy both.
fn can_both_match(one: &[Comparison], other: &[Comparison]) -> bool {
    one.iter().all(|a| {
        other
            .iter()
            .filter(|b| b.index == a.index)
            .all(|b| a.test.is_compatible(b.test))
    })
}

fn action_name(value: u32) -> String {
    let data = value & 0xffff;
    match value & 0xffff_0000 {
        0x8000_0000 => "SCMP_ACT_KILL_PROCESS".to_owned(),
        0x0003_0000 => "SCMP_ACT_TRAP".to_owned(),
        0x0005_0000 => format!("SCMP_ACT_ERRNO {data}"),
        0x7ff0_0000 => format!("SCMP_ACT_TRACE {data}"),
        0x7ffc_0000 => "SCMP_ACT_LOG".to_owned(),
        0x7fff_0000 => "SCMP_ACT_ALLOW".to_owned(),
        _ => "SCMP_ACT_KILL_THREAD".to_owned(),
    }
}

impl Comparison {
    /// Where arguments have 32 bits, an equality with a negative number means its lower half.
    fn for_abi(self, abi: Abi) -> Self {
        let short = |value: u64| {
            if value >> 32 == 0xffff_ffff {
                value & 0xffff_ffff
            } else {
                value
            }
        };
        let test = match self.test {
            test if !abi.has_short_arguments() => test,
            Test::Equal(value) => Test::Equal(short(value)),
            Test::NotEqual(value) => Test::NotEqual(short(value)),
            Test::Masked { mask, value } => Test::Masked {
                mask: mask & 0xffff_ffff,
                value: value & 0xffff_ffff,
            },
            test => test,
        };
        Self {
            index: self.index,
            test,
        }
    }
}

impl Test {
    /// The values it accepts when they are one range.
    fn range(self) -> Option<(u64, u64)> {
        match self {
            Self::Equal(value) => Some((value, value)),
            Self::Less(0) | Self::Greater(u64::MAX) => Some((1, 0)),
            Self::Less(value) => Some((0, value - 1)),
            Self::LessOrEqual(value) => Some((0, value)),
            Self::Greater(value) => Some((value + 1, u64::MAX)),
            Self::GreaterOrEqual(value) => Some((value, u64::MAX)),
            Self::NotEqual(_) | Self::Masked { .. } => None,
        }
    }

    /// Whether some value may satisfy both; may say yes where there is none.
    fn is_compatible(self, other: Self) -> bool {
        match (self, other) {
            (Self::Equal(value), test) | (test, Self::Equal(value)) => test.accepts(value),
            (Self::Masked { mask: a, value: x }, Self::Masked { mask: b, value: y }) => {
                x & a & b == y & a & b
            }
            _ => match (self.range(), other.range()) {
                (Some((low, high)), Some((from, to))) => low.max(from) <= high.min(to),
                _ => true,
            },
        }
    }

    /// Whether `argument` satisfies it.
    pub(super) fn accepts(self, argument: u64) -> bool {
        match self {
            Self::Equal(value) => argument == value,
            Self::NotEqual(value) => argument != value,
            Self::Less(value) => argument < value,
            Self::LessOrEqual(value) => argument <= value,
            Self::Greater(value) => argument > value,
            Self::GreaterOrEqual(value) => argument >= value,
            Self::Masked { mask, value } => argument & mask == value,
        }
    }
}
