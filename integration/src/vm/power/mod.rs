//! A disk whose power can fail.
//!
//! A drive has a cache of its own: it says that a write is done before it lasts, and only a flush makes all
//! earlier writes last. When QEMU is killed, its host still has what the machine wrote to a file, so an image
//! file is a drive that loses nothing, and a program that never flushes would pass every test. This drive
//! is served here, over NBD, and keeps what was not flushed apart from the image; when the power fails,
//! it loses as much of that as a [`Random`] decides.

mod cache;
mod nbd;

use std::{
    fs::File,
    io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::Disk;
use crate::random::Random;

pub use cache::Loss;
use cache::WriteCache;

/// A disk for one life of one machine: from its start until the power fails.
#[derive(Debug)]
pub struct VolatileDisk {
    socket: PathBuf,
    /// Ends when the machine does, and gives back what it has not written to the image.
    server: JoinHandle<io::Result<WriteCache>>,
    _directory: TempDir,
}

impl VolatileDisk {
    /// Puts power on the disk whose content is the image file `path`.
    ///
    /// # Errors
    /// When the image cannot be opened, or not be served.
    pub fn switch_on(path: &Path) -> Result<Self> {
        let image = File::options().read(true).write(true).open(path);
        let image = image.with_context(|| format!("opening {}", path.display()))?;
        let cache = WriteCache::new(image).context("reading the disk's size")?;
        let directory = tempfile::Builder::new()
            .prefix("podwright-disk-")
            .tempdir()?;
        let socket = directory.path().join("nbd");
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("binding {}", socket.display()))?;
        let server = thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || serve(&listener, cache))?;
        Ok(Self {
            socket,
            server,
            _directory: directory,
        })
    }

    /// What a machine is given.
    pub fn disk(&self) -> Disk {
        Disk::served_at(&self.socket)
    }

    /// Takes the power away after the machine has ended. `random` decides what of the writes since the last flush
    /// is on the disk.
    ///
    /// # Errors
    /// When the disk had failed before, which the machine then saw too, or the image cannot be written.
    pub fn cut(self, random: &mut Random) -> Result<Loss> {
        self.finish()?
            .cut(random)
            .context("writing what survives the cut")
    }

    /// Takes the power away from a machine that has switched itself off.
    ///
    /// # Errors
    /// As for [`cut`](Self::cut).
    pub fn switch_off(self) -> Result<()> {
        self.finish()?.flush().context("writing the disk's cache")
    }

    fn finish(self) -> Result<WriteCache> {
        // A machine that never started has not connected; this ends the waiting for it.
        drop(UnixStream::connect(&self.socket));
        let served = self.server.join();
        let served = served.map_err(|_| anyhow::anyhow!("the disk's thread panicked"))?;
        served.context("serving the disk")
    }
}

/// Serves one connection, until it ends.
fn serve(listener: &UnixListener, mut cache: WriteCache) -> io::Result<WriteCache> {
    let (stream, _) = listener.accept()?;
    match nbd::converse(&stream, &mut cache) {
        // The end of a machine whose power fails, between requests or within one.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
            ) => {}
        other => other?,
    }
    Ok(cache)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_no_machine_used_is_as_it_was() {
        let image = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(image.path(), [7; 1024]).unwrap();
        let disk = VolatileDisk::switch_on(image.path()).unwrap();
        let loss = disk.cut(&mut Random::new(1)).unwrap();
        assert_eq!(loss, Loss::default());
        assert_eq!(std::fs::read(image.path()).unwrap(), [7; 1024]);
    }
}
