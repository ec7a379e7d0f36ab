//! Carries out a plan: dumb, in order, with an undo stack.
//!
//! A step that fails ends what it is for: a port's other steps are skipped and those done are undone, the rest of the network goes
//! on; a step without a owner ends the whole plan, and all that this plan made is undone. The next plan starts from what is then
//! found.

pub mod namespace;
pub mod rules;

use crate::{
    link::{
        message::{self, add_link, done_before, made_by_host},
        netlink::{Netlink, Request},
        netns::{Inside, NetnsError, Worker},
        nfnetlink::{BatchError, Nfnetlink},
        tap,
    },
    model::{
        names,
        object::Key,
        state::{LinkKind, NsState},
    },
    plan::{Planned, Rules, Step},
    undo::UndoStack,
};
use domain::NetworkId;
use nix::errno::Errno;
use rules::RulesError;
use service_kit::error_chain;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

/// The link group of ports, so that all of a namespace's go in one message.
pub const PORT_GROUP: u32 = 0x1aa5;

/// Why something couldn't be done: in words for whoever has the network, and in those of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub detail: String,
}

impl Failure {
    /// `purpose`: what couldn't be done, as in "the host couldn't ...".
    #[must_use]
    pub fn new(purpose: &str, detail: impl Into<String>) -> Self {
        let reason = format!("the host couldn't {purpose}; it tries again, and its log says why");
        Self { reason, detail: detail.into() }
    }

    fn of_step(step: &Step, error: &dyn std::error::Error) -> Self {
        Self::new(step.purpose(), describe(step, error))
    }
}

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Applied {
    /// Why a port's (or, under None, the network's) part failed.
    pub failed: BTreeMap<Option<Key>, Failure>,
    /// The rules' generation, if the plan's are in the kernel now.
    pub generation: Option<u32>,
    /// Somebody else changed the rules that the plan was made for.
    pub stale: bool,
    pub steps: usize,
}

impl Applied {
    #[must_use]
    pub fn clean(&self) -> bool {
        self.failed.is_empty()
    }
}

/// Where the other ends of links are.
#[derive(Debug, Clone, Default)]
pub struct ApplyContext {
    /// Namespaces of peered networks.
    pub peers: BTreeMap<NetworkId, Arc<OwnedFd>>,
}

/// Applies `steps` to the namespace of `inside`; `before` is what the plan was made from, `generation` that of the rules it knows.
pub async fn apply(
    host: &Worker,
    inside: &Worker,
    around: ApplyContext,
    steps: Vec<Planned>,
    before: NsState,
    generation: u32,
) -> Result<Applied, NetnsError> {
    let total = steps.len();
    let (hosts, own): (Vec<Planned>, Vec<Planned>) = steps
        .into_iter()
        .partition(|planned| matches!(&planned.step, Step::AddLink { kind, .. } if made_by_host(kind)));
    if !hosts.is_empty() {
        let namespace = inside.namespace();
        let made = host
            .run(move |host| {
                hosts.iter().try_for_each(|planned| make_from_host(&mut host.netlink, planned, &namespace, &around))
            })
            .await?;
        if let Err(failure) = made {
            // Half of an uplink alone does no harm: nothing is routed to it, and the next plan finds it.
            return Ok(Applied { failed: BTreeMap::from([(None, failure)]), steps: total, ..Applied::default() });
        }
    }
    let mut applied = inside.run(move |inside| run_inside(inside, own, &before, generation)).await?;
    applied.steps = total;
    Ok(applied)
}

fn make_from_host(
    netlink: &mut Netlink,
    planned: &Planned,
    inside: &OwnedFd,
    around: &ApplyContext,
) -> Result<(), Failure> {
    let Step::AddLink { name, kind, mac, mtu } = &planned.step else { return Ok(()) };
    let (mut peer, mut bridge) = (None, None);
    match kind {
        LinkKind::Peer { network_id, .. } => {
            let Some(namespace) = around.peers.get(network_id) else {
                let detail = format!("the peered network {network_id} has no namespace here yet");
                return Err(Failure::new("connect the network with a peered one yet", detail));
            };
            peer = Some(namespace.as_raw_fd());
        }
        LinkKind::Uplink { host_end, bridge: name } => {
            let index = nix::net::if_::if_nametoindex(name.as_str()).map_err(|_| no_bridge(name))?;
            bridge = Some(index);
            // What a crash left of an earlier one: its other end is gone or elsewhere.
            let _ = netlink.send(&[message::delete_link(host_end)]);
        }
        LinkKind::Tap { .. } | LinkKind::Veth { .. } | LinkKind::Vxlan { .. } | LinkKind::Found => {}
    }
    let Some(request) = add_link(name, kind, *mac, *mtu, inside.as_raw_fd(), peer, bridge) else { return Ok(()) };
    send_one(netlink, &planned.step, request).map_err(|e| Failure::of_step(&planned.step, &e))?;
    if let (LinkKind::Uplink { host_end, .. }, Some(bridge)) = (kind, bridge) {
        send_one(netlink, &planned.step, message::enslave(host_end, bridge))
            .map_err(|e| Failure::of_step(&planned.step, &e))?;
    }
    Ok(())
}

fn no_bridge(bridge: &str) -> Failure {
    let detail = format!("the bridge {bridge} of the external network isn't there");
    Failure::new("connect the network with its external network", detail)
}

/// Puts the host's end of an uplink back on its bridge and up: others may have taken it off, which its other end doesn't show.
pub async fn attach_uplink(host: &Worker, host_end: String, bridge: String) -> Result<Result<(), Failure>, NetnsError> {
    host.run(move |inside| {
        let index = nix::net::if_::if_nametoindex(bridge.as_str()).map_err(|_| no_bridge(&bridge))?;
        let answers = inside.netlink.send(&[message::enslave(&host_end, index)]);
        let failed =
            |e: &dyn std::error::Error| Failure::new("connect the network with its external network", error_chain(e));
        match answers.map_err(|e| failed(&e))?.first() {
            Some(Err(errno)) => Err(failed(errno)),
            Some(Ok(())) | None => Ok(()),
        }
    })
    .await
}

fn send_one(netlink: &mut Netlink, step: &Step, request: Request) -> io::Result<()> {
    match netlink.send(&[request])?.first() {
        Some(Err(errno)) if !done_before(step, *errno) => Err((*errno).into()),
        Some(_) | None => Ok(()),
    }
}

fn describe(step: &Step, error: &dyn std::error::Error) -> String {
    let error = error_chain(error);
    let step = if let Step::Rules(rules) = step {
        match rules {
            Rules::Whole(_) => "the whole of the rules".into(),
            Rules::Delta(_) => "the difference of the rules".into(),
        }
    } else {
        format!("{step:?}")
    };
    format!("{step}: {error}")
}

/// The executor of one plan in its namespace.
struct Run<'a> {
    netlink: &'a mut Netlink,
    rules: &'a mut Nfnetlink,
    /// Of the rules that the plan knows.
    generation: u32,
    before: &'a NsState,
    applied: Applied,
    undo: UndoStack<Option<Key>, Step>,
    owners: BTreeSet<Option<Key>>,
    indexes: BTreeMap<String, u32>,
    batch: Vec<(Planned, Request)>,
    fatal: bool,
}

fn run_inside(inside: &mut Inside, steps: Vec<Planned>, before: &NsState, generation: u32) -> Applied {
    let mut run = Run {
        netlink: &mut inside.netlink,
        rules: &mut inside.rules,
        generation,
        before,
        applied: Applied::default(),
        undo: UndoStack::default(),
        owners: BTreeSet::new(),
        indexes: BTreeMap::new(),
        batch: Vec::new(),
        fatal: false,
    };
    // Many ports at once go as a group; the messages for each then find them gone.
    for planned in steps {
        if run.fatal {
            break;
        }
        run.take(planned);
    }
    run.flush();
    run.applied
}

impl Run<'_> {
    fn take(&mut self, planned: Planned) {
        if self.applied.failed.contains_key(&planned.owner) {
            return;
        }
        self.owners.insert(planned.owner);
        let request = match &planned.step {
            Step::AddLink { name, kind: LinkKind::Tap { owner_uid }, .. } => {
                let made = tap::create(name, *owner_uid);
                return self.settle(planned, made);
            }
            Step::AddLink { name, kind, mac, mtu } => add_link(name, kind, *mac, *mtu, -1, None, None),
            Step::SetLink { name, mac, mtu } => {
                let port = name.starts_with(names::PORT_PREFIX);
                if self.batch.iter().any(|(p, _)| matches!(p.step, Step::AddLink { .. })) {
                    self.flush();
                }
                if port && let Err(e) = answer_at_once(name) {
                    return self.settle(planned, Err(e));
                }
                Some(message::set_link(name, Some(*mac), Some(*mtu), if port { PORT_GROUP } else { 0 }))
            }
            Step::Rules(rules) => {
                self.flush();
                if self.fatal {
                    return;
                }
                let written = rules::write(self.rules, rules, self.generation);
                self.applied.generation = written.as_ref().ok().copied();
                self.applied.stale = matches!(written, Err(RulesError::Batch(BatchError::Stale)));
                return self.settle(planned, written.map(|_| ()).map_err(io::Error::other));
            }
            step @ (Step::AddAddress { .. }
            | Step::DeleteAddress { .. }
            | Step::SetNeighbour { .. }
            | Step::DeleteNeighbour { .. }
            | Step::SetRoute { .. }
            | Step::DeleteRoute { .. }
            | Step::SetForwarding { .. }
            | Step::DeleteForwarding { .. }
            | Step::DeleteLink { .. }) => {
                if let Some(link) = step.link() {
                    self.note_index(link);
                }
                message::of_step(step, |name| self.indexes.get(name).copied())
            }
        };
        match request {
            Some(request) => self.batch.push((planned, request)),
            // Of a link that isn't there: nothing to remove from it, and nothing can be put on it.
            None => {
                let gone = done_before(&planned.step, Errno::ENODEV);
                self.settle(planned, if gone { Ok(()) } else { Err(Errno::ENODEV.into()) });
            }
        }
    }

    fn note_index(&mut self, link: &str) {
        if !self.indexes.contains_key(link) {
            if self.batch.iter().any(|(p, _)| matches!(p.step, Step::AddLink { .. })) {
                self.flush();
            }
            if let Ok(index) = nix::net::if_::if_nametoindex(link) {
                self.indexes.insert(link.to_owned(), index);
            }
        }
    }

    fn flush(&mut self) {
        let (planned, requests): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().unzip();
        if requests.is_empty() {
            return;
        }
        match self.netlink.send(&requests) {
            Ok(answers) => {
                for (planned, answer) in planned.into_iter().zip(answers) {
                    let result = match answer {
                        Err(errno) if !done_before(&planned.step, errno) => Err(errno.into()),
                        Ok(()) | Err(_) => Ok(()),
                    };
                    self.settle(planned, result);
                }
            }
            Err(e) => {
                let first = planned.into_iter().next();
                if let Some(Planned { step, .. }) = first {
                    self.settle(Planned { owner: None, step }, Err(e));
                }
            }
        }
    }

    fn settle(&mut self, planned: Planned, result: io::Result<()>) {
        let Planned { owner, step } = planned;
        match result {
            Ok(()) if self.applied.failed.contains_key(&owner) || self.fatal => {
                // Its owner failed in the same batch.
                if let Some(inverse) = step.inverse(self.before) {
                    self.undo_now(vec![inverse]);
                }
            }
            Ok(()) => {
                if let Some(inverse) = step.inverse(self.before) {
                    self.undo.push(owner, inverse);
                }
            }
            Err(error) => {
                self.applied.failed.entry(owner).or_insert_with(|| Failure::of_step(&step, &error));
                let affected: Vec<Option<Key>> = if owner.is_none() {
                    self.fatal = true;
                    self.owners.iter().rev().copied().collect()
                } else {
                    vec![owner]
                };
                for owner in affected {
                    let inverses = self.undo.take(&owner);
                    self.undo_now(inverses);
                }
            }
        }
    }

    fn undo_now(&mut self, inverses: Vec<Step>) {
        let indexes = &self.indexes;
        let requests: Vec<Request> =
            inverses.iter().filter_map(|step| message::of_step(step, |name| indexes.get(name).copied())).collect();
        // What can't be undone is found by the next plan.
        if let Err(error) = self.netlink.send(&requests) {
            tracing::warn!(%error, "a failed change could not be undone");
        }
    }
}

/// Without this the kernel delays the first proxied ARP answer by up to 0.8 s.
fn answer_at_once(link: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/neigh/{link}/proxy_delay"), "0")?;
    fs::write(format!("/proc/sys/net/ipv4/conf/{link}/proxy_arp"), "1")
}
