//! Which addresses are free, and who gets which.
//!
//! **The problem.** A hundred thousand addresses a second are claimed and released, of IPv4 blocks up to a /8 and IPv6 blocks up to a
//! /32, each by exactly one owner, none again within its quarantine, while the answer of a commit is still on its way.
//!
//! **Structure.** A [`Pool`] keeps the *free* addresses of a subnet as disjoint intervals in an ordered map (first → last). Any address is
//! the first of the interval at or after a cursor (next fit: an address isn't used again until all others were); a given one splits its
//! interval; one that comes back joins its neighbours. Each costs O(log k) for k intervals, and an untouched /32 of IPv6 is one interval.
//! What is taken or quarantined is in a map beside it, so memory is that of what is used, never that of what could be.
//!
//! **Rejected.** A bitmap: 2⁹⁶ bits for IPv6, so a second structure and its second set of defects. The set of what is used with a cursor
//! that probes: a nearly full subnet is probed from end to end for each address. The database (`NOT EXISTS …`): a read before each
//! claim, and two readers find the same address; here it is the final judge only (`address_pk`).
//!
//! **Invariants**
//! 1. Each address of a subnet that a host can have is exactly one of: free, claimed, held, quarantined; the gateway and those that no host can
//!    have are none of them. Free ones are within the allocation ranges.
//! 2. A *claim* is tentative: the commit's outcome makes it held or releases it. Until then nobody else gets it.
//! 3. What was held is quarantined until its time when it is released, whoever requests it, also by name.
//!
//! Nothing here does I/O, knows a clock or draws random numbers.

mod pool;
#[cfg(test)]
mod tests;

pub use pool::{Pool, Refusal, Use};

use domain::{SubnetId, Timestamp, network::SubnetSpec};
use std::{collections::HashMap, net::IpAddr};
use uuid::Uuid;

/// A network or an external network: whose addresses they are. Ranges of two scopes may overlap.
pub type Scope = Uuid;

/// An address of a scope.
pub type ScopedAddress = (Scope, IpAddr);

#[derive(Debug, Default)]
pub struct Ipam {
    scopes: HashMap<Scope, Vec<Pool>>,
}

impl Ipam {
    /// Adds a subnet, or changes its ranges. It has no `subnet_id` if it is an external network's.
    pub fn put_pool(&mut self, scope: Scope, subnet_id: Option<SubnetId>, spec: &SubnetSpec) {
        let pools = self.scopes.entry(scope).or_default();
        match pools.iter_mut().find(|pool| pool.cidr() == spec.cidr) {
            Some(pool) => pool.reshape(spec),
            None => pools.push(Pool::new(subnet_id, spec)),
        }
    }

    pub fn remove_subnet(&mut self, scope: Scope, subnet_id: SubnetId) {
        if let Some(pools) = self.scopes.get_mut(&scope) {
            pools.retain(|pool| pool.subnet_id() != Some(subnet_id));
        }
    }

    /// Keeps those of the scope's blocks that `keep` names.
    pub fn retain_pools(&mut self, scope: Scope, keep: impl Fn(&Pool) -> bool) {
        if let Some(pools) = self.scopes.get_mut(&scope) {
            pools.retain(keep);
        }
    }

    pub fn remove_scope(&mut self, scope: Scope) {
        self.scopes.remove(&scope);
    }

    #[must_use]
    pub fn pools(&self, scope: Scope) -> &[Pool] {
        self.scopes.get(&scope).map_or(&[], Vec::as_slice)
    }

    fn pool_of(&mut self, (scope, address): ScopedAddress) -> Option<&mut Pool> {
        self.scopes.get_mut(&scope)?.iter_mut().find(|pool| pool.cidr().contains(address))
    }

    /// Claims this address; the subnet that it is of.
    pub fn claim(&mut self, at: ScopedAddress, now: Timestamp) -> Result<Option<SubnetId>, Refusal> {
        let pool = self.pool_of(at).ok_or(Refusal::Outside)?;
        pool.claim(at.1, now)?;
        Ok(pool.subnet_id())
    }

    /// Claims any address of the first of the scope's blocks that `of` names and that has one.
    pub fn claim_any(
        &mut self,
        scope: Scope,
        of: impl Fn(&Pool) -> bool,
        now: Timestamp,
    ) -> Result<(Option<SubnetId>, IpAddr), Refusal> {
        let mut refusal = Refusal::Outside;
        for pool in self.scopes.get_mut(&scope).into_iter().flatten().filter(|pool| of(pool)) {
            match pool.claim_any(now) {
                Ok(address) => return Ok((pool.subnet_id(), address)),
                Err(full) => refusal = full,
            }
        }
        Err(refusal)
    }

    /// The claim's commit stands.
    pub fn hold(&mut self, at: ScopedAddress) {
        self.set(at, Some(Use::Held));
    }

    /// The claim's commit failed: free as before.
    pub fn release(&mut self, at: ScopedAddress) {
        if let Some(pool) = self.pool_of(at)
            && pool.used(at.1) == Some(Use::Claimed)
        {
            pool.set(at.1, None);
        }
    }

    /// Its owner gave the address up: nobody gets it before `until`.
    pub fn quarantine(&mut self, at: ScopedAddress, until: Timestamp) {
        self.set(at, Some(Use::Quarantined(until)));
    }

    /// The address is what the database says. None: free.
    pub fn set(&mut self, at: ScopedAddress, used: Option<Use>) {
        if let Some(pool) = self.pool_of(at) {
            pool.set(at.1, used);
        }
    }

    #[must_use]
    pub fn used(&self, (scope, address): ScopedAddress) -> Option<Use> {
        self.pools(scope).iter().find(|pool| pool.cidr().contains(address))?.used(address)
    }

    /// Every address of the scope that is held.
    pub fn held(&self, scope: Scope) -> impl Iterator<Item = ScopedAddress> + '_ {
        self.pools(scope).iter().flat_map(Pool::held).map(move |address| (scope, address))
    }

    pub fn scopes(&self) -> impl Iterator<Item = Scope> + '_ {
        self.scopes.keys().copied()
    }
}
