//! How the roles of this process reach the others: listeners and targets, and the certificates they use.
//!
//! A role alone takes its certificate from `links.tls_dir`. The control plane has the built-in CA at hand: without a `tls_dir` it issues
//! its own certificate and renews it, so that a listen address is all that agents on other hosts need. Plain text is for loopback.

use crate::config::{Config, Links};
use anyhow::{Context, bail, ensure};
use service_kit::{
    fleet::Fleet,
    leader::{LeaderTarget, Lookup},
    peer::CONTROL_PLANE,
    tls::{self, Ca, CertFiles, ClientTls, ServerTls},
    transport::{self, GrpcListener, GrpcTarget},
};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use store::{ManagerRole, Store};
use tokio_util::sync::CancellationToken;

const ALPN: &[&[u8]] = &[b"h2"];
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
const CERTIFICATE_RENEWAL: Duration = Duration::from_secs(10 * 24 * 3600);

fn cert_files(dir: &Path, role: &str) -> CertFiles {
    CertFiles {
        cert: dir.join(format!("{role}.pem")),
        key: dir.join(format!("{role}.key")),
        peers_ca: Some(dir.join("ca.pem")),
    }
}

/// The listener on which a role that runs alone accepts calls.
pub async fn listener(config: &Config, role: &str, addr: &str, fleet: &Fleet) -> anyhow::Result<GrpcListener> {
    let addr: SocketAddr = addr.parse().context("checked before")?;
    let tls_dir = &config.links.tls_dir;
    let listener = if tls_dir.as_os_str().is_empty() {
        ensure!(addr.ip().is_loopback(), "{addr} is not loopback: set links.tls_dir (see `iaasd certs issue --help`)");
        GrpcListener::tcp(addr, None).await?
    } else {
        let tls = ServerTls::new(cert_files(tls_dir, role), ALPN).context("links.tls_dir")?;
        GrpcListener::tcp_for(addr, Some(tls), fleet.clone()).await?
    };
    let url = advertised_url(&config.links, listener.local_addr().unwrap_or(addr), !tls_dir.as_os_str().is_empty());
    Ok(GrpcListener::Advertised(Box::new(listener), url))
}

/// Where others reach a listener of this process.
fn advertised_url(links: &Links, addr: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    let host = if !links.advertise_host.is_empty() {
        links.advertise_host.clone()
    } else if addr.ip().is_unspecified() {
        hostname()
    } else {
        return format!("{scheme}://{addr}");
    };
    match host.parse() {
        Ok(IpAddr::V6(ip)) => format!("{scheme}://[{ip}]:{}", addr.port()),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{scheme}://{host}:{}", addr.port()),
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// The target at which a role that runs alone finds another. On PostgreSQL also where the leader says that it is reached.
pub fn target(
    config: &Config,
    role: &str,
    url: String,
    store: &Store,
    manager: ManagerRole,
) -> anyhow::Result<GrpcTarget> {
    let tls_dir = &config.links.tls_dir;
    let files = (!tls_dir.as_os_str().is_empty()).then(|| cert_files(tls_dir, role));
    let on_postgres = config.database.url.starts_with("postgres");
    target_with(files, url, on_postgres.then(|| lookup(store.clone(), manager)))
}

/// Where the leader of a role is reached, by its lease.
fn lookup(store: Store, role: ManagerRole) -> Lookup {
    Arc::new(move || {
        let store = store.clone();
        Box::pin(async move {
            let lease = store.manager_lease_find(role).await.ok().flatten();
            lease.map(|lease| lease.address).filter(|address| !address.is_empty())
        })
    })
}

/// As [`target`], with this certificate; without one only loopback is spoken to. `urls`: one, or several separated by commas.
pub fn target_with(files: Option<CertFiles>, urls: String, lookup: Option<Lookup>) -> anyhow::Result<GrpcTarget> {
    let urls: Vec<String> = urls.split(',').map(|url| url.trim().to_owned()).collect();
    let secure = urls.iter().all(|url| url.starts_with("https://"));
    let tls = match files {
        Some(files) if secure => Some(ClientTls::new(files).context("this role's certificate")?),
        Some(_) | None => {
            for url in &urls {
                check_plain(url)?;
            }
            None
        }
    };
    match <[String; 1]>::try_from(urls) {
        Ok([url]) if lookup.is_none() => Ok(GrpcTarget::Tcp { url, tls }),
        Ok(urls) => Ok(LeaderTarget { urls: urls.into(), tls, lookup }.target()),
        Err(urls) => Ok(LeaderTarget { urls, tls, lookup }.target()),
    }
}

/// Plain text is for loopback.
fn check_plain(url: &str) -> anyhow::Result<()> {
    ensure!(!url.starts_with("https://"), "{url} needs a certificate: set links.tls_dir, or join with a token");
    let uri: http::Uri = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback {
        bail!("{url} is plain text, which is for loopback alone: use https:// and a certificate");
    }
    Ok(())
}

/// Where agents find the managers: at the URL that is configured, else where they listen. `{host}` stands for the host of the API.
fn agent_url(url: &str, listen: &str, tls: bool) -> String {
    if !url.is_empty() {
        return url.to_owned();
    }
    let scheme = if tls { "https" } else { "http" };
    match listen.parse::<SocketAddr>() {
        Ok(addr) if addr.ip().is_unspecified() => format!("{scheme}://{{host}}:{}", addr.port()),
        Ok(addr) => format!("{scheme}://{addr}"),
        Err(_) => String::new(),
    }
}

/// These are the links of roles that run alone.
pub fn agent_links(links: &Links) -> cluster_manager::AgentLinks {
    let tls = !links.tls_dir.as_os_str().is_empty();
    cluster_manager::AgentLinks {
        cluster_url: agent_url(&links.cluster_url, links.cluster_listen(), tls),
        storage_url: agent_url(&links.storage_url, links.storage_listen(), tls),
        resource_url: agent_url(&links.resource_url, links.resource_listen(), tls),
    }
}

/// Of a control plane: where it doesn't listen, nobody can connect.
pub fn control_plane_agent_links(links: &Links) -> cluster_manager::AgentLinks {
    cluster_manager::AgentLinks {
        cluster_url: agent_url(&links.cluster_url, &links.cluster_listen, true),
        storage_url: agent_url(&links.storage_url, &links.storage_listen, true),
        resource_url: agent_url(&links.resource_url, &links.resource_listen, true),
    }
}

/// The listeners of a control plane: each role in process, and over TCP where the configuration says so.
pub struct ControlPlaneLinks {
    pub fleet: Fleet,
    tls: Option<ServerTls>,
    own: Option<OwnCertificate>,
}

struct OwnCertificate {
    ca: Ca,
    dir: std::path::PathBuf,
    names: Vec<String>,
}

impl OwnCertificate {
    fn issue(&self) -> Result<CertFiles, tls::TlsError> {
        self.ca.issue_files(&self.dir, CONTROL_PLANE, &self.names, CERTIFICATE_LIFETIME)
    }
}

impl ControlPlaneLinks {
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let links = &config.links;
        let addrs: Vec<SocketAddr> = [&links.cluster_listen, &links.storage_listen, &links.resource_listen]
            .into_iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        let fleet = Fleet::default();
        if addrs.is_empty() {
            return Ok(Self { fleet, tls: None, own: None });
        }
        if !links.tls_dir.as_os_str().is_empty() {
            let tls = ServerTls::new(cert_files(&links.tls_dir, CONTROL_PLANE), ALPN).context("links.tls_dir")?;
            return Ok(Self { fleet, tls: Some(tls), own: None });
        }
        let mut names = vec!["localhost".to_owned()];
        for addr in &addrs {
            if addr.ip().is_unspecified() {
                names.extend(tls::local_names());
            } else {
                names.push(addr.ip().to_string());
            }
        }
        names.extend(Some(links.advertise_host.clone()).filter(|host| !host.is_empty()));
        for url in
            [&links.cluster_url, &links.storage_url, &links.resource_url].into_iter().flat_map(|urls| urls.split(','))
        {
            names.extend(url.trim().parse::<http::Uri>().ok().and_then(|uri| {
                uri.host().map(|host| host.trim_matches(['[', ']']).to_owned()).filter(|host| !host.is_empty())
            }));
        }
        names.sort();
        names.dedup();
        let ca = Ca::open_or_create(config.ca_dir()).context("the built-in CA")?;
        let own = OwnCertificate { ca, dir: config.paths.state.join("tls"), names };
        let tls = ServerTls::new(own.issue().context("the control plane's certificate")?, ALPN)?;
        Ok(Self { fleet, tls: Some(tls), own: Some(own) })
    }

    /// Whether hosts can connect at all.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.tls.is_some()
    }

    /// A role's listener and what reaches it inside this process. `addr` empty: in process alone.
    pub async fn role(&self, links: &Links, addr: &str) -> anyhow::Result<(GrpcListener, GrpcTarget)> {
        let (inside, target) = transport::in_process();
        if addr.is_empty() {
            return Ok((inside, target));
        }
        let addr: SocketAddr = addr.parse().context("checked before")?;
        let tcp = GrpcListener::tcp_for(addr, self.tls.clone(), self.fleet.clone()).await?;
        tracing::info!(%addr, "agents may connect");
        let tcp = GrpcListener::Advertised(Box::new(tcp), advertised_url(links, addr, true));
        Ok((GrpcListener::Many(vec![inside, tcp]), target))
    }

    /// Renews what it issued itself, until `shutdown`.
    pub async fn renew(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut every =
            tokio::time::interval_at(tokio::time::Instant::now() + CERTIFICATE_RENEWAL, CERTIFICATE_RENEWAL);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = every.tick() => if let Some(own) = &self.own
                    && let Err(error) = own.issue()
                {
                    tracing::error!(error = &error as &dyn std::error::Error, "the control plane's certificate can't be renewed");
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_told_what_reaches_the_managers() {
        let links = Links {
            cluster_listen: "0.0.0.0:7481".into(),
            storage_listen: "10.0.0.1:7482".into(),
            resource_url: "https://manager.example:7483".into(),
            ..Links::default()
        };
        let links = control_plane_agent_links(&links);
        assert_eq!(links.cluster_url, "https://{host}:7481");
        assert_eq!(links.storage_url, "https://10.0.0.1:7482");
        assert_eq!(links.resource_url, "https://manager.example:7483");
        assert_eq!(control_plane_agent_links(&Links::default()), cluster_manager::AgentLinks::default());
        assert_eq!(agent_links(&Links::default()).cluster_url, "http://127.0.0.1:7481");
    }

    #[test]
    fn plain_text_is_for_loopback_alone() {
        for fine in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            assert!(target_with(None, fine.into(), None).is_ok(), "{fine}");
        }
        for bad in [
            "http://10.0.0.1:1",
            "http://manager.example:1",
            "https://127.0.0.1:1",
            "nonsense//",
            "http://127.0.0.1:1,http://10.0.0.1:1",
            "http://127.0.0.1:1,https://manager.example:1",
        ] {
            assert!(target_with(None, bad.into(), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_several_addresses_the_leaders_is_used() {
        let one = target_with(None, "http://127.0.0.1:1".into(), None).expect("fine");
        assert!(matches!(one, GrpcTarget::Tcp { .. }));
        let several = target_with(None, "http://127.0.0.1:1, http://127.0.0.1:2".into(), None).expect("fine");
        assert!(matches!(several, GrpcTarget::Leader { .. }), "any of them may lead");
    }

    #[test]
    fn a_process_says_where_it_is_reached() {
        let url = |host: &str, addr: &str| {
            let links = Links { advertise_host: host.into(), ..Links::default() };
            advertised_url(&links, addr.parse().expect("an address"), true)
        };
        assert_eq!(url("", "10.0.0.1:7481"), "https://10.0.0.1:7481");
        assert_eq!(url("m1.example", "0.0.0.0:7481"), "https://m1.example:7481");
        assert_eq!(url("fd00::1", "[::]:7481"), "https://[fd00::1]:7481");
        assert_eq!(url("", "0.0.0.0:7481"), format!("https://{}:7481", hostname()));
    }
}
