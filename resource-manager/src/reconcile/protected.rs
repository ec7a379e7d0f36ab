//! What of the managers' side no instance of the fleet may reach: the addresses of this machine, those at which managers say they are reached,
//! and the blocks of the configuration.

use super::StepError;
use crate::Manager;
use domain::{
    Timestamp,
    network::{Cidr, can_be_protected, merge_blocks},
};
use nix::ifaddrs::getifaddrs;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use tonic::transport::Uri;

/// A manager that waits to lead says so every few seconds.
const STANDBY_SECS: i64 = 60;

/// What was found last: what can't be read or resolved for a moment stays protected.
#[derive(Debug, Default)]
pub(super) struct ProtectedManagers {
    own: BTreeSet<IpAddr>,
    by_url: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl ProtectedManagers {
    /// Takes the addresses as they are now.
    pub(super) async fn step(&mut self, manager: &Manager) -> Result<(), StepError> {
        match own_addresses() {
            Ok(own) => self.own = own,
            Err(error) => {
                tracing::warn!(%error, "the addresses of this machine can't be read: those known before stay protected")
            }
        }
        let urls = urls(manager).await;
        if let Ok(urls) = &urls {
            let mut resolved = BTreeMap::new();
            for url in urls {
                let known = self.by_url.remove(url).unwrap_or_default();
                resolved.insert(url.clone(), resolve(url).await.unwrap_or(known));
            }
            self.by_url = resolved;
        }
        let addresses = self.own.iter().chain(self.by_url.values().flatten()).copied();
        let addresses = addresses.filter(|address| can_be_protected(*address)).map(Cidr::host);
        manager.protect(merge_blocks(manager.config.protected.iter().copied().chain(addresses)));
        urls.map(drop)
    }
}

fn own_addresses() -> nix::Result<BTreeSet<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(addresses.collect())
}

/// Where the managers are reached: those that lead, and those that wait to.
async fn urls(manager: &Manager) -> Result<BTreeSet<String>, StepError> {
    let leading = manager.store.manager_lease_list().await.map_err(StepError::Read)?;
    let since = Timestamp(Timestamp::now().0 - STANDBY_SECS * 1000);
    let waiting = manager.store.manager_standby_list(since).await.map_err(StepError::Read)?;
    Ok(leading
        .into_iter()
        .map(|lease| lease.address)
        .chain(waiting.into_iter().map(|standby| standby.address))
        .collect())
}

/// Roles of one process have no address that others reach.
fn host_of(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    uri.scheme()?;
    Some(uri.host()?.trim_matches(['[', ']']).to_owned())
}

async fn resolve(url: &str) -> Option<BTreeSet<IpAddr>> {
    let host = host_of(url)?;
    if let Ok(address) = host.parse() {
        return Some(BTreeSet::from([address]));
    }
    match tokio::net::lookup_host((host.as_str(), 0)).await {
        Ok(found) => Some(found.map(|address| address.ip()).collect()),
        Err(error) => {
            tracing::debug!(host, %error, "a manager's name can't be resolved");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_managers_host_is_what_its_url_says() {
        for (url, host) in [
            ("https://192.0.2.7:7482", Some("192.0.2.7")),
            ("http://[fd00::7]:7482", Some("fd00::7")),
            ("https://manager-1:7482", Some("manager-1")),
            ("", None),
            ("in-process", None),
        ] {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
    }
}
