//! The socket that plugins connect to by themselves.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use crate::adaptation::{Origin, Shared, serve};
use crate::error::StartError;

/// How long nothing is accepted after accept(2) has failed: it fails again at once when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listening socket and its file, which goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another runtime may have taken the place.
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens on `path`: a socket of mode 0600 in a directory that is made with mode 0700.
pub(crate) fn bind(path: &Path) -> Result<Listener, StartError> {
    let failed = |action| {
        move |source| StartError::Socket {
            action,
            path: path.to_owned(),
            source,
        }
    };
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("make the directory of"))?;
    }
    clear(path).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => StartError::SocketTaken {
            path: path.to_owned(),
        },
        _ => failed("take the place of")(error),
    })?;
    // Until the mode is set only the umask protects it, and the check of each peer's user.
    let socket = UnixListener::bind(path).map_err(failed("listen on"))?;
    let listener = Listener {
        socket,
        path: path.to_owned(),
        inode: inode(path).map_err(failed("examine"))?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("set the mode of"))?;
    Ok(listener)
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Removes the socket of a runtime that is gone. One that is alive keeps it; a file of another kind is left alone.
fn clear(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "a file that is no socket is there",
            ));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Takes plugins that connect, for ever.
pub(crate) async fn accept(shared: Arc<Shared>, listener: Listener) {
    loop {
        match listener.socket.accept().await {
            Ok((stream, _)) => admit(&shared, stream),
            Err(error) => {
                tracing::error!(%error, "cannot accept a NRI plugin's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: UnixStream) {
    let own = nix::unistd::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == own => {
            tracing::debug!(pid = peer.pid(), "a NRI plugin connects");
        }
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "refusing a NRI plugin of another user"
            );
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "refusing a NRI plugin whose user is unknown");
            return;
        }
    }
    let Some(place) = shared.place() else {
        tracing::warn!("refusing a NRI plugin: too many are connected");
        return;
    };
    let task = {
        let shared = Arc::clone(shared);
        async move {
            let Some(config) = shared.config.clone() else {
                return;
            };
            serve(shared, &config, stream, &Origin::External, None).await;
            drop(place);
        }
    };
    shared.spawn(task);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nri/nri.sock");
        drop(std::fs::create_dir(path.parent().unwrap()));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(bind(&path), Err(StartError::SocketTaken { .. })));
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn the_directory_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nri/nri.sock");
        let _listener = bind(&path).unwrap();
        let made = std::fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o700);
    }
}
