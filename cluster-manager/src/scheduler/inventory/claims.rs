//! Claims on hosts: tentative ones, confirmed ones and released ones, and the starts that come with them. Memory is ahead of the rows; a
//! row is taken over only where nothing is on its way.

use super::{Inventory, queue};
use crate::scheduler::{
    filter,
    grid::KindKey,
    host::{HostEntry, fits, minus, plus},
    request::Request,
};
use domain::{HostId, InstanceId, flavor::Size, host::Host};

/// Identifies a moment of one host's figures: they are refreshed only if nothing happened since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    host_id: HostId,
    changes: u64,
}

impl Inventory {
    fn change_figures(&mut self, id: HostId, f: impl FnOnce(&mut HostEntry)) {
        let Some(slot) = self.slot_of(id) else { return };
        let Some(host) = self.hosts.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let before = host.free();
        f(host);
        host.changes += 1;
        if host.tentative == Size::default() {
            self.committing.remove(&slot);
        } else {
            self.committing.insert(slot);
        }
        let free = host.free();
        if free != before {
            self.index.resize(slot, id, free);
            if fits(&free, &before) {
                // What was refused fits no better on a host that is fuller; only whom to preempt for it is another question now.
                self.refusals.retain(|_, refusal| refusal.preemption.is_none());
            } else {
                self.note_change();
            }
        }
    }

    /// A decision's claim, before its commit.
    pub fn claim_tentatively(&mut self, id: HostId, claim: Size) {
        self.change_figures(id, |h| h.tentative = plus(h.tentative, claim));
    }

    /// The commit failed.
    pub fn release_tentative(&mut self, id: HostId, claim: Size) {
        self.change_figures(id, |h| h.tentative = minus(h.tentative, claim));
    }

    /// The commit succeeded; it raised the host's revision by one per claim. Demand is counted here, since dry runs and refused batches
    /// claim tentatively as well.
    pub fn confirm(&mut self, id: HostId, claim: Size) {
        if self.demand.count(claim) {
            self.index.price(&self.demand);
        }
        self.change_figures(id, |h| {
            h.tentative = minus(h.tentative, claim);
            h.used = plus(h.used, claim);
            h.revision += 1;
        });
    }

    /// A commit that releases claims of the host is on its way: until it has ended, the row may be ahead of memory, and isn't taken over.
    pub fn release_begins(&mut self, id: HostId) {
        self.change_releasing(id, |n| n + 1);
    }

    pub fn release_ends(&mut self, id: HostId) {
        self.change_releasing(id, |n| n.saturating_sub(1));
    }

    fn change_releasing(&mut self, id: HostId, f: impl FnOnce(u32) -> u32) {
        let slot = self.slot_of(id);
        if let Some(host) = slot.and_then(|slot| self.hosts[slot as usize].as_mut()) {
            host.releasing = f(host.releasing);
        }
    }

    /// The commit that released a claim succeeded; it raised the host's revision by one.
    pub fn release(&mut self, id: HostId, claim: Size) {
        self.change_figures(id, |h| {
            h.used = minus(h.used, claim);
            h.revision += 1;
        });
    }

    pub fn raise_revision(&mut self, id: HostId) {
        if let Some(host) = self.slot_of(id).and_then(|slot| self.hosts[slot as usize].as_mut()) {
            host.revision += 1;
        }
    }

    /// Whether a host would have the capacity if claims whose commit is on its way there were not committed, as those of a repeated create
    /// will not be.
    #[must_use]
    pub fn may_yet_fit(&self, request: &Request) -> bool {
        self.committing.iter().filter_map(|slot| self.at(*slot)).any(|host| {
            let claim = filter::claim(host, request);
            filter::closed(host, request).is_none()
                && !fits(&claim, &host.free())
                && fits(&claim, &plus(host.free(), host.tentative))
        })
    }

    /// The present moment, taken before the host's row is read and handed to [`Self::refresh`] after it.
    #[must_use]
    pub fn moment(&self, id: HostId) -> Option<Moment> {
        self.find(id).map(|h| Moment { host_id: id, changes: h.changes })
    }

    /// Takes over a row's figures, unless a claim or a release is on its way or something changed since `moment`: then the row is the older
    /// one, or contains what memory will count by itself. Answers whether it took them over.
    pub fn refresh(&mut self, moment: Moment, row: &Host) -> bool {
        let Some(slot) = self.slot_of(moment.host_id) else { return false };
        let Some(host) = self.hosts[slot as usize].as_mut() else { return false };
        let older = row.generation < host.generation;
        if older || host.changes != moment.changes || host.tentative != Size::default() || host.releasing > 0 {
            return false;
        }
        host.revision = host.revision.max(row.revision);
        if row.generation > host.generation {
            self.put_host(row);
        }
        let Some(host) = self.hosts[slot as usize].as_ref() else { return false };
        if (host.used, host.cordoned, host.capacity, host.state) != (row.used, row.cordoned, row.capacity, row.state)
            || (host.policies.draining, host.policies.dedicated_to) != (row.draining, row.dedicated_to)
        {
            self.change(slot, |host| {
                (host.used, host.cordoned) = (row.used, row.cordoned);
                (host.capacity, host.state) = (row.capacity, row.state);
                (host.policies.draining, host.policies.dedicated_to) = (row.draining, row.dedicated_to);
                host.kind = KindKey::of(host.capacity, host.overhead);
            });
            self.check_backups(slot);
        }
        true
    }

    /// A start begins. Starts in progress influence where the next one goes, and how long a start may take. They are a set, so that one
    /// reported twice counts once.
    pub fn start_begins(&mut self, id: HostId, instance_id: InstanceId) {
        let Some(slot) = self.slot_of(id) else { return };
        if self.starting.insert((slot, instance_id)) {
            self.change_starts(slot, |starts| starts + 1);
        }
    }

    pub fn start_ends(&mut self, id: HostId, instance_id: InstanceId) {
        let Some(slot) = self.slot_of(id) else { return };
        if self.starting.remove(&(slot, instance_id)) {
            self.change_starts(slot, |starts| starts.saturating_sub(1));
            self.changes += 1;
        }
    }

    fn change_starts(&mut self, slot: u32, f: impl FnOnce(u32) -> u32) {
        let Some(host) = self.hosts[slot as usize].as_mut() else { return };
        let before = queue(host);
        host.starting = f(host.starting);
        if queue(host) != before {
            self.reindex(slot);
        }
    }
}
