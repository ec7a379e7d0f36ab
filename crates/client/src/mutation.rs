//! Changes. Each has an idempotency key from its birth, so that whoever sends it again (the retries here, or the caller after an
//! error) asks for the same thing once.

use crate::{
    Client, ClientError,
    http::{ANSWER, Call, CallBody},
    model::{DryRun, Plan},
};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use std::{future::IntoFuture, marker::PhantomData, pin::Pin, time::Duration};

/// A change that is about to be requested; `.await` sends it.
#[derive(Debug, Clone)]
#[must_use = "a mutation does nothing until it is awaited"]
pub struct Mutation<T> {
    client: Client,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    body: Option<serde_json::Value>,
    key: String,
    if_match: Option<i64>,
    answer_within: Duration,
    answer: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Mutation<T> {
    pub(crate) fn new(client: &Client, method: Method, path: impl Into<String>) -> Self {
        Self {
            client: client.clone(),
            method,
            path: path.into(),
            query: Vec::new(),
            body: None,
            key: uuid::Uuid::now_v7().to_string(),
            if_match: None,
            answer_within: ANSWER,
            answer: PhantomData,
        }
    }

    pub(crate) fn body(mut self, body: &impl Serialize) -> Self {
        // The request types here have string keys only, so they always are JSON.
        self.body = Some(serde_json::to_value(body).unwrap_or_default());
        self
    }

    /// Instead of a random one: for callers that remember it across restarts.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// Only if the object is still at this generation.
    pub fn if_match(mut self, generation: i64) -> Self {
        self.if_match = Some(generation);
        self
    }

    /// Answered when the object is in `state` (`running`, `guest`, `deleted`, …), or with a 504 after `timeout`.
    pub fn wait(mut self, state: &str, timeout: Duration) -> Self {
        self.query.push(("wait".to_owned(), state.to_owned()));
        self.query.push(("timeout".to_owned(), format!("{}s", timeout.as_secs().max(1))));
        self.answer_within = ANSWER + timeout;
        self
    }

    /// All checks, no change: what it would do.
    pub async fn plan(mut self) -> Result<Plan, ClientError> {
        self.query.push(("dry_run".to_owned(), "true".to_owned()));
        let answer: DryRun = self.client.json(&self.call()).await?;
        Ok(answer.plan)
    }

    /// Makes the change. Borrowing: it may be sent again, with the same key.
    pub async fn send(&self) -> Result<T, ClientError> {
        self.client.json(&self.call()).await
    }

    fn call(&self) -> Call<'_> {
        let mut headers = vec![("idempotency-key", self.key.clone())];
        headers.extend(self.if_match.map(|generation| ("if-match", format!("\"{generation}\""))));
        let body = self.body.as_ref().map_or(CallBody::None, |b| CallBody::Json(b.to_string().into_bytes()));
        Call {
            method: self.method.clone(),
            headers,
            body,
            answer_within: Some(self.answer_within),
            ..Call::get(self.path.as_str(), &self.query)
        }
    }
}

impl<T: DeserializeOwned + 'static> IntoFuture for Mutation<T> {
    type Output = Result<T, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.send().await })
    }
}
