//! The codec: what is encoded is decoded, and no bytes make it panic or trust a length.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)] // a test fails by panicking

use podwright_pause::plan::*;
use podwright_pause::protocol::*;
use podwright_pause::wire::{Bytes, DecodeError, Wire};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u64>().prop_map(|flags| Step::TreePropagation { flags }),
        (bytes(), bytes(), bytes()).prop_map(|(layers, options, at)| Step::OverlayRoot {
            layers,
            options,
            at
        }),
        (
            bytes(),
            vec((bytes(), proptest::option::of(bytes())), 0..4),
            any::<u64>()
        )
            .prop_map(|(fstype, options, attributes)| Step::MountFs {
                source: fstype.clone(),
                target: fstype.clone(),
                fstype,
                options: options
                    .into_iter()
                    .map(|(key, value)| FsOption { key, value })
                    .collect(),
                attributes,
                create: Create::Directory,
            }),
        (any::<u16>(), any::<u16>()).prop_map(|(rows, columns)| Step::Terminal { rows, columns }),
        bytes().prop_map(|path| Step::Mask { path }),
        Just(Step::Pivot),
    ]
}

fn plan() -> impl Strategy<Value = LaunchPlan> {
    (
        any::<u64>(),
        vec(bytes(), 0..4),
        any::<Option<i32>>(),
        vec(step(), 0..6),
        vec(any::<u32>(), 0..5),
        proptest::option::of(bytes()),
    )
        .prop_map(
            |(mask, strings, oom_score_adj, steps, groups, seccomp)| LaunchPlan {
                new_namespaces: mask,
                pid_namespace: PidNamespace::Container { id: "c".into() },
                cgroup_procs: strings.clone(),
                oom_score_adj,
                steps,
                process: Process {
                    argv: strings.clone(),
                    env: strings,
                    cwd: "/".into(),
                    uid: 1,
                    gid: 2,
                    groups,
                    umask: 3,
                    capabilities: Capabilities {
                        bounding: mask,
                        effective: 4,
                        permitted: 5,
                        inheritable: 6,
                        ambient: 7,
                    },
                    new_privileges: NewPrivileges::Denied,
                    seccomp,
                    rlimits: vec![Rlimit {
                        resource: 8,
                        soft: 9,
                        hard: mask,
                    }],
                    apparmor: None,
                    selinux: None,
                },
                stdio: Stdio::Log { stdin: Stdin::Open },
            },
        )
}

proptest! {
    #[test]
    fn plans_survive_the_way(plan in plan()) {
        prop_assert_eq!(LaunchPlan::from_bytes(&plan.to_bytes()), Ok(plan));
    }

    #[test]
    fn no_shortened_plan_decodes(plan in plan(), cut in any::<prop::sample::Index>()) {
        let encoded = plan.to_bytes();
        let length = cut.index(encoded.len());
        prop_assert!(LaunchPlan::from_bytes(&encoded[..length]).is_err());
    }

    #[test]
    fn any_bytes_decode_or_fail(noise in vec(any::<u8>(), 0..300)) {
        let _ = LaunchPlan::from_bytes(&noise);
        let _ = Message::<Request>::from_bytes(&noise);
        let _ = Message::<Answer>::from_bytes(&noise);
    }

    #[test]
    fn a_changed_byte_decodes_or_fails(plan in plan(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut encoded = plan.to_bytes();
        let index = at.index(encoded.len());
        encoded[index] = byte;
        if let Ok(other) = LaunchPlan::from_bytes(&encoded) {
            prop_assert_eq!(other.to_bytes(), encoded);
        }
    }
}

#[test]
fn a_length_past_the_message_is_refused_without_reserving_it() {
    assert_eq!(
        Bytes::from_bytes(&u32::MAX.to_le_bytes()),
        Err(DecodeError::Truncated)
    );
    assert_eq!(
        Vec::<Bytes>::from_bytes(&u32::MAX.to_le_bytes()),
        Err(DecodeError::Truncated)
    );
    assert_eq!(
        Bytes::from_bytes(&[0, 0, 0, 0, 1]),
        Err(DecodeError::TrailingBytes(1))
    );
    assert_eq!(
        Option::<u8>::from_bytes(&[2]),
        Err(DecodeError::UnknownTag("Option", 2))
    );
}
