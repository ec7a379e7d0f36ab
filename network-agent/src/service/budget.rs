//! Who may have how many of the descriptors that services open on behalf of instances: connections to them, and queries they forward.
//!
//! All networks of a host share one process, and in the single-machine setup the API is in it too; so what one instance, network or project
//! takes, the others must not lack. Each has a share, and beside the total each network has a few that nobody else can take.

use domain::NetworkId;
use parking_lot::Mutex;
use std::{collections::HashMap, hash::Hash, net::IpAddr, sync::Arc};

/// Of the whole host; beyond it a network still gets its [`RESERVED`].
const TOTAL: usize = 4096;
const PER_PROJECT: usize = 1024;
const PER_NETWORK: usize = 256;
const PER_ADDRESS: usize = 32;
const RESERVED: usize = 8;

#[derive(Debug, Default)]
struct Used {
    total: usize,
    projects: HashMap<String, usize>,
    networks: HashMap<NetworkId, usize>,
    addresses: HashMap<(NetworkId, IpAddr), usize>,
}

#[derive(Debug, Default)]
pub struct Budget {
    used: Mutex<Used>,
}

/// One descriptor, for as long as it lives.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    project: String,
    network: NetworkId,
    address: IpAddr,
}

impl Budget {
    /// One more for that address of that network; None if a share is used up.
    pub fn take(self: &Arc<Self>, project: &str, network: NetworkId, address: IpAddr) -> Option<Permit> {
        let mut used = self.used.lock();
        let of_network = used.networks.get(&network).copied().unwrap_or_default();
        let fits = used.addresses.get(&(network, address)).is_none_or(|count| *count < PER_ADDRESS)
            && of_network < PER_NETWORK
            && (of_network < RESERVED
                || (used.total < TOTAL && used.projects.get(project).is_none_or(|count| *count < PER_PROJECT)));
        if !fits {
            metrics::counter!("iaas_network_service_refusals_total").increment(1);
            return None;
        }
        used.total += 1;
        *used.projects.entry(project.to_owned()).or_default() += 1;
        *used.networks.entry(network).or_default() += 1;
        *used.addresses.entry((network, address)).or_default() += 1;
        Some(Permit { budget: Arc::clone(self), project: project.to_owned(), network, address })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.budget.used.lock();
        used.total -= 1;
        release(&mut used.projects, &self.project);
        release(&mut used.networks, &self.network);
        release(&mut used.addresses, &(self.network, self.address));
    }
}

fn release<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(budget: &Arc<Budget>, project: &str, networks: &[NetworkId], addresses: u8) -> Vec<Permit> {
        let each =
            networks.iter().flat_map(|network| (0..addresses).map(move |n| (*network, IpAddr::from([10, 0, 0, n]))));
        each.flat_map(|(network, address)| std::iter::from_fn(move || budget.take(project, network, address))).collect()
    }

    #[test]
    fn nobodys_share_is_anothers() {
        let budget = Arc::new(Budget::default());
        let networks: Vec<NetworkId> = std::iter::repeat_with(NetworkId::new).take(6).collect();
        let one = all(&budget, "red", &networks[..1], 1);
        assert_eq!(one.len(), PER_ADDRESS, "an address");
        let network = all(&budget, "red", &networks[..1], 40);
        assert_eq!(one.len() + network.len(), PER_NETWORK, "a network");
        let project = all(&budget, "red", &networks, 40);
        // All its networks' own, and what the project may have besides.
        assert_eq!(one.len() + network.len() + project.len(), PER_PROJECT + 2 * RESERVED, "a project");
        let more: Vec<Vec<Permit>> = (0..5)
            .map(|n| {
                let networks: Vec<NetworkId> = std::iter::repeat_with(NetworkId::new).take(5).collect();
                all(&budget, &format!("p{n}"), &networks, 40)
            })
            .collect();
        assert!(more.iter().all(|permits| permits.len() >= 5 * RESERVED), "nobody lacks its own");
        drop((one, network, project, more));
        assert_eq!(budget.used.lock().total, 0);
        assert!(budget.used.lock().addresses.is_empty() && budget.used.lock().networks.is_empty());
    }
}
