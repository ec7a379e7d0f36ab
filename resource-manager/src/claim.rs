//! Addresses that a change is about to take: claimed in memory first, so that no two changes choose the same, then firm or given back by
//! the outcome of the commit. Dropped without a word, a claim is given back.
//!
//! After an outcome that isn't known, and when the database says that memory is behind, the rows say what is so: they are read until
//! they can be, and until then the addresses stay claimed.

use crate::{
    Manager,
    ipam::{Refusal, Scope, ScopedAddress, Use},
};
use domain::{
    ErrorKind, ExternalNetworkId, NetworkId, Problem, SubnetId, Timestamp,
    network::{FixedIp, FixedIpAsked},
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use store::{AddressOwner, AddressRow, AddressTake, Store};

/// Between two looks for an outcome that isn't known yet.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Claims<'a> {
    manager: &'a Arc<Manager>,
    taken: Vec<(ScopedAddress, Option<SubnetId>)>,
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        let mut ipam = self.manager.ipam();
        for (at, _) in self.taken.drain(..) {
            ipam.give_back(at);
        }
    }
}

impl<'a> Claims<'a> {
    pub(crate) fn new(manager: &'a Arc<Manager>) -> Self {
        Self { manager, taken: Vec::new() }
    }

    /// A port's addresses, in the order asked. Nothing asked: one of an IPv4 subnet and one of an IPv6 subnet, as far as the network has
    /// them.
    pub(crate) fn fixed_ips(
        &mut self,
        network_id: NetworkId,
        asked: &[FixedIpAsked],
        now: Timestamp,
    ) -> Result<Vec<FixedIp>, Problem> {
        let (name, subnets): (String, Vec<(SubnetId, bool, String)>) = {
            let topology = self.manager.topology();
            let network = topology.network(network_id).ok_or_else(|| Problem::not_found("network", network_id))?;
            let subnets = topology.subnets_of(network_id);
            let subnets = subnets.map(|s| (s.id, s.spec.cidr.v4(), s.spec.cidr.to_string()));
            (network.name.to_string(), subnets.collect())
        };
        if subnets.is_empty() {
            let problem = Problem::new(
                ErrorKind::InvalidState,
                "network_without_subnet",
                format!("the network {name} has no subnet, so there are no addresses in it"),
            );
            return Err(problem.with_hint("make one: iaasctl subnet create --network NETWORK --cidr 10.0.0.0/24"));
        }
        let scope = network_id.0;
        if asked.is_empty() {
            let mut fixed_ips = Vec::with_capacity(2);
            for v4 in [true, false] {
                if subnets.iter().any(|(_, is_v4, _)| *is_v4 == v4) {
                    fixed_ips.push(self.any(scope, |pool| pool.cidr().v4() == v4, now, &name)?);
                }
            }
            return Ok(fixed_ips);
        }
        let mut fixed_ips = Vec::with_capacity(asked.len());
        for one in asked {
            fixed_ips.push(match one {
                FixedIpAsked::Address(address) => {
                    let cidrs: Vec<&str> = subnets.iter().map(|(_, _, cidr)| cidr.as_str()).collect();
                    let subnet_id = self.one((scope, *address), now, &format!("the network {name}"), &cidrs)?;
                    let subnet_id = subnet_id.ok_or_else(Problem::internal)?;
                    FixedIp { subnet_id, address: *address }
                }
                FixedIpAsked::AnyOf(id) => {
                    if !subnets.iter().any(|(subnet_id, _, _)| subnet_id == id) {
                        return Err(
                            Problem::not_found("subnet", id).with_hint(format!("it isn't one of the network {name}"))
                        );
                    }
                    self.any(scope, |pool| pool.subnet_id() == Some(*id), now, &name)?
                }
            });
        }
        Ok(fixed_ips)
    }

    fn any(
        &mut self,
        scope: Scope,
        of: impl Fn(&crate::ipam::Pool) -> bool,
        now: Timestamp,
        name: &str,
    ) -> Result<FixedIp, Problem> {
        let found = self.manager.ipam().claim_any(scope, of, now);
        let (subnet_id, address) = found.map_err(|refusal| full(refusal, &format!("the network {name}")))?;
        self.taken.push(((scope, address), subnet_id));
        Ok(FixedIp { subnet_id: subnet_id.ok_or_else(Problem::internal)?, address })
    }

    fn one(
        &mut self,
        at: ScopedAddress,
        now: Timestamp,
        whose: &str,
        cidrs: &[&str],
    ) -> Result<Option<SubnetId>, Problem> {
        let claimed = self.manager.ipam().claim(at, now);
        let subnet_id = claimed.map_err(|refusal| refused(at.1, refusal, whose, cidrs))?;
        self.taken.push((at, subnet_id));
        Ok(subnet_id)
    }

    /// An address of an external network: this one, or any of IPv4.
    pub(crate) fn external(
        &mut self,
        id: ExternalNetworkId,
        asked: Option<IpAddr>,
        v4: bool,
        now: Timestamp,
    ) -> Result<IpAddr, Problem> {
        let (name, cidrs): (String, Vec<String>) = {
            let topology = self.manager.topology();
            let external = topology.external_network(id).ok_or_else(|| Problem::not_found("external network", id))?;
            (external.name.to_string(), external.subnets.iter().map(|s| s.cidr.to_string()).collect())
        };
        let whose = format!("the external network {name}");
        match asked {
            Some(address) => {
                let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
                self.one((id.0, address), now, &whose, &cidrs)?;
                Ok(address)
            }
            None => {
                let found = self.manager.ipam().claim_any(id.0, |pool| pool.cidr().v4() == v4, now);
                let (subnet_id, address) = found.map_err(|refusal| full(refusal, &whose))?;
                self.taken.push(((id.0, address), subnet_id));
                Ok(address)
            }
        }
    }

    /// The ops that take all of `addresses` of a scope for this owner.
    pub(crate) fn takes(
        &self,
        scope: Scope,
        addresses: impl IntoIterator<Item = IpAddr>,
        owner: (AddressOwner, &str),
        now: Timestamp,
    ) -> Vec<AddressTake> {
        let of = |address: IpAddr| self.taken.iter().find(|(at, _)| *at == (scope, address)).and_then(|(_, id)| *id);
        let takes = addresses.into_iter().map(|address| AddressTake {
            scope_id: scope.to_string(),
            address,
            subnet_id: of(address),
            owner_kind: owner.0,
            owner_id: owner.1.to_owned(),
            at: now,
        });
        takes.collect()
    }

    /// The commit stands.
    pub(crate) fn firm(mut self) {
        let mut ipam = self.manager.ipam();
        for (at, _) in self.taken.drain(..) {
            ipam.hold(at);
        }
    }

    /// The rows know what became of them: after an outcome that isn't known, or when memory was behind.
    pub(crate) async fn look(mut self) {
        let mut left: Vec<ScopedAddress> = self.taken.drain(..).map(|(at, _)| at).collect();
        settle(self.manager, &mut left).await;
        if left.is_empty() {
            return;
        }
        let manager = Arc::clone(self.manager);
        self.manager.tasks.spawn(async move {
            while !left.is_empty() {
                tokio::select! {
                    () = manager.shutdown.cancelled() => return,
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
                settle(&manager, &mut left).await;
            }
        });
    }
}

/// Sets what can be read as its row says.
async fn settle(manager: &Manager, left: &mut Vec<ScopedAddress>) {
    let mut unread = Vec::new();
    for at in left.drain(..) {
        match read(&manager.store, at).await {
            Some(used) => manager.ipam().set(at, used),
            None => unread.push(at),
        }
    }
    *left = unread;
}

async fn read(store: &Store, (scope, address): ScopedAddress) -> Option<Option<Use>> {
    match store.address_find(&scope.to_string(), address).await {
        Ok(row) => Some(row.as_ref().map(used_of)),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an address can't be read; tried again");
            None
        }
    }
}

pub(crate) fn used_of(row: &AddressRow) -> Use {
    row.free_at.map_or(Use::Held, Use::Resting)
}

fn refused(address: IpAddr, refusal: Refusal, whose: &str, cidrs: &[&str]) -> Problem {
    let problem = |kind, code: &str, detail: String, hint: &str| Problem::new(kind, code, detail).with_hint(hint);
    let any = "leave the address out to get one that is free";
    match refusal {
        Refusal::Outside => problem(
            ErrorKind::InvalidArgument,
            "address_outside_subnet",
            format!("{address} is not an address of {whose} ({})", cidrs.join(", ")),
            "give an address of one of its subnets, or none",
        ),
        Refusal::Gateway => problem(
            ErrorKind::InvalidArgument,
            "address_is_gateway",
            format!("{address} is the gateway of {whose}"),
            any,
        ),
        Refusal::NotForHosts => problem(
            ErrorKind::InvalidArgument,
            "address_not_usable",
            format!("{address} is the network's or broadcast address of its subnet, which no host can have"),
            any,
        ),
        Refusal::Taken => {
            problem(ErrorKind::AlreadyExists, "address_taken", format!("{address} of {whose} is taken"), any)
        }
        Refusal::Resting { until } => problem(
            ErrorKind::AlreadyExists,
            "address_resting",
            format!("{address} of {whose} was released a moment ago and rests until {until}"),
            "wait until then, or leave the address out",
        ),
        Refusal::Full { .. } => full(refusal, whose),
    }
}

fn full(refusal: Refusal, whose: &str) -> Problem {
    let rest = match refusal {
        Refusal::Full { next: Some(until) } => format!("; the next one that rests comes free at {until}"),
        Refusal::Full { next: None }
        | Refusal::Outside
        | Refusal::Gateway
        | Refusal::NotForHosts
        | Refusal::Taken
        | Refusal::Resting { .. } => String::new(),
    };
    Problem::new(ErrorKind::InvalidState, "no_free_address", format!("no address of {whose} is free{rest}"))
        .with_hint("widen its allocation ranges, add a subnet, or delete ports that aren't used")
}
