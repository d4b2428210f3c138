//! Reads files of an image through its layers as overlayfs would show them, without a mount: the user
//! database of a container that is about to start.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::store::{Lease, StoreError};

/// Symlinks followed before it counts as a loop, as in path_resolution(7).
const MAX_SYMLINKS: usize = 40;
/// Components walked, with those of symlinks.
const MAX_STEPS: usize = 1024;
const MAX_SYMLINK: usize = 4096;

/// Why a file of an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A system call failed.
    #[error("cannot {operation} {path:?} of the image")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The path in the image.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A directory, device, or other thing that is no regular file.
    #[error("{path:?} of the image is no regular file")]
    NotAFile {
        /// The path in the image.
        path: String,
    },
    /// More bytes than the caller takes.
    #[error("{path:?} of the image has {size} bytes, at most {most} are read")]
    TooLarge {
        /// The path in the image.
        path: String,
        /// Its size.
        size: u64,
        /// The bound.
        most: u64,
    },
    /// A loop of symlinks, or a path without end.
    #[error("{path:?} of the image leads through too many symlinks")]
    Loop {
        /// The path in the image.
        path: String,
    },
}

/// An image's layers, readable as one tree.
#[derive(Debug)]
pub struct LayeredView {
    /// The top one first.
    layers: Vec<OwnedFd>,
    _lease: Option<Lease>,
}

/// What a path leads to.
enum Place {
    Directory,
    /// The layer that has it, and its path there without symlinks.
    Other(usize, Vec<u8>),
}

/// What a name is in the merged tree.
enum Found {
    Nothing,
    /// The layers whose directories are merged here, the top one first.
    Directory(Vec<usize>),
    Symlink(Vec<u8>),
    /// The layer that it is in.
    Other(usize),
}

impl LayeredView {
    /// Opens the layers named, the top one first.
    pub(crate) fn open(
        root: &Path,
        names: Vec<String>,
        lease: Lease,
    ) -> Result<LayeredView, StoreError> {
        let mut view = Self::of_directories(names.iter().map(|name| root.join(name)))?;
        view._lease = Some(lease);
        Ok(view)
    }

    fn of_directories(
        directories: impl Iterator<Item = std::path::PathBuf>,
    ) -> Result<LayeredView, StoreError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let layers = directories
            .map(|path| {
                rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| StoreError::Io {
                    operation: "open",
                    path,
                    source: errno.into(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(LayeredView {
            layers,
            _lease: None,
        })
    }

    /// Reads a regular file of at most `max_bytes`; `None` when there is none of that name. Symlinks lead
    /// no further than the image's root. Blocks.
    pub fn read(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, ViewError> {
        let (layer, resolved) = match self.resolve(path)? {
            None => return Ok(None),
            Some(Place::Other(layer, resolved)) => (layer, resolved),
            Some(Place::Directory) => {
                return Err(ViewError::NotAFile {
                    path: path.to_owned(),
                });
            }
        };
        let failed = |operation| {
            move |source| ViewError::Io {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        // A device or fifo that took the file's place must not hold us.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Looked at before it is opened: opening a device has effects.
        let kind = self
            .stat(layer, &resolved)
            .map_err(|errno| failed("look at")(errno.into()))?;
        if FileType::from_raw_mode(kind.st_mode) != FileType::RegularFile {
            return Err(ViewError::NotAFile {
                path: path.to_owned(),
            });
        }
        let file = self
            .open_in(layer, &resolved, flags)
            .map_err(|errno| failed("open")(errno.into()))?;
        let file = std::fs::File::from(file);
        let size = file.metadata().map_err(failed("look at"))?.len();
        if size > max_bytes {
            return Err(ViewError::TooLarge {
                path: path.to_owned(),
                size,
                most: max_bytes,
            });
        }
        let mut bytes = Vec::new();
        file.take(max_bytes)
            .read_to_end(&mut bytes)
            .map_err(failed("read"))?;
        Ok(Some(bytes))
    }

    /// Whether a path leads to a directory; `None` when it leads to nothing. Symlinks lead no further than the image's
    /// root. Blocks.
    pub fn is_directory(&self, path: &str) -> Result<Option<bool>, ViewError> {
        let place = self.resolve(path)?;
        Ok(place.map(|place| matches!(place, Place::Directory)))
    }

    fn resolve(&self, path: &str) -> Result<Option<Place>, ViewError> {
        let too_far = || ViewError::Loop {
            path: path.to_owned(),
        };
        // The components still to walk, the next one last.
        let mut ahead: Vec<Vec<u8>> = components(path.as_bytes());
        // Where we are, and for each level the layers merged there.
        let mut here: Vec<Vec<u8>> = Vec::new();
        let mut merged: Vec<Vec<usize>> = vec![(0..self.layers.len()).collect()];
        let (mut symlinks, mut steps) = (0, 0);
        while let Some(component) = ahead.pop() {
            steps += 1;
            if steps > MAX_STEPS {
                return Err(too_far());
            }
            if component == b".." {
                here.pop();
                if merged.len() > 1 {
                    merged.pop();
                }
                continue;
            }
            here.push(component);
            let place = here.join(&b'/');
            let layers = merged.last().map(Vec::as_slice).unwrap_or_default();
            let found = self.look(layers, &place).map_err(|errno| ViewError::Io {
                operation: "look at",
                path: path.to_owned(),
                source: errno.into(),
            })?;
            match found {
                Found::Nothing => return Ok(None),
                Found::Directory(layers) => merged.push(layers),
                Found::Other(layer) if ahead.is_empty() => {
                    return Ok(Some(Place::Other(layer, place)));
                }
                Found::Other(_) => return Ok(None),
                Found::Symlink(target) => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(too_far());
                    }
                    here.pop();
                    if target.starts_with(b"/") {
                        here.clear();
                        merged.truncate(1);
                    }
                    ahead.extend(components(&target));
                }
            }
        }
        Ok(Some(Place::Directory))
    }

    /// Looks a path up in the layers that its directory is merged from.
    fn look(&self, layers: &[usize], place: &[u8]) -> Result<Found, Errno> {
        let mut directory = Vec::new();
        for &layer in layers {
            let stat = match self.stat(layer, place) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => continue,
                Err(errno) => return Err(errno),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::CharacterDevice if stat.st_rdev == 0 => break,
                FileType::Directory => {
                    directory.push(layer);
                    if self.is_opaque(layer, place)? {
                        break;
                    }
                }
                // A file below a directory is hidden by it.
                _ if !directory.is_empty() => break,
                FileType::Symlink => {
                    let link = self.open_in(
                        layer,
                        place,
                        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    )?;
                    let target = rustix::fs::readlinkat(link, c"", Vec::new())?.into_bytes();
                    return if target.len() > MAX_SYMLINK {
                        Err(Errno::NAMETOOLONG)
                    } else {
                        Ok(Found::Symlink(target))
                    };
                }
                _ => return Ok(Found::Other(layer)),
            }
        }
        Ok(if directory.is_empty() {
            Found::Nothing
        } else {
            Found::Directory(directory)
        })
    }

    fn stat(&self, layer: usize, place: &[u8]) -> Result<rustix::fs::Stat, Errno> {
        let opened = self.open_in(
            layer,
            place,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        )?;
        rustix::fs::statat(opened, c"", AtFlags::EMPTY_PATH)
    }

    fn is_opaque(&self, layer: usize, place: &[u8]) -> Result<bool, Errno> {
        let directory = self.open_in(
            layer,
            place,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        )?;
        // fgetxattr(2) takes no O_PATH descriptor; the magic link leads to the directory held.
        let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let mut value = [0u8; 8];
        match rustix::fs::getxattr(link, "trusted.overlay.opaque", &mut value) {
            Ok(length) => Ok(&value[..length] == b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn open_in(&self, layer: usize, place: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(
            &self.layers[layer],
            OsStr::from_bytes(place),
            flags,
            Mode::empty(),
            resolve,
        )
        // A symlink on the way in a lower layer stands where the upper ones have a directory.
        .map_err(|errno| {
            if errno == Errno::LOOP {
                Errno::NOTDIR
            } else {
                errno
            }
        })
    }
}

/// A path's components, the first one last; `.` and empty ones left out.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let components = path
        .split(|&b| b == b'/')
        .filter(|c| !matches!(*c, b"" | b"."));
    let mut components: Vec<Vec<u8>> = components.map(<[u8]>::to_vec).collect();
    components.reverse();
    components
}

#[cfg(test)]
mod tests;
