//! The resource-manager as this service uses it: ports are reserved before a commit, bound before a delivery, released with a deletion
//! and forgotten on proof. All of it is idempotent, so a failure needs no more than a repeat.

use super::coalesce::Coalescer;
use domain::{HostId, InstanceId, PortId, Problem, SecurityGroupId, instance::Nic};
use proto::{
    convert::parse,
    resource::v1::{self as pb, resource_manager_client::ResourceManagerClient},
    status::from_status,
};
use service_kit::context::CallContext;
use std::{collections::HashMap, time::Duration};
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

/// Reservations merged into one call.
const RESERVE_MAX: usize = 128;
/// Such calls on their way at once: with one, a create would wait for half of another's before its own.
const RESERVE_AT_ONCE: usize = 2;

#[derive(Clone)]
struct Client {
    inner: ResourceManagerClient<Channel>,
    timeout: Duration,
    ttl_secs: u32,
}

impl Client {
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    async fn reserve(
        &self,
        ports: Vec<pb::PortReservation>,
        context: Option<&CallContext>,
    ) -> Result<Vec<pb::ReservedPort>, Problem> {
        let asked = ports.len();
        let mut request = self.request(pb::ReservePortsRequest { ports, ttl_secs: self.ttl_secs });
        if let Some(context) = context {
            context.inject(&mut request);
        }
        let answer = self.inner.clone().reserve_ports(request).await.map_err(|s| from_status(&s))?.into_inner();
        if answer.ports.len() == asked {
            return Ok(answer.ports);
        }
        tracing::error!(asked, answered = answer.ports.len(), "the resource-manager answered for other ports");
        Err(Problem::internal())
    }
}

pub struct Resource {
    client: Client,
    reserve: Coalescer<Vec<pb::PortReservation>, Result<Vec<pb::ReservedPort>, Problem>>,
}

/// A port to be bound to where its instance runs, with what its guest may ask about itself there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortBinding {
    pub port_id: PortId,
    pub instance_id: InstanceId,
    pub host_id: HostId,
    pub instance_epoch: i64,
    pub metadata_digest: String,
    pub hostname: String,
}

/// What became of bindings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bound {
    /// The ports' epochs.
    pub epochs: HashMap<PortId, i64>,
    /// Those whose reservation is gone.
    pub expired: Vec<PortId>,
}

impl Resource {
    pub fn start(channel: Channel, timeout: Duration, ttl_secs: u32, tasks: &TaskTracker) -> Self {
        let inner = ResourceManagerClient::new(channel)
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        let client = Client { inner, timeout, ttl_secs };
        let worker = client.clone();
        let reserve =
            Coalescer::start(tasks, RESERVE_MAX, RESERVE_AT_ONCE, move |calls: Vec<Vec<pb::PortReservation>>| {
                let client = worker.clone();
                async move { reserve_all(&client, calls).await }
            });
        Self { client, reserve }
    }

    /// Reserves, all or none; the cards, in the order they were asked for. A refusal (quota, an address that is taken) is the caller's
    /// to pass on.
    pub async fn reserve(&self, ports: Vec<pb::PortReservation>) -> Result<Vec<Nic>, Problem> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let groups = asked_groups(&ports);
        let reserved = self.reserve.call(ports).await.unwrap_or_else(|e| Err(Problem::unavailable(e.to_string())))?;
        nics(&reserved, groups)
    }

    /// All checks of a reservation, and the cards as they would be.
    pub async fn rehearse(&self, context: &CallContext, ports: Vec<pb::PortReservation>) -> Result<Vec<Nic>, Problem> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let groups = asked_groups(&ports);
        let context = CallContext { dry_run: true, ..context.clone() };
        nics(&self.client.reserve(ports, Some(&context)).await?, groups)
    }

    pub async fn bind(&self, bindings: &[PortBinding]) -> Result<Bound, Problem> {
        if bindings.is_empty() {
            return Ok(Bound::default());
        }
        let ports = bindings
            .iter()
            .map(|b| pb::PortBinding {
                port_id: b.port_id.to_string(),
                instance_id: b.instance_id.to_string(),
                host_id: b.host_id.to_string(),
                instance_epoch: b.instance_epoch,
                metadata_digest: b.metadata_digest.clone(),
                hostname: b.hostname.clone(),
            })
            .collect();
        let request = self.client.request(pb::BindPortsRequest { ports });
        let answer = self.client.inner.clone().bind_ports(request).await.map_err(|s| from_status(&s))?.into_inner();
        let epochs = answer.ports.iter().map(|p| Ok((parse("port_id", &p.port_id)?, p.epoch)));
        let expired = answer.expired_port_ids.iter().map(|id| Ok(parse("expired_port_ids", id)?));
        Ok(Bound { epochs: epochs.collect::<Result<_, Problem>>()?, expired: expired.collect::<Result<_, Problem>>()? })
    }

    pub async fn release(&self, instance_ids: &[InstanceId]) -> Result<(), Problem> {
        if instance_ids.is_empty() {
            return Ok(());
        }
        let instance_ids = instance_ids.iter().map(ToString::to_string).collect();
        let request = self.client.request(pb::ReleasePortsRequest { instance_ids });
        self.client.inner.clone().release_ports(request).await.map(drop).map_err(|s| from_status(&s))
    }

    /// All ports of instances that are proven gone, or never came to be.
    pub async fn forget(&self, instance_ids: &[InstanceId]) -> Result<(), Problem> {
        self.forget_some(instance_ids, &[]).await
    }

    /// Single ports whose cards are proven out.
    pub async fn forget_cards(&self, cards: &[(InstanceId, PortId)]) -> Result<(), Problem> {
        self.forget_some(&[], cards).await
    }

    async fn forget_some(&self, instance_ids: &[InstanceId], cards: &[(InstanceId, PortId)]) -> Result<(), Problem> {
        if instance_ids.is_empty() && cards.is_empty() {
            return Ok(());
        }
        let instance_ids = instance_ids.iter().map(ToString::to_string).collect();
        let ports = cards
            .iter()
            .map(|(instance_id, port_id)| pb::PortOfInstance {
                port_id: port_id.to_string(),
                instance_id: instance_id.to_string(),
            })
            .collect();
        let request = self.client.request(pb::RemovePortsRequest { instance_ids, ports });
        self.client.inner.clone().remove_ports(request).await.map(drop).map_err(|s| from_status(&s))
    }
}

type Groups = Option<Vec<SecurityGroupId>>;

/// What was asked, kept for a reservation that has to be made anew.
fn asked_groups(ports: &[pb::PortReservation]) -> Result<Vec<Groups>, Problem> {
    let groups = |port: &pb::PortReservation| -> Result<Groups, Problem> {
        if port.existing || !port.security_groups_given {
            return Ok(None);
        }
        let ids = port.security_group_ids.iter().map(|id| Ok(parse("security_group_ids", id)?));
        Ok(Some(ids.collect::<Result<_, Problem>>()?))
    };
    ports.iter().map(groups).collect()
}

fn nics(reserved: &[pb::ReservedPort], groups: Result<Vec<Groups>, Problem>) -> Result<Vec<Nic>, Problem> {
    let nic = |(port, security_group_ids): (&pb::ReservedPort, Groups)| -> Result<Nic, Problem> {
        let addresses = port.fixed_ips.iter().map(|a| Ok(parse("fixed_ips", a)?));
        Ok(Nic {
            port_id: parse("port_id", &port.port_id)?,
            network_id: parse("network_id", &port.network_id)?,
            mac: parse("mac", &port.mac)?,
            addresses: addresses.collect::<Result<_, Problem>>()?,
            security_group_ids,
        })
    };
    reserved.iter().zip(groups?).map(nic).collect()
}

/// All in one call; when that is refused, each on its own, so that one project's quota refuses nobody else.
async fn reserve_all(
    client: &Client,
    calls: Vec<Vec<pb::PortReservation>>,
) -> Vec<Result<Vec<pb::ReservedPort>, Problem>> {
    let together: Vec<_> = calls.iter().flatten().cloned().collect();
    match client.reserve(together, None).await {
        Ok(reserved) => {
            let mut reserved = reserved.into_iter();
            calls.iter().map(|ports| Ok(reserved.by_ref().take(ports.len()).collect())).collect()
        }
        Err(problem) if calls.len() == 1 => vec![Err(problem)],
        Err(_) => futures::future::join_all(calls.into_iter().map(|ports| client.reserve(ports, None))).await,
    }
}
