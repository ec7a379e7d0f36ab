//! Bytes of an image, streamed from a file. The hash is computed first and sent along, so that a byte that changes on the way is
//! noticed by the server, and a repeated upload of the same bytes is no change.

use crate::{
    Client, ClientError,
    http::{Call, CallBody, segment},
    model::Image,
};
use domain::image::ImagePartKind;
use futures::StreamExt;
use reqwest::{Body, Method};
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio_util::io::ReaderStream;

const BUFFER: usize = 256 * 1024;

/// A file's size and SHA-256 (lower-case hex).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest {
    pub size_bytes: u64,
    pub sha256: String,
}

/// Reads a file through. `progress` is told of the bytes read so far.
pub async fn digest(path: &Path, progress: impl Fn(u64) + Send + 'static) -> Result<FileDigest, ClientError> {
    let path = path.to_owned();
    let failed = |path: PathBuf| move |source| ClientError::File { path, source };
    let lost = failed(path.clone());
    let hashing = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(&path).map_err(failed(path.clone()))?;
        let (mut hasher, mut size_bytes, mut buffer) = (Sha256::new(), 0u64, vec![0u8; BUFFER]);
        loop {
            let n = file.read(&mut buffer).map_err(failed(path.clone()))?;
            if n == 0 {
                return Ok(FileDigest { size_bytes, sha256: hex::encode(hasher.finalize()) });
            }
            hasher.update(&buffer[..n]);
            size_bytes += n as u64;
            progress(size_bytes);
        }
    });
    hashing.await.unwrap_or_else(|e| Err(lost(io::Error::other(e))))
}

impl Client {
    /// Uploads one part of an image from a file. Retried as a whole, from the start. `progress` is told of the bytes sent so far.
    pub async fn image_upload(
        &self,
        image: &str,
        part: ImagePartKind,
        path: &Path,
        digest: &FileDigest,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Image, ClientError> {
        let progress = Arc::new(progress);
        let open = {
            let (path, size) = (path.to_owned(), digest.size_bytes);
            move || -> io::Result<Body> {
                let file = tokio::fs::File::from_std(std::fs::File::open(&path)?);
                let (sent, progress) = (AtomicU64::new(0), Arc::clone(&progress));
                let stream = ReaderStream::with_capacity(tokio::io::AsyncReadExt::take(file, size), BUFFER);
                Ok(Body::wrap_stream(stream.inspect(move |chunk| {
                    if let Ok(chunk) = chunk {
                        let n = chunk.len() as u64;
                        progress(sent.fetch_add(n, Ordering::Relaxed) + n);
                    }
                })))
            }
        };
        // A file that can't be read is said before the server is requested.
        open().map_err(|source| ClientError::File { path: path.to_owned(), source })?;
        let call = Call {
            method: Method::PUT,
            headers: vec![
                ("x-content-sha256", digest.sha256.clone()),
                ("idempotency-key", uuid::Uuid::now_v7().to_string()),
            ],
            body: CallBody::Stream(&open),
            answer_within: None,
            ..Call::get(format!("/v1/images/{}/parts/{}", segment(image), part.as_str()), &[])
        };
        self.json(&call).await
    }
}
