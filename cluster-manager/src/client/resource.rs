//! The resource-manager as this service uses it: ports are reserved before a commit, bound before a delivery, released with a deletion
//! and removed on proof. All of it is idempotent, so a failure needs no more than a repeat.

use super::coalesce::Coalescer;
use domain::{
    HostId, InstanceId, PortId, Problem,
    instance::{Nic, NicRequest, PortRequest, PortReservation},
};
use proto::{
    cluster::v1 as cluster,
    convert::{nic_from_pb, parse, port_reservation_to_pb},
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

    async fn reserve(&self, ports: &[PortReservation], context: Option<&CallContext>) -> Result<Vec<Nic>, Problem> {
        let message = ports.iter().map(port_reservation_to_pb).collect();
        let mut request = self.request(pb::ReservePortsRequest { ports: message, ttl_secs: self.ttl_secs });
        if let Some(context) = context {
            context.inject(&mut request);
        }
        let answer = self.inner.clone().reserve_ports(request).await.map_err(|s| from_status(&s))?.into_inner();
        if answer.nics.len() != ports.len() {
            let (requested, answered) = (ports.len(), answer.nics.len());
            tracing::error!(requested, answered, "the resource-manager answered for other ports");
            return Err(Problem::internal());
        }
        answer.nics.iter().zip(ports).map(|(nic, reservation)| reserved_nic(nic, &reservation.nic)).collect()
    }
}

/// The NIC that was reserved. What was requested of security groups is kept, should its reservation have to be made again.
fn reserved_nic(nic: &cluster::Nic, request: &NicRequest) -> Result<Nic, Problem> {
    let security_group_ids = match &request.port {
        PortRequest::Existing => None,
        PortRequest::New { security_group_ids, .. } => security_group_ids.clone(),
    };
    Ok(Nic { security_group_ids, ..nic_from_pb(nic)? })
}

pub struct Resource {
    client: Client,
    reserve: Coalescer<Vec<PortReservation>, Result<Vec<Nic>, Problem>>,
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

/// What came of bindings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BoundPorts {
    /// The ports' epochs.
    pub epochs: HashMap<PortId, i64>,
    /// The ports whose reservation is gone.
    pub expired: Vec<PortId>,
}

impl Resource {
    pub fn start(channel: Channel, timeout: Duration, ttl_secs: u32, tasks: &TaskTracker) -> Self {
        let inner = ResourceManagerClient::new(channel)
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        let client = Client { inner, timeout, ttl_secs };
        let worker = client.clone();
        let reserve = Coalescer::start(tasks, RESERVE_MAX, RESERVE_AT_ONCE, move |calls: Vec<Vec<PortReservation>>| {
            let client = worker.clone();
            async move { reserve_all(&client, calls).await }
        });
        Self { client, reserve }
    }

    /// Reserves all of the ports or none; answers the NICs in the order of the request. A refusal (quota, an address that is taken) is the
    /// caller's to pass on.
    pub async fn reserve(&self, ports: Vec<PortReservation>) -> Result<Vec<Nic>, Problem> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        self.reserve.call(ports).await.unwrap_or_else(|e| Err(Problem::unavailable(e.to_string())))
    }

    /// All checks of a reservation, and the NICs as they would be.
    pub async fn dry_run(&self, context: &CallContext, ports: Vec<PortReservation>) -> Result<Vec<Nic>, Problem> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let context = CallContext { dry_run: true, ..context.clone() };
        self.client.reserve(&ports, Some(&context)).await
    }

    pub async fn bind(&self, bindings: &[PortBinding]) -> Result<BoundPorts, Problem> {
        if bindings.is_empty() {
            return Ok(BoundPorts::default());
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
        Ok(BoundPorts {
            epochs: epochs.collect::<Result<_, Problem>>()?,
            expired: expired.collect::<Result<_, Problem>>()?,
        })
    }

    pub async fn release(&self, instance_ids: &[InstanceId]) -> Result<(), Problem> {
        if instance_ids.is_empty() {
            return Ok(());
        }
        let instance_ids = instance_ids.iter().map(ToString::to_string).collect();
        let request = self.client.request(pb::ReleasePortsRequest { instance_ids });
        self.client.inner.clone().release_ports(request).await.map(drop).map_err(|s| from_status(&s))
    }

    /// Removes all ports of instances that are proven gone, or never came to be.
    pub async fn remove(&self, instance_ids: &[InstanceId]) -> Result<(), Problem> {
        self.remove_some(instance_ids, &[]).await
    }

    /// Removes single ports whose NICs are proven to be detached.
    pub async fn remove_ports(&self, ports: &[(InstanceId, PortId)]) -> Result<(), Problem> {
        self.remove_some(&[], ports).await
    }

    async fn remove_some(&self, instance_ids: &[InstanceId], ports: &[(InstanceId, PortId)]) -> Result<(), Problem> {
        if instance_ids.is_empty() && ports.is_empty() {
            return Ok(());
        }
        let instance_ids = instance_ids.iter().map(ToString::to_string).collect();
        let ports = ports
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

/// All in one call; when that is refused, each on its own, so that one project's quota refuses nobody else.
async fn reserve_all(client: &Client, calls: Vec<Vec<PortReservation>>) -> Vec<Result<Vec<Nic>, Problem>> {
    let together: Vec<_> = calls.iter().flatten().cloned().collect();
    match client.reserve(&together, None).await {
        Ok(reserved) => {
            let mut reserved = reserved.into_iter();
            calls.iter().map(|ports| Ok(reserved.by_ref().take(ports.len()).collect())).collect()
        }
        Err(problem) if calls.len() == 1 => vec![Err(problem)],
        Err(_) => futures::future::join_all(calls.iter().map(|ports| client.reserve(ports, None))).await,
    }
}
