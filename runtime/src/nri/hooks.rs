//! Hooks between plugins and OCI: programs that run while a container is made.

use oci_spec::runtime::{Hook, Hooks, Spec};
use podwright_nri::api;

use super::adjust::{cannot, wrong};
use crate::error::CallError;
use crate::index::shown;

/// Adds the plugins' hooks after those that the spec has. Those that would run in the host's namespaces are refused.
pub(super) fn add(spec: &mut Spec, wishes: Option<&api::Hooks>) -> Result<(), CallError> {
    let Some(wishes) = wishes.filter(|wishes| **wishes != api::Hooks::default()) else {
        return Ok(());
    };
    let refused = [
        ("prestart", &wishes.prestart),
        ("createRuntime", &wishes.create_runtime),
        ("poststart", &wishes.poststart),
        ("poststop", &wishes.poststop),
    ];
    if let Some((moment, hooks)) = refused.into_iter().find(|(_, hooks)| !hooks.is_empty()) {
        let path = hooks.first().map_or("", |hook| &hook.path);
        return Err(cannot(&format!(
            "the {moment} hook '{}' (createContainer and startContainer are possible)",
            shown(path)
        )));
    }
    let mut all = spec.hooks().clone().unwrap_or_default();
    let create = together(all.create_container(), &wishes.create_container)?;
    let start = together(all.start_container(), &wishes.start_container)?;
    all.set_create_container(create).set_start_container(start);
    spec.set_hooks(Some::<Hooks>(all));
    Ok(())
}

fn together(own: &Option<Vec<Hook>>, wishes: &[api::Hook]) -> Result<Option<Vec<Hook>>, CallError> {
    let mut all = own.clone().unwrap_or_default();
    for wish in wishes {
        all.push(hook(wish)?);
    }
    Ok((!all.is_empty()).then_some(all))
}

fn hook(wish: &api::Hook) -> Result<Hook, CallError> {
    let path = shown(&wish.path);
    if !wish.path.starts_with('/') {
        return Err(wrong(format_args!("the hook '{path}' is no absolute path")));
    }
    let timeout = wish.timeout.map(|timeout| timeout.value);
    if timeout.is_some_and(|seconds| seconds <= 0) {
        return Err(wrong(format_args!(
            "the hook '{path}' has a timeout that is not positive"
        )));
    }
    let is_variable = |entry: &&String| entry.find('=').is_some_and(|at| at > 0);
    if let Some(bad) = wish.env.iter().find(|entry| !is_variable(entry)) {
        return Err(wrong(format_args!(
            "'{}', for the hook '{path}', is no NAME=value",
            shown(bad)
        )));
    }
    let mut strings = wish.args.iter().chain(&wish.env).chain([&wish.path]);
    if strings.any(|text| text.contains('\0')) {
        return Err(wrong(format_args!("a NUL byte in the hook '{path}'")));
    }
    let mut out = Hook::default();
    out.set_path(wish.path.as_str().into())
        .set_args(Some(wish.args.clone()))
        .set_env(Some(wish.env.clone()))
        .set_timeout(timeout);
    Ok(out)
}

/// As plugins see them.
pub(super) fn of_spec(spec: &Spec) -> Option<api::Hooks> {
    let hooks = spec.hooks().as_ref()?;
    let all = |list: &Option<Vec<Hook>>| list.iter().flatten().map(of_oci).collect();
    Some(api::Hooks {
        create_container: all(hooks.create_container()),
        start_container: all(hooks.start_container()),
        ..api::Hooks::default()
    })
}

fn of_oci(hook: &Hook) -> api::Hook {
    api::Hook {
        path: hook.path().to_string_lossy().into_owned(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout: hook.timeout().map(|value| api::OptionalInt { value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hooks of a moment.
    type Moment = fn(&mut api::Hooks) -> &mut Vec<api::Hook>;

    fn wish(change: impl FnOnce(&mut api::Hook)) -> api::Hook {
        let mut hook = api::Hook {
            path: "/bin/hook".into(),
            args: vec!["hook".into(), "x".into()],
            env: vec!["A=b".into()],
            timeout: Some(api::OptionalInt { value: 5 }),
        };
        change(&mut hook);
        hook
    }

    fn at_create(hook: api::Hook) -> api::Hooks {
        api::Hooks {
            create_container: vec![hook],
            ..api::Hooks::default()
        }
    }

    #[test]
    fn hooks_come_after_those_that_are_there_and_are_seen_again() {
        let mut spec = Spec::default();
        add(&mut spec, None).unwrap();
        add(&mut spec, Some(&api::Hooks::default())).unwrap();
        assert_eq!(of_spec(&spec), None, "no bundle is written for nothing");
        let first = at_create(wish(|hook| hook.path = "/bin/first".into()));
        add(&mut spec, Some(&first)).unwrap();
        let mut second = at_create(wish(|_| {}));
        second
            .start_container
            .push(wish(|hook| hook.timeout = None));
        add(&mut spec, Some(&second)).unwrap();
        let expected = api::Hooks {
            create_container: [first.create_container, second.create_container].concat(),
            start_container: second.start_container,
            ..api::Hooks::default()
        };
        assert_eq!(of_spec(&spec), Some(expected));
    }

    #[test]
    fn what_cannot_run_is_refused_by_name() {
        let moments: [(&str, Moment); 4] = [
            ("prestart hook '/bin/hook'", |hooks| &mut hooks.prestart),
            ("createRuntime hook", |hooks| &mut hooks.create_runtime),
            ("poststart hook", |hooks| &mut hooks.poststart),
            ("poststop hook", |hooks| &mut hooks.poststop),
        ];
        for (word, list) in moments {
            let mut hooks = at_create(wish(|_| {}));
            list(&mut hooks).push(wish(|_| {}));
            let error = add(&mut Spec::default(), Some(&hooks)).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        let seconds = |value| Some(api::OptionalInt { value });
        for (bad, word) in [
            (wish(|hook| hook.path = "hook".into()), "no absolute path"),
            (wish(|hook| hook.path.clear()), "no absolute path"),
            (wish(|hook| hook.timeout = seconds(0)), "timeout"),
            (wish(|hook| hook.timeout = seconds(-1)), "timeout"),
            (wish(|hook| hook.env.push("=b".into())), "'=b'"),
            (wish(|hook| hook.env.push("A".into())), "'A'"),
            (wish(|hook| hook.args.push("a\0b".into())), "NUL"),
        ] {
            let error = add(&mut Spec::default(), Some(&at_create(bad))).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
