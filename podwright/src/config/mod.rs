//! The configuration: defaults, then the file, then flags.
//!
//! The defaults are [`podwright_runtime::config::Config`]'s. The file and the flags are the same set of keys
//! ([`Settings`]), every one optional, so that a key, its flag and its rules are said once.

mod handlers;
mod nri;
mod settings;
mod values;

use std::path::{Path, PathBuf};

use podwright_runtime::config::{Config, StreamingTls};
use podwright_runtime::systemd::InvalidSlice;

pub(crate) use settings::Settings;
pub(crate) use values::{LogFilter, LogFormat};

/// The file that is read when no other is named and it exists.
pub(crate) const DEFAULT_FILE: &str = "/etc/podwright/podwright.toml";

/// The commented file that says every default.
pub(crate) const DEFAULT_TEXT: &str = include_str!("../../podwright.toml");

/// Where the daemon's log lines go is the program's own business; all else is the runtime's.
#[derive(Debug, Default)]
pub(crate) struct Daemon {
    pub(crate) runtime: Config,
    pub(crate) streaming_tls: TlsFiles,
    pub(crate) log_level: LogFilter,
    pub(crate) log_format: LogFormat,
}

/// The certificate of streamed sessions, until it is known that it has a key.
#[derive(Debug, Default)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// Why there is no valid configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}:{line}:{column}: {reason}")]
    Parse {
        path: PathBuf,
        line: usize,
        column: usize,
        reason: String,
    },
    #[error(
        "the state directory {state} and the run directory {run} must not lie in one another: one is durable, the other is emptied at boot"
    )]
    NestedDirectories { state: PathBuf, run: PathBuf },
    #[error("cgroup.root cannot be used with cgroup.driver = \"systemd\": {source}")]
    CgroupRoot {
        #[from]
        source: InvalidSlice,
    },
    #[error(
        "streaming.{given} is set and streaming.{missing} is not: TLS needs both the certificate and its key"
    )]
    HalfOfTls {
        given: &'static str,
        missing: &'static str,
    },
}

/// Reads `file`, or the default file when it exists, and puts the flags on top.
///
/// # Errors
/// When the named file cannot be read, a key is unknown, a value is refused, or the whole contradicts itself.
pub(crate) fn load(file: Option<&Path>, flags: Settings) -> Result<Daemon, ConfigError> {
    let from_file = match (file, Path::new(DEFAULT_FILE)) {
        (Some(path), _) => read(path)?,
        (None, path) if path.exists() => read(path)?,
        (None, _) => Settings::default(),
    };
    combine(from_file, flags)
}

/// Checks one file as [`load`] would, without flags.
pub(crate) fn check(file: &Path) -> Result<(), ConfigError> {
    combine(read(file)?, Settings::default()).map(drop)
}

fn read(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = &text.as_bytes()[..start];
        let line_start = before
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |newline| newline + 1);
        ConfigError::Parse {
            path: path.to_owned(),
            line: 1 + before.iter().filter(|&&b| b == b'\n').count(),
            column: 1 + String::from_utf8_lossy(&before[line_start..])
                .chars()
                .count(),
            reason: error.message().replace('\n', " "),
        }
    })
}

fn combine(file: Settings, flags: Settings) -> Result<Daemon, ConfigError> {
    let mut daemon = Daemon::default();
    let default_socket = daemon.runtime.socket.clone();
    // Handlers begin with the general settings, which flags may still change.
    let handlers = file.apply(&mut daemon);
    flags.apply(&mut daemon);
    handlers::apply(handlers, &mut daemon.runtime);
    daemon.runtime.settle_cgroup_roots()?;
    let Config {
        state_dir,
        run_dir,
        socket,
        ..
    } = &mut daemon.runtime;
    if state_dir.starts_with(&*run_dir) || run_dir.starts_with(&*state_dir) {
        return Err(ConfigError::NestedDirectories {
            state: state_dir.clone(),
            run: run_dir.clone(),
        });
    }
    // The socket goes with the run directory unless it is placed itself.
    if *socket == default_socket
        && let Some(name) = default_socket.file_name()
    {
        *socket = run_dir.join(name);
    }
    daemon.runtime.streaming.tls = tls(std::mem::take(&mut daemon.streaming_tls))?;
    Ok(daemon)
}

fn tls(files: TlsFiles) -> Result<Option<StreamingTls>, ConfigError> {
    let half = |given, missing| Err(ConfigError::HalfOfTls { given, missing });
    match (files.certificate, files.key) {
        (Some(certificate), Some(key)) => Ok(Some(StreamingTls { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => half("tls_certificate", "tls_key"),
        (None, Some(_)) => half("tls_key", "tls_certificate"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use podwright_runtime::cgroup::CgroupPath;
    use podwright_runtime::config::UserNamespaces;

    fn parsed(text: &str) -> Result<Daemon, ConfigError> {
        combine(parse(Path::new("p.toml"), text)?, Settings::default())
    }

    fn refusal(text: &str) -> String {
        parsed(text).unwrap_err().to_string()
    }

    #[test]
    fn the_default_file_says_the_defaults() {
        assert_eq!(
            format!("{:?}", parsed(DEFAULT_TEXT).unwrap()),
            format!("{:?}", Daemon::default())
        );
    }

    /// Keys without a default stand in the file as `#key = value`; with them uncommented it still parses,
    /// and then names every key there is.
    #[test]
    fn the_default_file_names_every_key() {
        let everything = DEFAULT_TEXT.lines().map(|l| {
            l.strip_prefix('#')
                .filter(|l| !l.starts_with([' ', '#']))
                .unwrap_or(l)
        });
        let everything: Vec<&str> = everything.collect();
        let settings = parse(Path::new("p.toml"), &everything.join("\n")).unwrap();
        assert!(!format!("{settings:?}").contains("None"), "{settings:?}");
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let file = parse(
            Path::new("p.toml"),
            "[paths]\nstate = \"/f/state\"\nrun = \"/f/run\"\n[network]\nbridge = \"file0\"",
        )
        .unwrap();
        let mut flags = Settings::default();
        flags.network.bridge = Some("flag0".parse().unwrap());
        let daemon = combine(file, flags).unwrap();
        assert_eq!(daemon.runtime.state_dir, Path::new("/f/state"));
        assert_eq!(daemon.runtime.network.bridge, "flag0");
        assert_eq!(daemon.runtime.network.table, "podwright");
        assert_eq!(
            daemon.runtime.socket,
            Path::new("/f/run/cri.sock"),
            "the socket follows the run directory"
        );
    }

    #[test]
    fn handlers_differ_from_the_default_as_they_say() {
        let text = "[pods]\npids_limit = 100\n[cgroup]\nroot = \"/pods\"\n\
                    [handlers.a.pods]\nuser_namespaces = \"required\"\n\
                    [handlers.b]\ncgroup.root = \"/other\"\npods.pids_limit = 7\n";
        let file = parse(Path::new("p.toml"), text).unwrap();
        let mut flags = Settings::default();
        flags.cgroup.root = Some(CgroupPath::new("/flag").unwrap());
        let runtime = combine(file, flags).unwrap().runtime;
        let told = |name: &str| {
            let handler = &runtime.handlers[name];
            let pids = handler.pods.pids_limit.unwrap().get();
            (
                pids,
                handler.pods.user_namespaces,
                handler.cgroup_root.to_string(),
            )
        };
        assert_eq!(told("a"), (100, UserNamespaces::Required, "/flag".into()));
        assert_eq!(told("b"), (7, UserNamespaces::Allowed, "/other".into()));
    }

    #[test]
    fn roots_are_slices_with_the_systemd_driver() {
        let settled = |text: &str| {
            let text = format!("[cgroup]\ndriver = \"systemd\"\n{text}");
            let runtime = parsed(&text).unwrap().runtime;
            let handlers = runtime.handlers.values();
            let roots = handlers.map(|handler| handler.cgroup_root.to_string());
            let own = [runtime.cgroup_root.to_string()];
            own.into_iter().chain(roots).collect::<Vec<_>>()
        };
        assert_eq!(settled(""), ["/podwright.slice"]);
        assert_eq!(settled("root = \"/podwright\""), ["/podwright.slice"]);
        let text = "root = \"a-b.slice\"\n[handlers.x]\n[handlers.y]\ncgroup.root = \"c.slice\"";
        assert_eq!(
            settled(text),
            ["/a.slice/a-b.slice", "/a.slice/a-b.slice", "/c.slice"]
        );
        for refused in [
            "[cgroup]\ndriver = \"systemd\"\nroot = \"/pods\"",
            "[cgroup]\ndriver = \"systemd\"\n[handlers.x]\ncgroup.root = \"/pods\"",
        ] {
            let said = refusal(refused);
            assert!(
                said.contains("/pods") && said.contains("is no slice"),
                "{said}"
            );
        }
        let said = refusal("[cgroup]\ndriver = \"auto\"");
        assert!(said.contains("cgroupfs"), "{said}");
    }

    #[test]
    fn errors_say_file_line_and_reason() {
        for (text, position, reason) in [
            (
                "[paths]\nstaet = \"/x\"",
                "p.toml:2:1: ",
                "unknown field `staet`",
            ),
            ("[pahts]\n", "p.toml:1:2: ", "unknown field `pahts`"),
            (
                "\n\n[paths]\nstate = \"x\"",
                "p.toml:4:9: ",
                "must be absolute",
            ),
            (
                "[network]\nbridge = \"a-name-too-long-\"",
                "p.toml:2:10: ",
                "link name",
            ),
            (
                "[network]\nsubnets = [\"10.0.0.0/16\", \"10.0.1.0/24\"]",
                "p.toml:2:11: ",
                "10.0.0.0/16 and 10.0.1.0/24 overlap",
            ),
            ("[network]\nmtu = 70000", "p.toml:2:7: ", "65535"),
            ("[network]\nmtu = -1", "p.toml:2:7: ", "expected u32"),
            (
                "[network]\nmasquerade = \"yes\"",
                "p.toml:2:14: ",
                "expected a boolean",
            ),
            ("[log]\nlevel = \"loud\"", "p.toml:2:9: ", "no log level"),
            (
                "[streaming]\nlisten = \"localhost\"",
                "p.toml:2:10: ",
                "socket address",
            ),
            (
                "[streaming]\nidle_timeout = 0",
                "p.toml:2:16: ",
                "out of range",
            ),
            (
                "[log]\nformat = \"xml\"",
                "p.toml:2:10: ",
                "expected `text` or `json`",
            ),
            (
                "[registry]\nmax_concurrent_downloads = 0",
                "p.toml:2:28: ",
                "1 to 64",
            ),
            ("[images]\npinned = [\"a b\"]", "p.toml:2:10: ", "a b"),
            (
                "[pods]\nseccomp = \"none\"",
                "p.toml:2:11: ",
                "no seccomp profile",
            ),
            ("[pods]\npids_limit = 0", "p.toml:2:14: ", "1 to 4194304"),
            (
                "[pods]\nuser_namespaces = \"no\"",
                "p.toml:2:19: ",
                "unknown variant `no`",
            ),
            (
                "[handlers.A.pods]",
                "p.toml:1:11: ",
                "no name of a runtime handler",
            ),
            (
                "[handlers.a]\nseccomp = \"Unconfined\"",
                "p.toml:2:1: ",
                "unknown field `seccomp`",
            ),
            (
                "[nri]\nrequest_timeout = \"2\"",
                "p.toml:2:19: ",
                "10ms to 10m",
            ),
            (
                "[nri]\nrequired_plugins = [\"a/b\"]",
                "p.toml:2:20: ",
                "plugin's name",
            ),
            ("[nri]\nreject = [\"all\"]", "p.toml:2:11: ", "oci-hooks"),
            (
                "[log]\nlevel = \"info\"\nlevel = \"warn\"",
                "p.toml:3:1: ",
                "duplicate key",
            ),
            ("[log\n", "p.toml:1:5: ", ""),
        ] {
            let refusal = refusal(text);
            assert!(
                refusal.starts_with(position) && refusal.contains(reason),
                "{text:?}: {refusal}"
            );
        }
    }

    #[test]
    fn state_and_run_directories_are_apart() {
        for (state, run) in [("/a", "/a"), ("/a/b", "/a"), ("/a", "/a/b")] {
            let refusal = refusal(&format!("[paths]\nstate = \"{state}\"\nrun = \"{run}\""));
            assert!(refusal.contains("must not lie in one another"), "{refusal}");
        }
    }

    #[test]
    fn tls_needs_a_certificate_and_its_key() {
        let certificate = "[streaming]\ntls_certificate = \"/tls/cert.pem\"\n";
        for (text, missing) in [
            (certificate, "streaming.tls_key is not"),
            (
                "[streaming]\ntls_key = \"/tls/key.pem\"",
                "streaming.tls_certificate is not",
            ),
        ] {
            assert!(refusal(text).contains(missing), "{}", refusal(text));
        }
        let mut flags = Settings::default();
        flags.streaming.tls_key = Some("/tls/key.pem".parse().unwrap());
        let daemon = combine(parse(Path::new("p.toml"), certificate).unwrap(), flags).unwrap();
        let tls = daemon.runtime.streaming.tls.unwrap();
        assert_eq!(
            (tls.certificate, tls.key),
            ("/tls/cert.pem".into(), "/tls/key.pem".into())
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = check(Path::new("/nonexistent/p.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/p.toml"), "{error}");
    }
}
