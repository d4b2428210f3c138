//! What is slow to make and never changes: test images, crictl, critest.
//!
//! Each kind of thing is a directory `name-version` that appears complete or not at all. The version
//! is the hash of the recipe, so an edited recipe makes a new directory. Processes that need the
//! same thing at once wait for the one that builds it.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::images::sha256;

/// The environment variable that moves the cache.
pub const VARIABLE: &str = "PODWRIGHT_TEST_CACHE";

/// Where everything is kept: `$PODWRIGHT_TEST_CACHE`, or `~/.cache/podwright-test`.
pub fn directory() -> PathBuf {
    env::var_os(VARIABLE).map_or_else(
        || {
            let home = env::var_os("HOME").unwrap_or_else(|| "/root".into());
            PathBuf::from(home).join(".cache/podwright-test")
        },
        PathBuf::from,
    )
}

/// The directory of `name` as its `recipe` makes it. `build` is called when it is not there yet,
/// with an empty directory to fill.
///
/// # Errors
/// When `build` fails, or the cache cannot be written.
pub fn directory_of(
    name: &str,
    recipe: &str,
    build: impl FnOnce(&std::path::Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = directory();
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let hash = sha256(recipe.as_bytes());
    let done = cache.join(format!("{name}-{}", &hash["sha256:".len()..][..16]));
    if done.is_dir() {
        return Ok(done);
    }
    let lock = cache.join(format!("{name}.lock"));
    let file = fs::File::create(&lock).with_context(|| format!("creating {}", lock.display()))?;
    let _locked = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("locking {}", lock.display()))?;
    if done.is_dir() {
        return Ok(done);
    }
    // In the same file system, so that the rename below is one step.
    let scratch = tempfile::Builder::new()
        .prefix(".building-")
        .tempdir_in(&cache)?;
    let fresh = scratch.path().join("done");
    fs::create_dir(&fresh)?;
    build(&fresh).with_context(|| format!("building {name} for the tests"))?;
    fs::rename(&fresh, &done).with_context(|| format!("moving {name} to {}", done.display()))?;
    Ok(done)
}
