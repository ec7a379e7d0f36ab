//! An address that stays while the service behind it comes and goes, as a port does across a restart.

use parking_lot::Mutex;
use service_kit::transport::{self, GrpcListener, GrpcTarget};
use std::sync::Arc;
use tokio::{io::DuplexStream, sync::mpsc};

#[derive(Clone)]
pub struct Switchboard {
    pub target: GrpcTarget,
    behind: Arc<Mutex<Option<mpsc::Sender<DuplexStream>>>>,
}

impl Switchboard {
    pub fn new() -> Self {
        let (listener, target) = transport::in_process();
        let GrpcListener::InProcess(mut incoming) = listener else { unreachable!("it was made in process") };
        let behind: Arc<Mutex<Option<mpsc::Sender<DuplexStream>>>> = Arc::default();
        let forward = Arc::clone(&behind);
        tokio::spawn(async move {
            while let Some(stream) = incoming.recv().await {
                let sender = forward.lock().clone();
                if let Some(sender) = sender {
                    // Nobody listens: the stream is dropped, and the caller sees a closed connection.
                    let _ = sender.send(stream).await;
                }
            }
        });
        Self { target, behind }
    }

    /// A listener for a service that takes the place of the last one.
    pub fn listener(&self) -> GrpcListener {
        let (tx, rx) = mpsc::channel(64);
        *self.behind.lock() = Some(tx);
        GrpcListener::InProcess(rx)
    }

    pub fn unplug(&self) {
        *self.behind.lock() = None;
    }
}
