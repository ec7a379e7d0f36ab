//! Readiness tests the path that work takes: a read and a write of the database, and a call to each service behind the API. Anybody may ask, so
//! it is tested once a second at most, however many ask, and only system admins are shown the reasons: they hold paths and addresses.

use crate::{app::App, failure::ApiError};
use domain::{ErrorKind, Problem};
use http::uri::PathAndQuery;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tonic::{Code, Request, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

const TIMEOUT: Duration = Duration::from_secs(3);

/// How long a result counts.
const KEPT: Duration = Duration::from_secs(1);

/// The last result. Whoever comes while it is tested waits for it.
#[derive(Default)]
pub struct Cached(Mutex<Option<(Instant, Vec<Check>)>>);

/// One thing that the API needs.
#[derive(Clone)]
pub struct Check {
    /// `database`, `cluster-manager`, `storage-manager`, `resource-manager`.
    pub name: &'static str,
    /// The reason why it doesn't work; empty when it does.
    pub detail: String,
}

/// All that was checked, when all of it works. `reasons`: whether a refusal says why.
pub async fn check(app: &App, reasons: bool) -> Result<Vec<Check>, ApiError> {
    if app.shutdown().is_cancelled() {
        return Err(Problem::new(ErrorKind::Unavailable, "shutting_down", "the server is stopping").into());
    }
    let checks = checks(app).await;
    let failed: Vec<_> = checks.iter().filter(|c| !c.detail.is_empty()).collect();
    if failed.is_empty() {
        return Ok(checks);
    }
    let shown = |check: &&&Check| {
        if reasons { format!("{}: {}", check.name, check.detail) } else { format!("{} doesn't work now", check.name) }
    };
    let detail: Vec<_> = failed.iter().map(|check| shown(&check)).collect();
    let mut problem = Problem::new(ErrorKind::Unavailable, "not_ready", detail.join("; "))
        .with_hint("run `iaasctl doctor`: it says what is wrong and what to do");
    problem.retry_after_secs = Some(1);
    Err(problem.into())
}

impl Cached {
    /// The last result while it counts, else the one of `test`.
    async fn get_or(&self, now: impl Fn() -> Instant, test: impl Future<Output = Vec<Check>>) -> Vec<Check> {
        let mut last = self.0.lock().await;
        if let Some((at, checks)) = last.as_ref()
            && now().saturating_duration_since(*at) < KEPT
        {
            return checks.clone();
        }
        let checks = test.await;
        *last = Some((now(), checks.clone()));
        checks
    }
}

async fn checks(app: &App) -> Vec<Check> {
    let test = async {
        let services = app.services();
        let (database, cluster, storage, resource) = tokio::join!(
            database(app),
            service("cluster-manager", services.cluster.clone()),
            service("storage-manager", services.storage.clone()),
            service("resource-manager", services.resource.clone())
        );
        vec![database, cluster, storage, resource]
    };
    app.readiness().get_or(Instant::now, test).await
}

async fn database(app: &App) -> Check {
    let detail = match tokio::time::timeout(TIMEOUT, app.store().ping()).await {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => service_kit::error_chain(&error),
        Err(_) => "no answer".to_owned(),
    };
    Check { name: "database", detail }
}

/// Calls a method that no service has: `unimplemented` is an answer of a server that serves, anything about the link is not.
async fn service(name: &'static str, channel: Channel) -> Check {
    let call = async {
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|_| tonic::Status::unavailable("not connected"))?;
        let path = PathAndQuery::from_static("/iaas.Readiness/Probe");
        grpc.unary::<(), (), _>(Request::new(()), path, ProstCodec::default()).await.map(|_| ())
    };
    let detail = match tokio::time::timeout(TIMEOUT, call).await {
        Err(_) => "no answer".to_owned(),
        Ok(Ok(())) => String::new(),
        Ok(Err(status)) => {
            let lost = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::DeadlineExceeded];
            if lost.contains(&status.code()) { "the service doesn't answer".to_owned() } else { String::new() }
        }
    };
    Check { name, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn however_many_ask_it_is_tested_once_a_second() {
        let (cached, tests, begun) = (Cached::default(), AtomicU32::new(0), Instant::now());
        let ask = |after: Duration| {
            let test = async {
                tokio::task::yield_now().await;
                let detail = format!("test {}", tests.fetch_add(1, Ordering::Relaxed));
                vec![Check { name: "database", detail }]
            };
            cached.get_or(move || begun + after, test)
        };
        let at_once = futures::future::join_all((0..100).map(|_| ask(Duration::ZERO))).await;
        assert!(at_once.iter().all(|checks| checks[0].detail == "test 0"), "who comes while it is tested waits for it");
        assert_eq!(ask(KEPT / 2).await[0].detail, "test 0");
        assert_eq!(ask(KEPT).await[0].detail, "test 1", "a result counts for a second");
    }
}
