//! A plugin's seccomp policy, in the form that profiles of the node have: one way to check and compile them all.

use podwright_nri::api::LinuxSeccomp;
use serde_json::{Value, json};

/// As an OCI runtime spec has it, in JSON.
pub(crate) fn profile(policy: &LinuxSeccomp) -> Vec<u8> {
    let syscalls: Vec<Value> = policy
        .syscalls
        .iter()
        .map(|call| {
            let args: Vec<Value> = call
                .args
                .iter()
                .map(|arg| {
                    json!({
                        "index": arg.index, "value": arg.value,
                        "valueTwo": arg.value_two, "op": arg.op,
                    })
                })
                .collect();
            json!({
                "names": call.names, "action": call.action,
                "errnoRet": call.errno_ret.map(|errno| errno.value), "args": args,
            })
        })
        .collect();
    json!({
        "defaultAction": policy.default_action,
        "defaultErrnoRet": policy.default_errno.map(|errno| errno.value),
        "architectures": policy.architectures,
        "flags": policy.flags,
        "listenerPath": policy.listener_path,
        "syscalls": syscalls,
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::capabilities::CapabilitySet;
    use crate::security::seccomp::ProgramCache;
    use podwright_nri::api::{LinuxSeccompArg, LinuxSyscall, OptionalUInt32};

    fn policy() -> LinuxSeccomp {
        LinuxSeccomp {
            default_action: "SCMP_ACT_ALLOW".into(),
            syscalls: vec![LinuxSyscall {
                names: vec!["mkdir".into()],
                action: "SCMP_ACT_ERRNO".into(),
                errno_ret: Some(OptionalUInt32 { value: 13 }),
                args: vec![LinuxSeccompArg {
                    index: 1,
                    value: 0o777,
                    value_two: 0,
                    op: "SCMP_CMP_EQ".into(),
                }],
            }],
            ..LinuxSeccomp::default()
        }
    }

    #[test]
    fn a_policy_compiles_as_a_profile_does() {
        let cache = ProgramCache::new(1);
        let compiled = cache.localhost(&profile(&policy()), CapabilitySet::EMPTY);
        assert!(!compiled.unwrap().bytes.is_empty());
    }

    #[test]
    fn a_broken_policy_is_refused() {
        let cache = ProgramCache::new(1);
        for broken in [
            LinuxSeccomp {
                default_action: "SCMP_ACT_NONSENSE".into(),
                ..policy()
            },
            LinuxSeccomp {
                listener_path: "/run/agent.sock".into(),
                ..policy()
            },
            LinuxSeccomp {
                architectures: vec!["SCMP_ARCH_PDP11".into()],
                ..policy()
            },
        ] {
            let refused = cache.localhost(&profile(&broken), CapabilitySet::EMPTY);
            assert!(refused.is_err(), "{broken:?}");
        }
    }
}
