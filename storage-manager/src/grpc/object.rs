//! Objects, streamed to hosts.

use super::{StorageService, failure::object_problem};
use crate::object::{ObjectError, parse_sha256};
use domain::{Problem, image::Image};
use operation::read_problem;
use proto::{status::to_status, storage::v1 as pb};
use service_kit::{error_chain, peer::SpeaksFor};
use std::{pin::Pin, time::SystemTime};
use tokio_stream::Stream;
use tonic::Status;

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::FetchObjectResponse, Status>> + Send>>;

impl StorageService {
    /// Sends at least one message, so that the caller learns the total even when it requests nothing but the end.
    /// A host gets what its instances are made of. What else there is it doesn't learn.
    pub(super) async fn object_fetch(
        &self,
        speaks_for: SpeaksFor,
        request: pb::FetchObjectRequest,
    ) -> Result<Chunks, Problem> {
        match speaks_for {
            SpeaksFor::Any => {}
            SpeaksFor::Host(host_id) => {
                parse_sha256(&request.sha256).map_err(object_problem)?;
                let needs = self.store.image_object_used_on_host(&request.sha256, host_id).await;
                if !needs.map_err(read_problem)? {
                    tracing::warn!(%host_id, sha256 = request.sha256, "a host requests an object that no instance of it needs");
                    return Err(object_problem(ObjectError::Absent { sha256: request.sha256 }));
                }
            }
        }
        let opened = self.objects.read(&request.sha256, request.offset).await;
        let mut reader = opened.map_err(object_problem)?;
        let total_bytes = reader.total_bytes();
        if request.offset > total_bytes {
            return Err(Problem::invalid("offset", format!("is behind the end ({total_bytes} bytes)")));
        }
        Ok(Box::pin(async_stream::stream! {
            let mut sent = false;
            loop {
                match reader.chunk().await {
                    Ok(Some(chunk)) => {
                        sent = true;
                        metrics::counter!("iaas_storage_fetch_bytes_total").increment(chunk.len() as u64);
                        yield Ok(pb::FetchObjectResponse { chunk, total_bytes });
                    }
                    Ok(None) => {
                        if !sent {
                            yield Ok(pb::FetchObjectResponse { chunk: Default::default(), total_bytes });
                        }
                        break;
                    }
                    Err(error) => {
                        yield Err(to_status(&object_problem(error)));
                        break;
                    }
                }
            }
        }))
    }

    /// Removes the bytes of a deleted image that no other image names, so that deleting frees room at once. What fails here the sweep does.
    pub(super) async fn remove_objects_of(&self, image: &Image) {
        for part in &image.parts {
            // An upload of the same bytes holds this until its row names them.
            let _turn = self.naming.enter(part.sha256.clone()).await;
            match self.store.image_object_used(&part.sha256).await {
                Ok(true) => {}
                Ok(false) => match self.objects.remove_older(&part.sha256, SystemTime::now()).await {
                    Ok(_) => tracing::info!(sha256 = part.sha256, "removed an object that no image names any more"),
                    Err(error) => tracing::warn!(error = error_chain(&error), "a sweep removes the object later"),
                },
                Err(error) => tracing::warn!(error = error_chain(&error), "a sweep removes the object later"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, grpc::StorageService, object::ObjectDir, reservation::ImageReservations};
    use domain::{ErrorKind, HostId, host::AgentRole};
    use proto::{status::from_status, storage::v1::storage_manager_server::StorageManager};
    use service_kit::{
        fleet::Fleet,
        peer::{HostPeer, Peer},
    };
    use std::sync::Arc;
    use store::testing::TestStore;
    use tonic::Request;

    #[tokio::test]
    async fn a_host_gets_no_object_that_none_of_its_instances_needs() {
        let (db, directory) = (TestStore::sqlite().await, tempfile::tempdir().expect("a directory"));
        let objects = ObjectDir::open(directory.path()).await.expect("the store");
        let mut upload = objects.begin().await.expect("begun");
        upload.write(bytes::Bytes::from_static(b"another's image")).await.expect("written");
        let staged = upload.finish().await.expect("finished");
        let sha256 = staged.sha256.clone();
        objects.publish(staged).await.expect("published");
        let reservations = ImageReservations::new(db.store.clone());
        let service = StorageService::new(db.store.clone(), objects, Config::default(), reservations, Arc::default());
        let (fleet, host_id) = (Fleet::default(), HostId::new());
        fleet.publish([(host_id, "k".to_owned())].into());
        let fetch = |peer: Peer| {
            let mut request = Request::new(pb::FetchObjectRequest { sha256: sha256.clone(), offset: 0 });
            request.extensions_mut().insert(peer);
            service.fetch_object(request)
        };
        assert!(fetch(Peer::InProcess).await.is_ok(), "this machine's own agent");
        let host = HostPeer { host_id, role: AgentRole::ComputeAgent, key_hash: "k".into(), fleet };
        let refused = fetch(Peer::Host(host)).await.err().expect("none of its instances is made of it");
        assert_eq!(from_status(&refused).kind, ErrorKind::NotFound, "as if there were no such object");
    }
}
