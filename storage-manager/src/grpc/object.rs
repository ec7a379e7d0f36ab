//! Objects, streamed to hosts.

use super::{StorageService, failure::object_problem};
use domain::Problem;
use proto::{status::to_status, storage::v1 as pb};
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::Status;

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::FetchObjectResponse, Status>> + Send>>;

impl StorageService {
    /// Sends at least one message, so that the caller learns the total even when it requests nothing but the end.
    pub(super) async fn object_fetch(&self, request: pb::FetchObjectRequest) -> Result<Chunks, Problem> {
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
}
