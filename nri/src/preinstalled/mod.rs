//! Plugins that the runtime starts: the programs of a directory.

mod process;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::adaptation::{Origin, Shared, serve};
use crate::config::Config;
use crate::identity::PluginName;

/// Plugin programs that are started; more are not looked at.
const MAX_PROGRAMS: usize = 32;

/// The largest configuration of a plugin: it travels in one message.
const MAX_CONFIG: u64 = 1 << 20;

/// A plugin that has ended is started again after this long, and twice as long each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A plugin program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) name: PluginName,
    path: PathBuf,
    config: String,
}

/// The programs that are there, in the order in which they are called. What cannot be one is passed over with a log line.
pub(crate) fn discover(config: &Config) -> Vec<Program> {
    let directory = &config.plugin_dir;
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::error!(directory = %directory.display(), %error, "cannot look for NRI plugins");
            return Vec::new();
        }
    };
    let mut programs = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        match program(config, &entry.path()) {
            Ok(Some(program)) => programs.push(program),
            Ok(None) => {}
            Err(why) => {
                tracing::error!(program = %entry.path().display(), why, "not starting this NRI plugin")
            }
        }
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    if programs.len() > MAX_PROGRAMS {
        tracing::error!(directory = %directory.display(), "starting the first {MAX_PROGRAMS} NRI plugins only");
        programs.truncate(MAX_PROGRAMS);
    }
    programs
}

/// None for what is no program at all.
fn program(config: &Config, path: &Path) -> Result<Option<Program>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
        return Ok(None);
    }
    // It runs as this user: whoever can write it would be this user.
    let own = nix::unistd::geteuid().as_raw();
    if metadata.uid() != own && metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(format!(
            "it belongs to user {} with mode {:o}: others than root can change it",
            metadata.uid(),
            metadata.mode() & 0o7777
        ));
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name = PluginName::of_file(&file).map_err(|error| error.to_string())?;
    Ok(Some(Program {
        config: configuration(&config.plugin_config_dir, &name)?,
        path: path.to_owned(),
        name,
    }))
}

/// `IDX-NAME.conf`, or else `NAME.conf`, or else nothing.
fn configuration(directory: &Path, name: &PluginName) -> Result<String, String> {
    for file in [format!("{name}.conf"), format!("{}.conf", name.name())] {
        let path = directory.join(file);
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
            Ok(metadata) if metadata.len() > MAX_CONFIG => {
                return Err(format!(
                    "{} is larger than {MAX_CONFIG} bytes",
                    path.display()
                ));
            }
            Ok(_) => return std::fs::read_to_string(&path).map_err(failed),
        }
    }
    Ok(String::new())
}

/// Keeps a plugin running. `joined` is told, or dropped, when it is clear whether its first process takes part.
pub(crate) async fn supervise(shared: Arc<Shared>, program: Program, joined: oneshot::Sender<()>) {
    let mut joined = Some(joined);
    let mut pause = FIRST_PAUSE;
    loop {
        let start = Instant::now();
        run(&shared, &program, joined.take()).await;
        if start.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tracing::warn!(plugin = %program.name, "the NRI plugin has ended; starting it again in {} s", pause.as_secs());
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

async fn run(shared: &Arc<Shared>, program: &Program, joined: Option<oneshot::Sender<()>>) {
    let (Some(config), Some(_place)) = (&shared.config, shared.place()) else {
        tracing::error!(plugin = %program.name, "not starting the NRI plugin: too many are connected");
        return;
    };
    let (mut process, stream) = match process::start(&program.path, &program.name) {
        Ok(started) => started,
        Err(error) => {
            tracing::error!(plugin = %program.name, program = %program.path.display(), %error, "cannot start the NRI plugin");
            return;
        }
    };
    tracing::info!(plugin = %program.name, pid = process.id(), "started the NRI plugin");
    let origin = Origin::PreInstalled {
        name: program.name.clone(),
        config: program.config.clone(),
    };
    serve(Arc::clone(shared), config, stream, &origin, joined).await;
    // It has no connection any more, and nothing to live for.
    if let Err(error) = process.kill().await {
        tracing::warn!(plugin = %program.name, %error, "cannot end the NRI plugin's process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn programs_are_found_with_their_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            plugin_dir: directory.path().join("plugins"),
            plugin_config_dir: directory.path().join("conf.d"),
            ..Config::default()
        };
        assert_eq!(discover(&config), []);
        for made in [&config.plugin_dir, &config.plugin_config_dir] {
            std::fs::create_dir(made).unwrap();
        }
        for (file, mode) in [
            ("20-b", 0o755),
            ("10-a", 0o700),
            ("10-data", 0o644),
            ("nameless", 0o755),
            ("30-open", 0o777),
            ("31-group", 0o775),
        ] {
            write(&config.plugin_dir.join(file), "", mode);
        }
        for (file, text) in [
            ("a.conf", "general"),
            ("20-b.conf", "exact"),
            ("b.conf", "no"),
        ] {
            write(&config.plugin_config_dir.join(file), text, 0o644);
        }
        let found: Vec<_> = discover(&config)
            .into_iter()
            .map(|program| (program.name.to_string(), program.config))
            .collect();
        let expected = [("10-a", "general"), ("20-b", "exact")];
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
