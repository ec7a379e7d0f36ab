//! Consoles of simulated instances: a log with a few lines, and a serial port that answers each line with itself.

use domain::InstanceId;
use proto::{
    agent::v1::{self as pb, console_relay_client::ConsoleRelayClient, console_up::Up},
    cluster::v1::{ConsoleOutput, console_open::What},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// What the "guest" of an instance printed.
pub(crate) fn log_of(id: &str) -> String {
    format!("sim: booting {id}\nsim: up\n")
}

/// Answers one OpenSession: calls back, and serves the session until either side ends.
pub(crate) async fn serve(mut client: ConsoleRelayClient<Channel>, session: pb::OpenSession, known: bool) {
    let (tx, rx) = mpsc::channel(16);
    let up = |up| pb::ConsoleUp { up: Some(up) };
    // The channel is fresh and has room.
    let _ = tx.send(up(Up::Start(pb::SessionStart { session_id: session.session_id }))).await;
    let Ok(response) = client.console_session(ReceiverStream::new(rx)).await else { return };
    let mut down = response.into_inner();
    let Some(open) = session.open else { return };
    if !known || open.instance_id.parse::<InstanceId>().is_err() {
        let _ = tx.send(up(Up::Error(pb::SessionError { detail: "no such instance here".into() }))).await;
        return;
    }
    let log = log_of(&open.instance_id);
    let output =
        |data: Vec<u8>, next_offset| up(Up::Output(ConsoleOutput { data: data.into(), next_offset, truncated: false }));
    match open.what {
        Some(What::Log(log_open)) => {
            let from = usize::try_from(log_open.offset.unwrap_or(0)).unwrap_or(usize::MAX).min(log.len());
            let data = log.as_bytes()[from..].to_vec();
            let _ = tx.send(output(data, log.len() as u64)).await;
            if log_open.follow {
                // Nothing more is ever printed; it lasts until the reader goes.
                let _ = down.message().await;
            }
        }
        Some(What::Serial(_)) | None => {
            let _ = tx.send(output(log.into_bytes(), 0)).await;
            while let Ok(Some(input)) = down.message().await {
                if tx.send(output(input.data.to_vec(), 0)).await.is_err() {
                    return;
                }
            }
        }
    } // Said all: hanging up at once would cut off what is still on its way.
    drop(tx);
    while let Ok(Some(_)) = down.message().await {}
}
