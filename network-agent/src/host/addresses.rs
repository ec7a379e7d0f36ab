//! The host's own addresses, which no instance may reach, nor those of the fleet that the manager names.

use super::{Host, lock};
use crate::{link::observe, model::state::HostFacts};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

impl Host {
    /// Reads which addresses the host has by now; the next rounds use them. True if they are others than before.
    pub(super) async fn refresh_own_addresses(&self) -> bool {
        match self.worker.run(|inside| observe::own_addresses(&mut inside.netlink)).await {
            Ok(Ok(own)) => {
                let changed = self.own.send_if_modified(|before| std::mem::replace(before, own.clone()) != own);
                if changed {
                    self.refresh_protected();
                }
                return changed;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the host's addresses can't be read: those known before stay protected");
            }
            Err(error) => tracing::warn!(%error, "the host's addresses can't be read"),
        }
        false
    }
    pub(super) fn facts(&self) -> HostFacts {
        self.config.facts(Arc::clone(&lock(&self.protected)))
    }

    /// Of the desired state and the host's addresses as they are now.
    pub(super) fn refresh_protected(&self) {
        // Two at once would else leave what the slower one saw.
        let mut protected = lock(&self.protected);
        let fresh = self.config.protected_with(&self.own.borrow(), self.desired_state().protected());
        if **protected != fresh {
            *protected = Arc::new(fresh);
        }
    }

    /// The host's addresses, which the manager is told now.
    pub(crate) fn tell_addresses(&self) -> BTreeSet<IpAddr> {
        let own = self.own.borrow().clone();
        own.clone_into(&mut lock(&self.reported_addresses));
        own
    }

    /// Resolves when the host has other addresses than the manager was told.
    pub(crate) async fn addresses_changed(&self) {
        let reported = lock(&self.reported_addresses).clone();
        // The sender lives as long as the host.
        let _ = self.own.subscribe().wait_for(|own| *own != reported).await;
    }
}
