//! A certificate renews itself: at half of its life, by the cluster-manager, over the link that it secures. One that has expired (the host
//! was off for longer) comes back by the host's key, from the API. Connections in progress go on; new ones show the new certificate.

use super::{Host, JoinError};
use anyhow::Context;
use domain::Timestamp;
use proto::agent::v1::{self as pb, host_identity_client::HostIdentityClient};
use service_kit::{
    backoff::Backoff,
    peer::{NOT_ADMITTED, says_not_admitted},
    transport::GrpcTarget,
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest sleep: the clock may be set, and the machine suspended.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_millis(500);
const CALL: Duration = Duration::from_secs(15);
/// After a removal: only an operator can help.
const REMOVED: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Outcome {
    Renewed,
    Later(String),
    Removed(String),
}

pub async fn run(host: &Host, cluster: &GrpcTarget, shutdown: &CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut removed = false;
    loop {
        let wait = match due_in(host) {
            Some(wait) if !wait.is_zero() => wait.min(LOOK_EVERY),
            Some(_) | None => match renew(host, cluster).await {
                Outcome::Renewed => {
                    tracing::info!(host_id = %host.identity.host_id, role = host.role.as_str(), "the certificate was renewed");
                    backoff.reset();
                    removed = false;
                    // At least a moment: by a wrong clock the new one may be due, too.
                    due_in(host).unwrap_or_default().clamp(SHORTEST, LOOK_EVERY)
                }
                Outcome::Later(reason) => {
                    tracing::warn!(reason, "the certificate can't be renewed yet");
                    backoff.next_delay()
                }
                Outcome::Removed(reason) => {
                    if !std::mem::replace(&mut removed, true) {
                        tracing::error!(
                            reason,
                            "this host isn't part of the fleet any more; join again with a new token"
                        );
                    }
                    REMOVED
                }
            },
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Until the certificate is to be renewed. None: it can't be read.
fn due_in(host: &Host) -> Option<Duration> {
    let certificate = host.credentials.certificate().ok().flatten()?;
    let millis = certificate.renew_at().0.saturating_sub(Timestamp::now().0);
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

async fn renew(host: &Host, cluster: &GrpcTarget) -> Outcome {
    if host.expired() {
        return match host.come_back().await {
            Ok(Ok(())) => Outcome::Renewed,
            Ok(Err(JoinError::Refused { code, detail })) if code == NOT_ADMITTED => Outcome::Removed(detail),
            Ok(Err(error)) => Outcome::Later(error.to_string()),
            Err(error) => Outcome::Later(format!("{error:#}")),
        };
    }
    match tokio::time::timeout(CALL, by_link(host, cluster)).await {
        Ok(Ok(Ok(()))) => Outcome::Renewed,
        Ok(Ok(Err(status))) if says_not_admitted(&status) => {
            Outcome::Removed(proto::status::from_status(&status).detail)
        }
        Ok(Ok(Err(status))) => Outcome::Later(status.to_string()),
        Ok(Err(error)) => Outcome::Later(format!("{error:#}")),
        Err(_) => Outcome::Later(format!("the cluster-manager didn't answer within {} s", CALL.as_secs())),
    }
}

async fn by_link(host: &Host, cluster: &GrpcTarget) -> anyhow::Result<Result<(), tonic::Status>> {
    let csr_pem = host.credentials.signing_request()?;
    let mut client = HostIdentityClient::new(cluster.channel()?);
    let renewed = match client.renew(pb::RenewRequest { csr_pem }).await {
        Ok(answer) => answer.into_inner().certificate.context("an answer without a certificate")?,
        Err(status) => return Ok(Err(status)),
    };
    host.credentials.store(&renewed.certificate_pem, &renewed.ca_pem)?;
    Ok(Ok(()))
}
