//! The bytes of an image, from the caller's connection to the storage-manager's stream, a few chunks in memory at a time.
//!
//! **The trap.** A gRPC request stream can end, but it can't fail: to the storage-manager an upload whose caller died in the middle and
//! one that is complete would look alike. So the stream only ever ends when the caller's body did, and a body that breaks off, stalls
//! or is too slow cancels the call itself, which the storage-manager sees as an error and throws away what it has. The same happens
//! when this future is dropped, which is what a lost connection comes to.
//!
//! A refusal may come before all bytes did. A caller who still writes would lose it in the connection's reset, so what is left of the
//! body is read and thrown away for a moment before the answer is sent.

use crate::{
    app::{
        App,
        idempotency::IdempotencyRecord,
        image,
        intent::Intent,
        plan::{Done, Plan},
    },
    auth::caller::Caller,
    failure::ApiError,
};
use bytes::Bytes;
use domain::{
    ErrorKind, Problem, ProjectId,
    image::{Image, ImagePartKind},
};
use futures::{Stream, StreamExt};
use proto::storage::v1::{self as pb, upload_image_request::Message};
use std::{pin::pin, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Chunks between the caller's connection and the storage-manager's.
const BUFFERED: usize = 4;
/// A caller that sends nothing for this long is given up.
const STALLED: Duration = Duration::from_secs(60);
/// How much is read of a body whose upload was already refused.
const DRAIN_BYTES: u64 = 64 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Pieces of one gRPC message.
const CHUNK: usize = 1024 * 1024;

/// What a request declares of the bytes that it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Lower-case hex; empty: not declared.
    pub sha256: String,
    /// 0: not declared.
    pub size_bytes: u64,
}

/// Whose bytes come: a part of the image that `key` means.
pub struct UploadTarget<'a> {
    pub project_id: ProjectId,
    pub key: &'a str,
    pub part: ImagePartKind,
}

/// What may begin.
enum Admitted {
    Upload(Box<(IdempotencyRecord, pb::UploadOpen)>),
    Plan(Plan),
}

/// Takes one part's bytes. The image is active when all its parts are there.
pub async fn upload<E: Send>(
    app: &App,
    caller: &Caller,
    target: UploadTarget<'_>,
    declared: Declared,
    intent: &Intent,
    mut bytes: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
) -> Result<Done<Image>, ApiError> {
    let (record, open) = match admit(app, caller, target, declared, intent).await {
        Ok(Admitted::Upload(upload)) => *upload,
        Ok(Admitted::Plan(plan)) => return Ok(Done::Plan(plan)),
        Err(error) => {
            drain(&mut bytes).await;
            return Err(error);
        }
    };
    let outcome = send(app, &record, open, bytes).await;
    app.catalog().invalidate();
    image::received(outcome?.image).map(Done::Change)
}

/// Refuses what needs no byte to be refused.
async fn admit(
    app: &App,
    caller: &Caller,
    target: UploadTarget<'_>,
    declared: Declared,
    intent: &Intent,
) -> Result<Admitted, ApiError> {
    let UploadTarget { project_id, key, part } = target;
    let found = image::find_own(app, project_id, key).await?;
    if !found.kind.parts().contains(&part) {
        let parts: Vec<&str> = found.kind.parts().iter().map(|p| p.as_str()).collect();
        let detail =
            format!("image {} is of kind {}: its parts are {}", found.name, found.kind.as_str(), parts.join(", "));
        return Err(Problem::invalid("part", detail).into());
    }
    if intent.dry_run {
        intent.check_generation(found.generation)?;
        let summary = format!("the part {} of image {} would be taken", part.as_str(), found.name);
        return Ok(Admitted::Plan(image::plan(summary, found.name.as_str(), found.id)));
    }
    let record = IdempotencyRecord::open(app, caller, intent, 0, async { Ok(vec![found.id.0]) }).await?;
    if !record.repeated {
        intent.check_generation(found.generation)?;
    }
    let open = pb::UploadOpen {
        project_id: project_id.to_string(),
        image_id: found.id.to_string(),
        part: part.as_str().to_owned(),
        sha256: declared.sha256,
        size_bytes: declared.size_bytes,
    };
    Ok(Admitted::Upload(Box::new((record, open))))
}

async fn send<E: Send>(
    app: &App,
    record: &IdempotencyRecord,
    open: pb::UploadOpen,
    mut body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
) -> Result<pb::UploadImageResponse, ApiError> {
    let (chunks, stream) = mpsc::channel(BUFFERED);
    let opened = chunks.try_send(pb::UploadImageRequest { message: Some(Message::Open(open)) });
    debug_assert!(opened.is_ok(), "an empty channel has room");
    let mut storage = app.storage();
    let mut call = pin!(storage.upload_image(record.request(ReceiverStream::new(stream))));
    // Answered while bytes still come: refused, or known already.
    let early = {
        let mut feeding = pin!(feed(&mut body, &chunks));
        tokio::select! {
            biased;
            answer = &mut call => Some(answer),
            fed = &mut feeding => {
                // On an error `call` is dropped, and with it cancelled, before `chunks` ends the stream.
                fed?;
                None
            }
        }
    };
    let answer = match early {
        Some(answer) => {
            drain(&mut body).await;
            answer
        }
        None => {
            drop(chunks);
            call.await
        }
    };
    answer.map(tonic::Response::into_inner).map_err(|status| record.refused(status))
}

/// Passes the body on until its end. An error is the caller's: it broke off, or stalled.
async fn feed<E>(
    body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    chunks: &mpsc::Sender<pb::UploadImageRequest>,
) -> Result<(), Problem> {
    loop {
        let mut data = match tokio::time::timeout(STALLED, body.next()).await {
            Ok(Some(Ok(data))) => data,
            Ok(None) => return Ok(()),
            Ok(Some(Err(_))) => {
                return Err(Problem::new(
                    ErrorKind::InvalidArgument,
                    "upload_cut",
                    "the upload ended too early; nothing of it was kept",
                )
                .with_hint("send it again from the start"));
            }
            Err(_) => {
                return Err(Problem::new(
                    ErrorKind::DeadlineExceeded,
                    "upload_stalled",
                    format!("no data arrived for {} seconds; nothing of the upload was kept", STALLED.as_secs()),
                )
                .with_hint("send it again from the start"));
            }
        };
        while !data.is_empty() {
            let chunk: Bytes = data.split_to(data.len().min(CHUNK));
            if chunks.send(pb::UploadImageRequest { message: Some(Message::Chunk(chunk)) }).await.is_err() {
                // The call ended; its answer says why.
                return std::future::pending().await;
            }
        }
    }
}

async fn drain<E>(body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin)) {
    let mut left = DRAIN_BYTES;
    let reading = async {
        while let Some(Ok(data)) = body.next().await {
            left = left.saturating_sub(data.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    // Past it the caller is on its own: the connection is closed behind the answer.
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}
