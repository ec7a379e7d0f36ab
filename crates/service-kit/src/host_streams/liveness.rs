//! Answers heartbeats that come on a connection of their own.
//!
//! A session's heartbeats share their connection with desired state and reports, so a large snapshot on a slow link delays them, and they say how an
//! agent's session is. These here say one thing, whether host and manager reach each other now, and nothing is in front of them: no database, no
//! queue and no lock that is held across I/O.
//!
//! They don't count as messages of the session: an agent whose session hangs is to be shown as disconnected, however alive its heartbeats are.

use super::HostManager;
use crate::peer::require_agent;
use domain::HostId;
use proto::sync::v1::{self as pb, host_liveness_server::HostLiveness};
use std::{pin::Pin, sync::Arc};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

pub struct HostLivenessService<M>(pub Arc<M>);

#[tonic::async_trait]
impl<M: HostManager> HostLiveness for HostLivenessService<M> {
    type BeatStream = Pin<Box<dyn Stream<Item = Result<pb::BeatAnswer, Status>> + Send>>;

    async fn beat(&self, request: Request<Streaming<pb::BeatRequest>>) -> Result<Response<Self::BeatStream>, Status> {
        let speaks_for = require_agent(&request, M::ROLE)?;
        let (manager, mut incoming) = (Arc::clone(&self.0), request.into_inner());
        let answers = async_stream::try_stream! {
            let mut host_id: Option<HostId> = None;
            let _open = Open::new();
            while let Some(beat) = next_beat(&*manager, &mut incoming).await? {
                if host_id.is_none() {
                    speaks_for.check(&beat.host_id)?;
                    let named = beat.host_id.parse();
                    host_id = Some(named.map_err(|_| Status::invalid_argument("the first heartbeat names its host"))?);
                }
                if !manager.streams().leads() {
                    tracing::debug!(?host_id, "this manager leads no longer; heartbeats aren't answered");
                    break;
                }
                yield pb::BeatAnswer { sequence: beat.sequence };
            }
        };
        Ok(Response::new(Box::pin(answers)))
    }
}

/// None: the stream has ended, the service stops, or the host has been silent for too long.
async fn next_beat<M: HostManager>(
    manager: &M,
    incoming: &mut Streaming<pb::BeatRequest>,
) -> Result<Option<pb::BeatRequest>, Status> {
    let streams = manager.streams();
    tokio::select! {
        () = streams.shutdown.cancelled() => Ok(None),
        beat = tokio::time::timeout(streams.silence, incoming.message()) => beat.unwrap_or(Ok(None)),
    }
}

/// A connection of heartbeats that is open.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::gauge!("iaas_host_heartbeat_connections").increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("iaas_host_heartbeat_connections").decrement(1.0);
    }
}
