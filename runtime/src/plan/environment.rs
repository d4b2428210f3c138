//! A container's arguments and environment, merged from its image and its request.

use oci_spec::image::Config as ImageConfig;
use podwright_cri_api::v1::ContainerConfig;

use crate::error::CallError;
use crate::index::shown;

/// What a shell finds programs by when neither image nor request says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Program and arguments: the request's command replaces the image's entry point and its arguments, the request's arguments
/// replace the image's (the table of "Define a Command and Arguments for a Container" in the Kubernetes documentation).
pub(super) fn arguments(
    config: &ContainerConfig,
    image: Option<&ImageConfig>,
) -> Result<Vec<String>, CallError> {
    let of_image = |list: fn(&ImageConfig) -> &Option<Vec<String>>| {
        image
            .and_then(|image| list(image).clone())
            .unwrap_or_default()
    };
    let mut all = if config.command.is_empty() {
        of_image(ImageConfig::entrypoint)
    } else {
        config.command.clone()
    };
    if !config.args.is_empty() {
        all.extend(config.args.iter().cloned());
    } else if config.command.is_empty() {
        all.extend(of_image(ImageConfig::cmd));
    }
    match all.first() {
        None => Err(CallError::invalid(
            "there is nothing to run: neither the request nor the image names a command",
        )),
        Some(program) if program.is_empty() => {
            Err(CallError::invalid("the command to run is an empty string"))
        }
        Some(_) if all.iter().any(|argument| argument.contains('\0')) => {
            Err(CallError::invalid("an argument holds a NUL byte"))
        }
        Some(_) => Ok(all),
    }
}

/// `NAME=value` strings in the image's order; the request's values win.
pub(super) fn environment(
    config: &ContainerConfig,
    image: Option<&ImageConfig>,
    hostname: &str,
    home: &str,
) -> Result<Vec<String>, CallError> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match all.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => all.push((name.into(), value.into())),
    };
    set("PATH", DEFAULT_PATH);
    if !hostname.is_empty() {
        set("HOSTNAME", hostname);
    }
    if config.tty {
        set("TERM", "xterm");
    }
    set("HOME", if home.is_empty() { "/" } else { home });
    for entry in image
        .and_then(|image| image.env().as_ref())
        .into_iter()
        .flatten()
    {
        // An image's entry without '=' is no variable.
        if let Some((name, value)) = entry.split_once('=') {
            set(name, value);
        }
    }
    for variable in &config.envs {
        let value = str::from_utf8(&variable.value);
        let bad = variable.key.is_empty()
            || variable.key.contains(['=', '\0'])
            || variable.value.contains(&0);
        match value {
            Ok(value) if !bad => set(&variable.key, value),
            _ => {
                return Err(CallError::invalid(format!(
                    "'{}' is no environment variable that execve can pass",
                    shown(&variable.key)
                )));
            }
        }
    }
    Ok(all
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::ConfigBuilder;
    use podwright_cri_api::v1::KeyValue;

    fn image() -> ImageConfig {
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        ConfigBuilder::default()
            .entrypoint(strings(&["/entry"]))
            .cmd(strings(&["a", "b"]))
            .env(strings(&["PATH=/bin", "X=1"]))
            .build()
            .unwrap()
    }

    #[test]
    fn command_and_arguments_replace_the_image_s_as_kubernetes_says() {
        let cases: [(&[&str], &[&str], &[&str]); 4] = [
            (&[], &[], &["/entry", "a", "b"]),
            (&["sh"], &[], &["sh"]),
            (&[], &["c"], &["/entry", "c"]),
            (&["sh"], &["-c", "x"], &["sh", "-c", "x"]),
        ];
        for (command, args, expected) in cases {
            let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect();
            let config = ContainerConfig {
                command: strings(command),
                args: strings(args),
                ..Default::default()
            };
            assert_eq!(arguments(&config, Some(&image())).unwrap(), expected);
        }
        assert!(arguments(&ContainerConfig::default(), None).is_err());
    }

    #[test]
    fn the_request_s_variables_win_and_keep_their_place() {
        let envs = vec![
            KeyValue {
                key: "X".into(),
                value: b"2".to_vec(),
            },
            KeyValue {
                key: "Y".into(),
                value: b"a=b".to_vec(),
            },
        ];
        let config = ContainerConfig {
            envs,
            ..Default::default()
        };
        let all = environment(&config, Some(&image()), "web", "/root").unwrap();
        assert_eq!(
            all,
            ["PATH=/bin", "HOSTNAME=web", "HOME=/root", "X=2", "Y=a=b"]
        );
    }

    #[test]
    fn names_that_would_smuggle_variables_are_refused() {
        for key in ["", "A=B", "A\0B"] {
            let config = ContainerConfig {
                envs: vec![KeyValue {
                    key: key.into(),
                    value: vec![],
                }],
                ..Default::default()
            };
            assert!(environment(&config, None, "", "").is_err(), "{key:?}");
        }
    }
}
