//! What a resize takes of its instance's own host: the larger claim is held tentatively until the commit, as a placement is.

use crate::{
    manager::Manager,
    scheduler::{Placed, Request, explain::hint, filter, host::minus},
};
use domain::{
    ErrorKind, HostId, InstanceId, Problem, Timestamp,
    explain::{NearestFit, PlacementRecord, Rejection, RejectionCount},
    flavor::{Pinning, Size},
    instance::Instance,
};
use store::InstanceRow;

/// How a resize changes the instance's claim.
#[derive(Debug, Clone, Copy)]
pub struct ClaimChange {
    pub host_id: HostId,
    /// The claim as it is to be.
    pub claim: Size,
    pub more: Size,
    pub less: Size,
}

/// `None`: the instance is on no host, or its size stays.
pub fn claim_change(manager: &Manager, row: &InstanceRow, next: &Instance) -> Option<ClaimChange> {
    let host_id = row.instance.host_id?;
    if row.instance.spec.size == next.spec.size {
        return None;
    }
    let pinned = next.spec.placement.pinning == Pinning::Numa;
    let request = Request { size: next.spec.size_on_host(), pinned, ..Request::default() };
    let claim = filter::claim(manager.inventory().find(host_id)?, &request);
    Some(ClaimChange { host_id, claim, more: minus(claim, row.claim), less: minus(row.claim, claim) })
}

/// What a resize claims tentatively on the instance's own host and on its backup's; released when dropped.
pub struct ResizeClaim<'a> {
    manager: &'a Manager,
    placed: Placed,
    id: InstanceId,
    /// Its size and its claim.
    before: (Size, Size),
    after: (Size, Size),
    confirmed: bool,
}

impl<'a> ResizeClaim<'a> {
    /// Claims what `change` needs beyond what `row` has, for the new `size`.
    pub fn take(
        manager: &'a Manager,
        row: &InstanceRow,
        size: Size,
        change: &ClaimChange,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let (host_id, more, id) = (change.host_id, change.more, row.instance.id);
        let before = (row.instance.spec.size_on_host(), row.claim);
        let mut inventory = manager.inventory();
        if let Some(host) = inventory.find(host_id) {
            let short = minus(more, host.free());
            let request = Request { size, project: Some(row.instance.project_id), ..Request::default() };
            let closed = filter::reject(host, &request).filter(|f| *f < Rejection::Vcpus);
            if more != Size::default() && (short != Size::default() || closed.is_some()) {
                let filter = closed.unwrap_or(if short.vcpus > 0 {
                    Rejection::Vcpus
                } else if short.memory_mib > 0 {
                    Rejection::Memory
                } else {
                    Rejection::Disk
                });
                return Err(refused(host_id, filter, short, now));
            }
        }
        inventory.claim_tentatively(host_id, more);
        let backed_up = inventory.resize(id, size, change.claim);
        let beyond_node = inventory.pinned_beyond_node(id);
        if more != Size::default() && (beyond_node || !backed_up) {
            // Its old backup still has capacity for what it had.
            inventory.release_tentative(host_id, more);
            inventory.resize(id, before.0, before.1);
            let filter = if beyond_node { Rejection::Pinning } else { Rejection::Reserve };
            return Err(refused(host_id, filter, Size::default(), now));
        }
        let after = (size, change.claim);
        Ok(Self { manager, placed: Placed::of(host_id, more), id, before, after, confirmed: false })
    }

    /// The commit succeeded.
    pub fn confirm(mut self) {
        self.confirmed = true;
        let mut inventory = self.manager.inventory();
        // Another resize, refused meanwhile, may have put back what was before this one.
        inventory.resize(self.id, self.after.0, self.after.1);
        // Confirming a claim counts a revision, as its commit did; without one, none was committed.
        if self.placed.claim != Size::default() {
            inventory.confirm(self.placed.host_id, self.placed.claim);
        }
    }
}

impl Drop for ResizeClaim<'_> {
    fn drop(&mut self) {
        if !self.confirmed {
            let mut inventory = self.manager.inventory();
            inventory.release_tentative(self.placed.host_id, self.placed.claim);
            inventory.resize(self.id, self.before.0, self.before.1);
        }
    }
}

/// After a resize that wasn't committed because the row changed: memory takes over what the row says now.
pub async fn restore_claim(manager: &Manager, id: InstanceId) {
    match manager.store.instance_load_many(&[id]).await {
        Ok(rows) => {
            if let Some(row) = rows.first() {
                manager.inventory().resize(id, row.instance.spec.size_on_host(), row.claim);
            }
        }
        Err(error) => {
            tracing::warn!(instance_id = %id, error = &error as &dyn std::error::Error, "an instance can't be read")
        }
    }
}

fn refused(host_id: HostId, filter: Rejection, lacks: Size, now: Timestamp) -> Problem {
    let (summary, advice) = if filter == Rejection::Reserve {
        let summary =
            "no other host of the zone has spare capacity for the new size, should the instance's host be lost";
        (summary.to_owned(), "choose a smaller size, or ask the operator for another host in this zone")
    } else {
        (format!("the instance's host can't take the new size: it is {}", filter.describe()), "")
    };
    let record = PlacementRecord {
        at: now,
        hosts_considered: 1,
        candidates: 0,
        rejected: vec![RejectionCount { filter, hosts: 1 }],
        chosen: None,
        best: Vec::new(),
        score: String::new(),
        nearest: Some(NearestFit { host_id: Some(host_id), lacks }),
        summary,
        hint: advice.to_owned(),
    };
    let mut problem =
        Problem::new(ErrorKind::NoCapacity, "no_capacity", record.summary.clone()).with_hint(hint(&record));
    problem.explain = Some(record);
    problem
}
