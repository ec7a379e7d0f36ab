//! A resource-manager to talk to.

use domain::{
    HostId, InstanceId, NetworkId, PortId, Problem, ProjectId, SecurityGroupId, SubnetId, Timestamp,
    network::{Change, NewPort, Port, RateLimit, SubnetSpec, Vni},
    quota::QuotaAmounts,
};
use proto::{
    cluster::v1 as cluster,
    resource::v1::{self as pb, resource_manager_client::ResourceManagerClient},
    status::from_status,
};
use resource_manager::{Config, Deps};
use service_kit::{context::CallContext, transport};
use store::{
    NetworkInsert, NetworkUsageAdd, ProjectInsert, QuotaLimitPut, SecurityGroupInsert, SubnetInsert, Unit,
    testing::TestStore,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub struct World {
    pub store: TestStore,
    pub client: ResourceManagerClient<Channel>,
    pub project_id: ProjectId,
    pub network_id: NetworkId,
    pub group_id: SecurityGroupId,
    shutdown: CancellationToken,
    served: JoinHandle<anyhow::Result<()>>,
}

/// Ports that the world's project may have.
pub const QUOTA_PORTS: i64 = 4;

impl World {
    /// One on each database: a project with a network of two subnets (a /29 and a /64) and a group `default`.
    pub async fn each() -> Vec<Self> {
        let mut worlds = Vec::new();
        for store in TestStore::each().await {
            worlds.push(Self::on(store, Config::default()).await);
        }
        worlds
    }

    pub async fn on(store: TestStore, config: Config) -> Self {
        let (project_id, network_id, group_id) = (ProjectId::new(), NetworkId::new(), SecurityGroupId::new());
        let created_at = Timestamp::now();
        let subnet = |name: &str, cidr: &str, gateway: &str| SubnetInsert {
            id: SubnetId::new(),
            project_id,
            network_id,
            name: name.parse().expect("a name"),
            spec: SubnetSpec {
                cidr: cidr.parse().expect("a CIDR"),
                gateway: gateway.parse().expect("an address"),
                dns: vec![],
                allocation: vec![],
                host_routes: vec![],
            },
            dhcp: true,
            created_at,
        };
        let unit = Unit::new()
            .op(ProjectInsert {
                id: project_id,
                name: "p".parse().expect("a name"),
                description: String::new(),
                created_at,
            })
            .op(NetworkUsageAdd::take(
                project_id,
                &QuotaAmounts { networks: 1, subnets: 2, security_groups: 1, ..QuotaAmounts::NONE },
            ))
            .op(QuotaLimitPut::new(project_id, &QuotaAmounts { ports: QUOTA_PORTS, ..QuotaAmounts::DEFAULT_LIMIT }, 0))
            .op(NetworkInsert {
                id: network_id,
                project_id,
                name: "blue".parse().expect("a name"),
                description: String::new(),
                vni: Vni::try_from(77).expect("a VNI"),
                mtu: None,
                created_at,
            })
            .op(subnet("four", "10.0.0.0/29", "10.0.0.1"))
            .op(subnet("six", "fd00::/64", "fd00::1"))
            .op(SecurityGroupInsert {
                id: group_id,
                project_id,
                name: "default".parse().expect("a name"),
                description: String::new(),
                created_at,
            });
        store.commit(unit).await.expect("seeded");
        let shutdown = CancellationToken::new();
        let (client, served) = serve(&store, config, &shutdown);
        Self { store, client, project_id, network_id, group_id, shutdown, served }
    }

    /// The process ends and another starts on the same database.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.shutdown = CancellationToken::new();
        (self.client, self.served) = serve(&self.store, Config::default(), &self.shutdown);
    }

    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        (&mut self.served).await.expect("no panic").expect("served");
    }

    pub fn reservation(&self, instance_id: InstanceId) -> pb::PortReservation {
        pb::PortReservation {
            nic: Some(cluster::NicRequest {
                port_id: PortId::new().to_string(),
                network_id: self.network_id.to_string(),
                ..Default::default()
            }),
            instance_id: instance_id.to_string(),
            project_id: self.project_id.to_string(),
            hostname: "Web".into(),
        }
    }

    pub async fn reserve(&self, ports: &[pb::PortReservation]) -> Result<Vec<cluster::Nic>, Problem> {
        self.reserve_for(ports, 0, false).await
    }

    pub async fn reserve_for(
        &self,
        ports: &[pb::PortReservation],
        ttl_secs: u32,
        dry_run: bool,
    ) -> Result<Vec<cluster::Nic>, Problem> {
        let context = CallContext { dry_run, ..CallContext::system("test") };
        let request = context.request(pb::ReservePortsRequest { ports: ports.to_vec(), ttl_secs });
        let answer = self.client.clone().reserve_ports(request).await.map_err(|s| from_status(&s))?;
        Ok(answer.into_inner().nics)
    }

    pub async fn bind(
        &self,
        port_id: &str,
        instance_id: InstanceId,
        host_id: HostId,
        instance_epoch: i64,
        digest: &str,
    ) -> Result<pb::BindPortsResponse, Problem> {
        let binding = pb::PortBinding {
            port_id: port_id.to_owned(),
            instance_id: instance_id.to_string(),
            host_id: host_id.to_string(),
            instance_epoch,
            metadata_digest: digest.to_owned(),
            hostname: "web".into(),
        };
        let answer = self.client.clone().bind_ports(pb::BindPortsRequest { ports: vec![binding] }).await;
        answer.map(tonic::Response::into_inner).map_err(|s| from_status(&s))
    }

    pub async fn release(&self, instance_id: InstanceId) {
        let request = pb::ReleasePortsRequest { instance_ids: vec![instance_id.to_string()] };
        self.client.clone().release_ports(request).await.expect("released");
    }

    pub async fn remove(&self, instance_id: InstanceId) {
        let request = pb::RemovePortsRequest { instance_ids: vec![instance_id.to_string()], ports: vec![] };
        self.client.clone().remove_ports(request).await.expect("removed");
    }

    /// A port that somebody made.
    pub async fn own_port(&self, called: &str) -> PortId {
        let id = PortId::new();
        let change = Change::create::<Port>(NewPort {
            id,
            network_id: self.network_id,
            name: called.parse().expect("a name"),
            mac: None,
            fixed_ips: vec![],
            allowed_addresses: vec![],
            any_address: false,
            security_group_ids: None,
            rate_limit: RateLimit::default(),
        });
        let request = pb::ApplyRequest {
            project_id: self.project_id.to_string(),
            expected_generation: 0,
            change_json: serde_json::to_string(&change).expect("JSON"),
        };
        self.client.clone().apply(CallContext::system("test").request(request)).await.expect("made");
        id
    }

    pub async fn used(&self) -> QuotaAmounts {
        self.store.quota_usage(self.project_id).await.expect("read")
    }

    pub async fn port(&self, id: &str) -> Option<domain::network::Port> {
        self.store.port_find(id.parse().expect("an id")).await.expect("read")
    }
}

fn serve(
    store: &TestStore,
    config: Config,
    shutdown: &CancellationToken,
) -> (ResourceManagerClient<Channel>, JoinHandle<anyhow::Result<()>>) {
    let (listener, target) = transport::in_process();
    let deps = Deps { store: store.store.clone(), listener };
    let served = tokio::spawn(resource_manager::serve(config, deps, shutdown.clone()));
    (ResourceManagerClient::new(target.channel().expect("a channel")), served)
}
