//! Connects to a socket in a directory that a QEMU may write.
//!
//! A QEMU that its guest has taken over may put anything in the place of its sockets: a link to the socket of a program that trusts root, or
//! another guest's monitor. The agent is root, so what it writes there would be believed. So the path is opened without following links and
//! without connecting (`O_PATH`), what is there must be a socket of the instance's own user, the connection goes to that very file, and
//! whoever listens on it must be that user as well.

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::{
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};
use tokio::net::UnixStream;

/// A socket that a QEMU listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuSocket {
    pub path: PathBuf,
    /// The user whom it must belong to.
    pub uid: u32,
}

impl QemuSocket {
    pub fn new(path: impl Into<PathBuf>, uid: u32) -> Self {
        Self { path: path.into(), uid }
    }

    /// Connects, if it is the user's own socket.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let file = open(&self.path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let meta = fstat(&file)?;
        if FileType::from_raw_mode(meta.st_mode) != FileType::Socket || meta.st_uid != self.uid {
            return Err(self.foreign("it isn't the socket that its QEMU made"));
        }
        let stream = UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).await?;
        if stream.peer_cred()?.uid() != self.uid {
            return Err(self.foreign("another user listens on it"));
        }
        Ok(stream)
    }

    fn foreign(&self, what: &str) -> io::Error {
        metrics::counter!("iaas_foreign_sockets_total").increment(1);
        tracing::error!(path = %self.path.display(), uid = self.uid, "a socket of a QEMU isn't connected to: {what}");
        io::Error::new(io::ErrorKind::PermissionDenied, format!("{}: {what}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};
    use tokio::net::UnixListener;

    /// Everything that may be in the socket's place, and whether it is connected to.
    #[tokio::test]
    async fn only_the_users_own_socket_is_connected_to() {
        const USER: u32 = 64_056;
        if !rustix::process::geteuid().is_root() {
            return println!("not run: giving sockets away takes root");
        }
        let dir = tempfile::tempdir().expect("dir");
        let at = |name: &str| dir.path().join(name);
        let own = UnixListener::bind(at("own")).expect("bound");
        let kind =
            async |name: &str, uid| QemuSocket::new(at(name), uid).connect().await.map(drop).map_err(|e| e.kind());
        assert_eq!(kind("own", 0).await, Ok(()));
        assert_eq!(kind("none", 0).await, Err(io::ErrorKind::NotFound));
        let denied = Err(io::ErrorKind::PermissionDenied);
        // Root's socket, as it is and given away: its listener stays who it is.
        assert_eq!(kind("own", USER).await, denied);
        chown(at("own"), Some(USER), Some(USER)).expect("given away");
        assert_eq!(kind("own", USER).await, denied);
        assert_eq!(kind("own", 0).await, denied);
        chown(at("own"), Some(0), Some(0)).expect("taken back");
        // The way there must be the socket itself.
        symlink(at("own"), at("link")).expect("linked");
        assert_eq!(kind("link", 0).await, denied);
        std::fs::write(at("file"), "").expect("written");
        assert_eq!(kind("file", 0).await, denied);
        drop(own);
        assert_eq!(kind("own", 0).await, Err(io::ErrorKind::ConnectionRefused), "nobody listens any more");
    }
}
