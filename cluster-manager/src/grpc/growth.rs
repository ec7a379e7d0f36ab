//! What a resize takes on its instance's own host: the growth is held tentatively until the commit, as a placement is.

use crate::{
    manager::Manager,
    scheduler::{Placed, Request, explain::hint, filter, host::minus},
};
use domain::{
    ErrorKind, HostId, Problem, Timestamp,
    explain::{NearestFit, PlacementRecord, Rejection, RejectionCount},
    flavor::Size,
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
    let claim = manager.inventory().find(host_id)?.claim_of(next.spec.size);
    Some(Resized { claim, more: minus(claim, row.claim), less: minus(row.claim, claim) })
}

/// Tentatively claimed growth on the instance's own host; given back when dropped.
pub struct Growth<'a> {
    manager: &'a Manager,
    placed: Placed,
    firm: bool,
}

impl<'a> Growth<'a> {
    pub fn hold(
        manager: &'a Manager,
        host_id: HostId,
        more: Size,
        size: &Size,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let mut inventory = manager.inventory();
        if let Some(host) = inventory.find(host_id) {
            let short = minus(more, host.free());
            let asks = Request { size: *size, ..Request::default() };
            let closed = filter::reject(host, &asks).filter(|f| *f < Rejection::Vcpus);
            if more != Size::default() && (short != Size::default() || closed.is_some()) {
                let filter = closed.unwrap_or(if short.vcpus > 0 {
                    Rejection::Vcpus
                } else if short.memory_mib > 0 {
                    Rejection::Memory
                } else {
                    Rejection::Disk
                });
                let record = PlacementRecord {
                    at: now,
                    hosts_considered: 1,
                    candidates: 0,
                    rejected: vec![RejectionCount { filter, hosts: 1 }],
                    chosen: None,
                    best: Vec::new(),
                    score: String::new(),
                    nearest: Some(NearestFit { host_id: Some(host_id), lacks: short }),
                    summary: format!("the instance's host can't take the new size: it is {}", filter::describe(filter)),
                    hint: String::new(),
                };
                let mut problem =
                    Problem::new(ErrorKind::NoCapacity, "no_capacity", record.summary.clone()).with_hint(hint(&record));
                problem.explain = Some(record.redacted());
                return Err(problem);
            }
        }
        inventory.claim_tentatively(host_id, more);
        Ok(Self { manager, placed: Placed::of(host_id, more), firm: false })
    }

    pub fn make_firm(mut self) {
        self.firm = true;
        self.manager.inventory().make_firm(self.placed.host_id, self.placed.claim);
    }
}

impl Drop for Growth<'_> {
    fn drop(&mut self) {
        if !self.firm {
            self.manager.inventory().give_back(self.placed.host_id, self.placed.claim);
        }
    }
}
