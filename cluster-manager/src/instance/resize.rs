//! What a resize takes on its instance's own host: the growth is held tentatively until the commit, as a placement is.

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

/// What a resize claims on the instance's host, and what it gives back.
pub struct Resized {
    pub claim: Size,
    pub more: Size,
    pub less: Size,
}

pub fn resized(manager: &Manager, row: &InstanceRow, next: &Instance) -> Option<Resized> {
    let host_id = row.instance.host_id?;
    if row.instance.spec.size == next.spec.size {
        return None;
    }
    let claim = filter::claim(manager.inventory().find(host_id)?, &asks(next.spec.size, next.spec.placement.pinning));
    Some(Resized { claim, more: minus(claim, row.claim), less: minus(row.claim, claim) })
}

fn asks(size: Size, pinning: Pinning) -> Request {
    Request { size, pinned: pinning == Pinning::Numa, ..Request::default() }
}

/// Tentatively claimed growth on the instance's own host, and its backup's; given back when dropped.
pub struct Growth<'a> {
    manager: &'a Manager,
    placed: Placed,
    id: InstanceId,
    /// Its size and its claim.
    before: (Size, Size),
    after: (Size, Size),
    firm: bool,
}

impl<'a> Growth<'a> {
    /// `row`: as it is; `size` and `resized`: as it is to be.
    pub fn hold(
        manager: &'a Manager,
        host_id: HostId,
        row: &InstanceRow,
        size: Size,
        resized: &Resized,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let (more, before) = (resized.more, (row.instance.spec.size, row.claim));
        let mut inventory = manager.inventory();
        if let Some(host) = inventory.find(host_id) {
            let short = minus(more, host.free());
            let asks = Request { size, project: Some(row.instance.project_id), ..Request::default() };
            let closed = filter::reject(host, &asks).filter(|f| *f < Rejection::Vcpus);
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
        let backed_up = inventory.resize(row.instance.id, size, resized.claim);
        let beyond_node = inventory.pinned_beyond_node(row.instance.id);
        if more != Size::default() && (beyond_node || !backed_up) {
            // What it had, its old backup still has room for.
            inventory.release_tentative(host_id, more);
            inventory.resize(row.instance.id, before.0, before.1);
            let filter = if beyond_node { Rejection::Pinning } else { Rejection::Reserve };
            return Err(refused(host_id, filter, Size::default(), now));
        }
        Ok(Self {
            manager,
            placed: Placed::of(host_id, more),
            id: row.instance.id,
            before,
            after: (size, resized.claim),
            firm: false,
        })
    }

    pub fn confirm(mut self) {
        self.firm = true;
        let mut inventory = self.manager.inventory();
        // Another resize, refused meanwhile, may have put back what was before this one.
        inventory.resize(self.id, self.after.0, self.after.1);
        // Making a claim firm counts a revision, as its commit did; without one, none was committed.
        if self.placed.claim != Size::default() {
            inventory.confirm(self.placed.host_id, self.placed.claim);
        }
    }
}

impl Drop for Growth<'_> {
    fn drop(&mut self) {
        if !self.firm {
            let mut inventory = self.manager.inventory();
            inventory.release_tentative(self.placed.host_id, self.placed.claim);
            inventory.resize(self.id, self.before.0, self.before.1);
        }
    }
}

/// After a resize that wasn't committed because the row changed: what the row says now.
pub async fn refit(manager: &Manager, id: InstanceId) {
    match manager.store.instance_load_many(&[id]).await {
        Ok(rows) => {
            if let Some(row) = rows.first() {
                manager.inventory().resize(id, row.instance.spec.size, row.claim);
            }
        }
        Err(error) => {
            tracing::warn!(instance_id = %id, error = &error as &dyn std::error::Error, "an instance can't be read")
        }
    }
}

fn refused(host_id: HostId, filter: Rejection, lacks: Size, now: Timestamp) -> Problem {
    let (summary, advice) = if filter == Rejection::Reserve {
        let summary = "no other host of the zone can keep room for the new size, should the instance's host be lost";
        (summary.to_owned(), "choose a smaller size, or ask the operator for another host in this zone")
    } else {
        (format!("the instance's host can't take the new size: it is {}", filter::describe(filter)), "")
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
