//! What becomes of an instance's ports: reserved, bound, released, forgotten. Pure: a row in, what to do with it out.
//!
//! Each is idempotent: what is so already needs nothing. A port that isn't its instance's (any more) is left alone: the reservation
//! expired, or another took it.

use domain::{
    HostId, InstanceId, PortId, ProjectId,
    network::{Port, PortOwner, PortState, PortStatus},
};

/// What the cluster-manager wants of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub port_id: PortId,
    pub instance_id: InstanceId,
    pub host_id: HostId,
    pub instance_epoch: i64,
    pub metadata_digest: String,
    pub hostname: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindPlan {
    /// So already.
    Done { epoch: i64 },
    /// The row as it becomes.
    Bind(Box<Port>),
    /// The reservation is gone: reserve anew.
    Expired,
    /// Bound under a later epoch of the instance.
    Stale { instance_epoch: i64 },
}

#[must_use]
pub fn plan_bind(port: Option<&Port>, wanted: &Binding) -> BindPlan {
    let Some(port) = port.filter(|port| owned(port, wanted.instance_id)) else { return BindPlan::Expired };
    if port.state == PortState::Releasing {
        return BindPlan::Expired;
    }
    if port.instance_epoch > wanted.instance_epoch {
        return BindPlan::Stale { instance_epoch: port.instance_epoch };
    }
    let there = port.host_id == Some(wanted.host_id) && port.instance_epoch == wanted.instance_epoch;
    let told = port.metadata_digest == wanted.metadata_digest && port.hostname == wanted.hostname;
    if there && told && port.state == PortState::Active && port.expires_at.is_none() {
        return BindPlan::Done { epoch: port.epoch };
    }
    BindPlan::Bind(Box::new(Port {
        state: PortState::Active,
        expires_at: None,
        host_id: Some(wanted.host_id),
        // What its host said stays true while only words about it change.
        epoch: if there { port.epoch } else { port.epoch + 1 },
        status: if there { port.status } else { PortStatus::Building },
        status_reason: if there { port.status_reason.clone() } else { String::new() },
        instance_epoch: wanted.instance_epoch,
        metadata_digest: wanted.metadata_digest.clone(),
        hostname: wanted.hostname.clone(),
        generation: port.generation + 1,
        ..port.clone()
    }))
}

fn owned(port: &Port, instance_id: InstanceId) -> bool {
    port.owner.is_some_and(|owner| owner.instance_id == instance_id)
}

/// The deletion of its instance was accepted: the row as it becomes, or none when there is nothing to do.
#[must_use]
pub fn plan_release(port: &Port) -> Option<Port> {
    let goes = port.owner.is_some_and(|owner| owner.with_instance) && port.state != PortState::Releasing;
    goes.then(|| Port {
        state: PortState::Releasing,
        expires_at: None,
        generation: port.generation + 1,
        ..port.clone()
    })
}

/// Its instance is proven gone, or never came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForgetPlan {
    /// The row goes; whether its quota comes back with it, or did already.
    Delete { gives_quota_back: bool },
    /// A port of its own: free again. The row as it becomes.
    Detach(Box<Port>),
}

#[must_use]
pub fn plan_forget(port: &Port) -> ForgetPlan {
    if port.owner.is_some_and(|owner| owner.with_instance) {
        return ForgetPlan::Delete { gives_quota_back: port.state != PortState::Releasing };
    }
    ForgetPlan::Detach(Box::new(Port {
        owner: None,
        hostname: String::new(),
        host_id: None,
        epoch: port.epoch + 1,
        instance_epoch: 0,
        metadata_digest: String::new(),
        expires_at: None,
        status: PortStatus::Down,
        status_reason: String::new(),
        generation: port.generation + 1,
        ..port.clone()
    }))
}

/// Whether a port that exists may be taken for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakePlan {
    /// It is the instance's already.
    Done,
    Take,
    NotFound,
    /// Another instance has it.
    Attached,
}

#[must_use]
pub fn plan_take(port: Option<&Port>, project_id: ProjectId, instance_id: InstanceId) -> TakePlan {
    match port {
        Some(port) if port.project_id == project_id => match port.owner {
            Some(owner) if owner == (PortOwner { instance_id, with_instance: false }) => TakePlan::Done,
            None if port.state == PortState::Active => TakePlan::Take,
            Some(_) | None => TakePlan::Attached,
        },
        Some(_) | None => TakePlan::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::tests::{host_id, port};

    fn wanted(of: &Port) -> Binding {
        Binding {
            port_id: of.id,
            instance_id: of.owner.expect("an owner").instance_id,
            host_id: host_id(1),
            instance_epoch: 1,
            metadata_digest: "d".into(),
            hostname: "web".into(),
        }
    }

    fn reserved() -> Port {
        Port { state: PortState::Reserved, host_id: None, instance_epoch: 0, epoch: 0, ..port(1, 1, Some(1), &[], 1) }
    }

    fn bound(plan: BindPlan) -> Port {
        match plan {
            BindPlan::Bind(port) => *port,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_epoch_rises_only_when_the_port_is_given_elsewhere() {
        let first = bound(plan_bind(Some(&reserved()), &wanted(&reserved())));
        assert_eq!((first.epoch, first.generation, first.status), (1, 2, PortStatus::Building));
        assert_eq!(plan_bind(Some(&first), &wanted(&first)), BindPlan::Done { epoch: 1 });
        let active = Port { status: PortStatus::Active, ..first };
        let renamed = bound(plan_bind(Some(&active), &Binding { hostname: "db".into(), ..wanted(&active) }));
        assert_eq!((renamed.epoch, renamed.generation, renamed.status), (1, 3, PortStatus::Active));
        let moved = Binding { host_id: host_id(2), instance_epoch: 2, ..wanted(&active) };
        let there = bound(plan_bind(Some(&active), &moved));
        assert_eq!((there.epoch, there.host_id, there.status), (2, Some(host_id(2)), PortStatus::Building));
        assert_eq!(plan_bind(Some(&there), &wanted(&there)), BindPlan::Stale { instance_epoch: 2 });
    }

    #[test]
    fn what_is_gone_or_anothers_has_expired() {
        let row = reserved();
        assert_eq!(plan_bind(None, &wanted(&row)), BindPlan::Expired);
        let another = Binding { instance_id: InstanceId::new(), ..wanted(&row) };
        assert_eq!(plan_bind(Some(&row), &another), BindPlan::Expired);
        let releasing = Port { state: PortState::Releasing, ..row };
        assert_eq!(plan_bind(Some(&releasing), &wanted(&releasing)), BindPlan::Expired);
    }

    #[test]
    fn ports_made_with_their_instance_go_with_it_and_others_stay() {
        let with = port(1, 1, Some(1), &[], 1);
        let released = plan_release(&with).expect("it goes");
        assert_eq!(plan_release(&released), None, "once");
        assert_eq!(plan_forget(&with), ForgetPlan::Delete { gives_quota_back: true });
        assert_eq!(plan_forget(&released), ForgetPlan::Delete { gives_quota_back: false });
        let owner = PortOwner { with_instance: false, ..with.owner.expect("an owner") };
        let own = Port { owner: Some(owner), ..with };
        assert_eq!(plan_release(&own), None);
        let ForgetPlan::Detach(free) = plan_forget(&own) else { panic!("it stays") };
        assert_eq!((free.owner, free.host_id, free.epoch), (None, None, own.epoch + 1));
        let (project, instance) = (own.project_id, owner.instance_id);
        assert_eq!(plan_take(Some(&own), project, instance), TakePlan::Done);
        assert_eq!(plan_take(Some(&own), project, InstanceId::new()), TakePlan::Attached);
        assert_eq!(plan_take(Some(&free), project, instance), TakePlan::Take);
        assert_eq!(plan_take(Some(&free), ProjectId::new(), instance), TakePlan::NotFound);
    }
}
