//! This host, as one of its agents: who it is, how it joins, and the certificate by which managers know it.

mod api;
mod identity;
pub mod marker;
mod renew;

pub use identity::Identity;

use crate::{config::Config, roles::links};
use anyhow::{Context, bail};
use api::{JoinError, JoinRequest, Joined};
use domain::{HostId, Timestamp, host::AgentRole, join::JoinToken};
use identity::Credentials;
use service_kit::{backoff::Backoff, host_cert::sha256_hex, transport::GrpcTarget};
use std::{path::PathBuf, time::Duration};
use tokio_util::sync::CancellationToken;

pub struct Host {
    pub identity: Identity,
    role: AgentRole,
    dir: PathBuf,
    credentials: Credentials,
    /// It has a certificate: then it speaks to the managers that the API named, over mutual TLS.
    joined: bool,
}

impl Host {
    /// Who this host is; with a token it joins first, and waits while the API is away. None means that it was asked to stop meanwhile.
    pub async fn open(
        config: &Config,
        role: AgentRole,
        token: Option<&JoinToken>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let identity = Identity::open_or_create(config)?;
        let dir = config.host_dir();
        let credentials = Credentials::new(dir.clone(), role);
        let joined = credentials.certificate()?.is_some();
        let mut host = Self { identity, role, dir, credentials, joined };
        if let Some(token) = token
            && !host.has_used(token)
        {
            let configured = match role {
                AgentRole::ComputeAgent => &config.compute.host_name,
                AgentRole::NetworkAgent => &config.network.host_name,
            };
            let name = if configured.is_empty() { hostname() } else { configured.clone() };
            if !host.join(token, &name, shutdown).await? {
                return Ok(None);
            }
        }
        Ok(Some(host))
    }

    /// `--join` may stay on the command line.
    fn has_used(&self, token: &JoinToken) -> bool {
        let used = self.identity.joined_with.get(self.role.as_str());
        self.joined && used.is_some_and(|hash| *hash == sha256_hex(token.secret.as_bytes()))
    }

    /// Answers false when it was asked to stop.
    async fn join(&mut self, token: &JoinToken, name: &str, shutdown: &CancellationToken) -> anyhow::Result<bool> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut warned = false;
        loop {
            let tried = ask(
                &token.urls,
                &token.ca_sha256,
                Some(&token.secret),
                (self.identity.host_id, self.role, name),
                &self.credentials,
            );
            let tried = tokio::select! {
                tried = tried => tried?,
                () = shutdown.cancelled() => return Ok(false),
            };
            match tried {
                Ok(joined) => {
                    self.take(token, joined)?;
                    return Ok(true);
                }
                Err(error) if error.may_pass() => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(%error, "can't join yet; tried again until it works");
                    }
                }
                Err(error) => bail!("this host can't join: {error}"),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = shutdown.cancelled() => return Ok(false),
            }
        }
    }

    fn take(&mut self, token: &JoinToken, joined: Joined) -> anyhow::Result<()> {
        self.credentials.store(&joined.certificate_pem, &joined.ca_pem)?;
        let role = self.role.as_str();
        self.identity = identity::change(&self.dir, |identity| {
            identity.name.clone_from(&joined.name);
            identity.api_urls.clone_from(&token.urls);
            identity.ca_sha256.clone_from(&token.ca_sha256);
            identity.links = identity::Links {
                cluster_url: joined.cluster_url,
                storage_url: joined.storage_url,
                resource_url: joined.resource_url,
            };
            identity.joined_with.insert(role.to_owned(), sha256_hex(token.secret.as_bytes()));
        })?;
        self.joined = true;
        tracing::info!(host_id = %self.identity.host_id, host = self.identity.name, role, "this host has joined");
        Ok(())
    }

    /// The cluster-manager. The configuration's URL counts where it says one.
    pub fn cluster(&self, config: &Config) -> anyhow::Result<GrpcTarget> {
        self.target(&config.links.cluster_url, &self.identity.links.cluster_url, config.links.cluster_url())
    }

    pub fn storage(&self, config: &Config) -> anyhow::Result<GrpcTarget> {
        self.target(&config.links.storage_url, &self.identity.links.storage_url, config.links.storage_url())
    }

    pub fn resource(&self, config: &Config) -> anyhow::Result<GrpcTarget> {
        self.target(&config.links.resource_url, &self.identity.links.resource_url, config.links.resource_url())
    }

    fn target(&self, configured: &str, announced: &str, default: String) -> anyhow::Result<GrpcTarget> {
        if !self.joined {
            return links::target_with(None, default, None);
        }
        let url = [configured, announced].into_iter().find(|url| !url.is_empty()).map_or(default, str::to_owned);
        links::target_with(Some(self.credentials.files()), url, None)
    }

    /// Keeps the certificate fresh until `shutdown`. A host that needs none has nothing to do.
    pub async fn keep_certificate(self, cluster: GrpcTarget, shutdown: CancellationToken) -> anyhow::Result<()> {
        if self.joined {
            renew::run(&self, &cluster, &shutdown).await;
        } else {
            shutdown.cancelled().await;
        }
        Ok(())
    }

    /// A certificate by the key that was admitted, from the API: what is left when the certificate has expired.
    async fn come_back(&self) -> anyhow::Result<Result<(), JoinError>> {
        let Identity { api_urls, ca_sha256, host_id, name, .. } = &self.identity;
        let whom = (*host_id, self.role, name.as_str());
        match ask(api_urls, ca_sha256, None, whom, &self.credentials).await? {
            Ok(joined) => {
                self.credentials.store(&joined.certificate_pem, &joined.ca_pem)?;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn expired(&self) -> bool {
        let certificate = self.credentials.certificate().ok().flatten();
        certificate.is_none_or(|certificate| certificate.not_after <= Timestamp::now())
    }
}

/// Asks the URLs in their order, until one says yes or no. A server that is another's isn't asked, and outranks one that is away.
async fn ask(
    urls: &[String],
    ca_sha256: &str,
    secret: Option<&str>,
    (host_id, role, name): (HostId, AgentRole, &str),
    credentials: &Credentials,
) -> anyhow::Result<Result<Joined, JoinError>> {
    let csr_pem = credentials.signing_request().context("the host's key")?;
    let request = JoinRequest { secret, host_id, role, name, csr_pem: &csr_pem };
    let mut last = JoinError::Away { url: String::new(), detail: "no URL of the API is known".to_owned() };
    for url in urls {
        match api::join(url, ca_sha256, &request).await {
            Err(error @ JoinError::Away { .. }) if last.may_pass() => last = error,
            Err(JoinError::Away { .. }) => {}
            Err(error @ (JoinError::Untrusted { .. } | JoinError::Plain { .. })) => last = error,
            ended @ (Ok(_) | Err(JoinError::Refused { .. })) => return Ok(ended),
        }
    }
    Ok(Err(last))
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
