//! Who may set what, and what comes of it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{CreationMerge, UpdateMerge};
use crate::api::*;
use crate::error::NriError;
use crate::identity::PluginName;

fn plugin(number: usize) -> PluginName {
    PluginName::new(&format!("{number:02}"), "p").unwrap()
}

fn container() -> Container {
    Container {
        id: "new".into(),
        env: vec!["BASE=1".into()],
        mounts: vec![mount("/base")],
        annotations: [("base".to_owned(), "1".to_owned())].into(),
        ..Container::default()
    }
}

fn mount(destination: &str) -> Mount {
    Mount {
        destination: destination.into(),
        ..Mount::default()
    }
}

fn variable(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
    }
}

fn adjust(change: impl FnOnce(&mut ContainerAdjustment)) -> CreateContainerResponse {
    let mut adjustment = ContainerAdjustment::default();
    change(&mut adjustment);
    CreateContainerResponse {
        adjust: Some(adjustment),
        ..CreateContainerResponse::default()
    }
}

fn linux(change: impl FnOnce(&mut LinuxContainerAdjustment)) -> CreateContainerResponse {
    adjust(|adjustment| change(adjustment.linux.get_or_insert_default()))
}

fn limits(change: impl FnOnce(&mut LinuxResources)) -> CreateContainerResponse {
    linux(|linux| change(linux.resources.get_or_insert_default()))
}

/// Applies the answers of plugins 0, 1, …
fn merged(answers: Vec<CreateContainerResponse>) -> Result<CreationMerge, NriError> {
    let mut merge = CreationMerge::new(container());
    for (number, answer) in answers.into_iter().enumerate() {
        merge.apply(&plugin(number), answer)?;
    }
    Ok(merge)
}

#[test]
fn everything_that_one_has_set_no_other_may_set() {
    let text = || Some(OptionalString { value: "c".into() });
    let memory =
        |change: fn(&mut LinuxMemory)| limits(|l| change(l.memory.get_or_insert_default()));
    let cpu = |change: fn(&mut LinuxCpu)| limits(|l| change(l.cpu.get_or_insert_default()));
    let answers = [
        adjust(|a| drop(a.annotations.insert("k".into(), "v".into()))),
        adjust(|a| a.mounts.push(mount("/m"))),
        adjust(|a| a.env.push(variable("K", "v"))),
        adjust(|a| a.args.push("sh".into())),
        adjust(|a| {
            a.rlimits.push(PosixRlimit {
                r#type: "RLIMIT_CORE".into(),
                hard: 1,
                soft: 1,
            })
        }),
        adjust(|a| {
            a.cdi_devices.push(CdiDevice {
                name: "v/c=d".into(),
            })
        }),
        linux(|l| {
            l.devices.push(LinuxDevice {
                path: "/dev/d".into(),
                ..LinuxDevice::default()
            })
        }),
        linux(|l| l.cgroups_path = "/c".into()),
        linux(|l| l.oom_score_adj = Some(OptionalInt { value: 1 })),
        linux(|l| l.io_priority = Some(LinuxIoPriority::default())),
        linux(|l| l.seccomp_policy = Some(LinuxSeccomp::default())),
        linux(|l| {
            l.namespaces.push(LinuxNamespace {
                r#type: "ipc".into(),
                ..LinuxNamespace::default()
            })
        }),
        linux(|l| drop(l.sysctl.insert("kernel.x".into(), "1".into()))),
        linux(|l| {
            drop(
                l.net_devices
                    .insert("eth1".into(), LinuxNetDevice::default()),
            )
        }),
        linux(|l| l.scheduler = Some(LinuxScheduler::default())),
        linux(|l| l.memory_policy = Some(LinuxMemoryPolicy::default())),
        linux(|l| l.rdt.get_or_insert_default().clos_id = text()),
        linux(|l| {
            l.rdt.get_or_insert_default().enable_monitoring = Some(OptionalBool { value: true })
        }),
        memory(|m| m.limit = Some(OptionalInt64 { value: 1 })),
        memory(|m| m.reservation = Some(OptionalInt64 { value: 1 })),
        memory(|m| m.swap = Some(OptionalInt64 { value: 1 })),
        memory(|m| m.swappiness = Some(OptionalUInt64 { value: 1 })),
        memory(|m| m.disable_oom_killer = Some(OptionalBool { value: false })),
        cpu(|c| c.shares = Some(OptionalUInt64 { value: 1 })),
        cpu(|c| c.quota = Some(OptionalInt64 { value: 1 })),
        cpu(|c| c.period = Some(OptionalUInt64 { value: 1 })),
        cpu(|c| c.cpus = "0".into()),
        cpu(|c| c.mems = "0".into()),
        limits(|l| l.pids = Some(LinuxPids { limit: 1 })),
        limits(|l| l.blockio_class = text()),
        limits(|l| drop(l.unified.insert("memory.high".into(), "1".into()))),
        limits(|l| {
            l.hugepage_limits.push(HugepageLimit {
                page_size: "2MB".into(),
                limit: 1,
            })
        }),
    ];
    for answer in answers {
        assert!(merged(vec![answer.clone()]).is_ok(), "{answer:?}");
        let both = merged(vec![answer.clone(), answer.clone()]);
        assert!(
            matches!(&both, Err(NriError::Conflict { first, second, .. }) if first == "00-p" && second == "01-p"),
            "{answer:?}"
        );
    }
}

#[test]
fn what_is_taken_away_first_may_be_set_anew() {
    let merge = merged(vec![
        adjust(|a| a.env.push(variable("K", "first"))),
        adjust(|a| a.env = vec![variable("-K", ""), variable("K", "second")]),
    ])
    .unwrap();
    assert_eq!(merge.adjustment().env, [variable("K", "second")]);
    assert!(merge.container().env.contains(&"K=second".to_owned()));
    let third = merged(vec![
        adjust(|a| a.env.push(variable("K", "first"))),
        adjust(|a| a.env = vec![variable("-K", "")]),
        adjust(|a| a.env.push(variable("K", "third"))),
    ]);
    assert!(third.is_err(), "who has taken it away decides");
    let args = merged(vec![
        adjust(|a| a.args = vec!["a".into()]),
        adjust(|a| a.args = vec![String::new(), "b".into()]),
    ]);
    assert_eq!(args.unwrap().adjustment().args, ["b"]);
}

#[test]
fn what_the_container_has_can_be_taken_away() {
    let merge = merged(vec![adjust(|a| {
        a.env.push(variable("-BASE", ""));
        a.mounts.push(mount("-/base"));
        a.annotations.insert("-base".into(), String::new());
    })])
    .unwrap();
    assert!(merge.container().env.is_empty() && merge.container().mounts.is_empty());
    assert!(merge.container().annotations.is_empty());
    let adjustment = merge.adjustment();
    assert_eq!(adjustment.env[0].key, "-BASE");
    assert_eq!(adjustment.mounts[0].destination, "-/base");
    assert!(adjustment.annotations.contains_key("-base"));
}

#[test]
fn hooks_and_device_rules_are_collected() {
    let hook = || Hook {
        path: "/bin/true".into(),
        ..Hook::default()
    };
    let answer = || {
        adjust(|a| {
            a.hooks.get_or_insert_default().prestart.push(hook());
            let linux = a.linux.get_or_insert_default();
            let rules = &mut linux.resources.get_or_insert_default().devices;
            rules.push(LinuxDeviceCgroup::default());
        })
    };
    let merge = merged(vec![answer(), answer()]).unwrap();
    let hooks = merge.adjustment().hooks.clone().unwrap();
    assert_eq!(hooks.prestart.len(), 2);
    assert_eq!(
        merge.owners().owner("new", Field::OciHooks),
        Some("00-p,01-p")
    );
    let linux = merge.adjustment().linux.clone().unwrap();
    assert_eq!(linux.resources.unwrap().devices.len(), 2);
}

fn update(id: &str, limit: i64, ignore_failure: bool) -> ContainerUpdate {
    let memory = LinuxMemory {
        limit: Some(OptionalInt64 { value: limit }),
        ..LinuxMemory::default()
    };
    ContainerUpdate {
        container_id: id.into(),
        linux: Some(LinuxContainerUpdate {
            resources: Some(LinuxResources {
                memory: Some(memory),
                ..LinuxResources::default()
            }),
        }),
        ignore_failure,
    }
}

fn limit_of(resources: &LinuxResources) -> Option<i64> {
    Some(resources.memory.as_ref()?.limit?.value)
}

#[test]
fn a_new_container_is_not_updated_and_others_are_once() {
    let answer = |update| CreateContainerResponse {
        update: vec![update],
        ..CreateContainerResponse::default()
    };
    assert!(matches!(
        merged(vec![answer(update("new", 1, false))]),
        Err(NriError::UpdateOfNew { .. })
    ));
    let both = |ignore| {
        merged(vec![
            answer(update("other", 1, false)),
            answer(update("other", 2, ignore)),
        ])
    };
    assert!(both(false).is_err());
    let merge = both(true).unwrap();
    assert_eq!(merge.updates(), [update("other", 1, false)]);
}

#[test]
fn an_update_of_the_updated_container_takes_the_requests_place() {
    let asked = update("c", 5, false).linux.unwrap().resources.unwrap();
    let mut merge = UpdateMerge::for_update_of("c".into(), asked);
    merge
        .apply(
            &plugin(0),
            vec![update("c", 7, false), update("d", 8, true)],
        )
        .unwrap();
    assert_eq!(limit_of(&merge.requested()), Some(7));
    assert_eq!(merge.others(), [update("d", 8, true)]);
    let again = merge.apply(&plugin(1), vec![update("c", 9, true)]);
    assert!(again.is_ok());
    assert_eq!(limit_of(&merge.requested()), Some(7), "the first one stays");
}

/// One plugin's wish for a key: how the merge must treat it is said again, by a model.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Set,
    Remove,
    Replace,
}

#[derive(Default)]
struct Model {
    /// Who has set a key, or has taken it away.
    owners: BTreeMap<String, (usize, bool)>,
    values: BTreeMap<String, String>,
}

impl Model {
    fn apply(&mut self, plugin: usize, key: &str, wish: Wish) -> bool {
        if matches!(wish, Wish::Remove | Wish::Replace) {
            if self.owners.contains_key(key) && self.values.remove(key).is_some() {
                self.owners.insert(key.into(), (plugin, false));
            }
            self.values.remove(key);
        }
        if matches!(wish, Wish::Set | Wish::Replace) {
            match self.owners.get(key) {
                Some((owner, set)) if *set || *owner != plugin => return false,
                _ => {}
            }
            self.owners.insert(key.into(), (plugin, true));
            self.values.insert(key.into(), plugin.to_string());
        }
        true
    }
}

proptest! {
    #[test]
    fn variables_end_as_the_model_says(
        wishes in prop::collection::vec(("[A-C]", prop_oneof![
            Just(Wish::Set), Just(Wish::Remove), Just(Wish::Replace)
        ]), 0..8)
    ) {
        let mut model = Model::default();
        let mut merge = CreationMerge::new(container());
        for (number, (key, wish)) in wishes.iter().enumerate() {
            let value = number.to_string();
            let env = match wish {
                Wish::Set => vec![variable(key, &value)],
                Wish::Remove => vec![variable(&removal(key), "")],
                Wish::Replace => vec![variable(key, &value), variable(&removal(key), "")],
            };
            let allowed = model.apply(number, key, *wish);
            let applied = merge.apply(&plugin(number), adjust(|a| a.env = env));
            prop_assert_eq!(applied.is_ok(), allowed);
            if !allowed {
                return Ok(());
            }
        }
        let set: BTreeMap<String, String> = merge.adjustment().env.iter()
            .filter(|entry| matches!(Marked::of(&entry.key), Marked::Kept(_)))
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect();
        prop_assert_eq!(&set, &model.values);
        let mut seen: Vec<String> = model.values.iter().map(|(key, value)| format!("{key}={value}")).collect();
        seen.push("BASE=1".into());
        seen.sort();
        let mut env = merge.container().env.clone();
        env.sort();
        prop_assert_eq!(env, seen);
    }
}
