//! Objects, streamed to hosts.

use super::{StorageService, failure};
use domain::Problem;
use proto::{status::to_status, storage::v1 as pb};
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::Status;

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::FetchObjectResponse, Status>> + Send>>;

impl StorageService {
    /// At least one message, so that the total is known of an object whose end is asked for.
    pub(super) async fn object_fetch(&self, request: pb::FetchObjectRequest) -> Result<Chunks, Problem> {
        let opened = self.objects.read(&request.sha256, request.offset).await;
        let mut reader = opened.map_err(|e| failure::of_object(&e))?;
        let total_bytes = reader.total_bytes();
        if request.offset > total_bytes {
            return Err(Problem::invalid("offset", format!("is behind the end ({total_bytes} bytes)")));
        }
        Ok(Box::pin(async_stream::stream! {
            let mut said = false;
            loop {
                match reader.chunk().await {
                    Ok(Some(chunk)) => {
                        said = true;
                        metrics::counter!("iaas_storage_fetch_bytes_total").increment(chunk.len() as u64);
                        yield Ok(pb::FetchObjectResponse { chunk, total_bytes });
                    }
                    Ok(None) => {
                        if !said {
                            yield Ok(pb::FetchObjectResponse { chunk: Default::default(), total_bytes });
                        }
                        break;
                    }
                    Err(error) => {
                        yield Err(to_status(&failure::of_object(&error)));
                        break;
                    }
                }
            }
        }))
    }
}
