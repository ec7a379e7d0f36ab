//! The socket by which the compute-agent acquires and releases ports: [`proto::port_socket`] is its protocol.

use crate::host::{Host, Refusal};
use proto::port_socket::{PortReply, PortRequest, RefusedReason, body_len, decode, encode, send_with_fd};
use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{UnixListener, UnixStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Whatever a caller asks for, a wait ends.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Makes the socket, for root alone; one that an earlier life left is replaced.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub async fn serve(host: Arc<Host>, listener: UnixListener, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a caller of the port socket could not be accepted");
                    continue;
                }
            },
        };
        let (host, shutdown) = (Arc::clone(&host), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                ended = talk(&host, stream) => if let Err(error) = ended
                    && error.kind() != io::ErrorKind::UnexpectedEof
                {
                    tracing::warn!(%error, "the port socket's caller was cut off");
                },
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn talk(host: &Host, mut stream: UnixStream) -> io::Result<()> {
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let mut body = vec![0; body_len(head)?];
        stream.read_exact(&mut body).await?;
        let (reply, fd) = answer(host, decode(&body)?).await;
        let bytes = encode(&reply);
        let mut sent = 0;
        if let Some(fd) = fd {
            while sent == 0 {
                stream.writable().await?;
                let tried = stream.try_io(Interest::WRITABLE, || send_with_fd(stream.as_fd(), &bytes, fd.as_fd()));
                match tried {
                    Ok(n) => sent = n,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
        }
        stream.write_all(&bytes[sent..]).await?;
    }
}

async fn answer(host: &Host, request: PortRequest) -> (PortReply, Option<OwnedFd>) {
    let refused = |Refusal { reason, detail }: Refusal| (PortReply::Refused { reason, detail }, None);
    match request {
        PortRequest::Acquire { port_id, instance_id, epoch, timeout_ms } => {
            let timeout = Duration::from_millis(timeout_ms).min(TIMEOUT_MAX);
            match host.acquire(port_id, instance_id, epoch, timeout).await {
                Ok(acquired) if acquired.tap.is_none() => refused(Refusal {
                    reason: RefusedReason::Failed,
                    detail: "this host's ports are wired as veths, which have no descriptor".into(),
                }),
                Ok(acquired) => (PortReply::Acquired { mac: acquired.mac, mtu: acquired.mtu }, acquired.tap),
                Err(refusal) => refused(refusal),
            }
        }
        PortRequest::Confirm { port_id, instance_id, epoch, timeout_ms } => {
            let timeout = Duration::from_millis(timeout_ms).min(TIMEOUT_MAX);
            match host.confirm(port_id, instance_id, epoch, timeout).await {
                Ok(()) => (PortReply::Confirmed, None),
                Err(refusal) => refused(refusal),
            }
        }
        PortRequest::Attend => (PortReply::Attending, None),
        PortRequest::Release { port_id, instance_id, epoch } => match host.release(port_id, instance_id, epoch).await {
            Ok(()) => (PortReply::Released, None),
            Err(refusal) => refused(refusal),
        },
    }
}
