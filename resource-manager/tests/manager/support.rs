//! A resource-manager to talk to.

use domain::{
    NetworkId, OperationId, Problem, ProjectId, SubnetId, Timestamp,
    network::{Change, ChangeOutcome, Network, NetworkObject, NewNetwork, NewSubnet, Subnet, SubnetSpec},
    quota::QuotaAmounts,
};
use proto::{
    resource::v1::{self as pb, resource_manager_client::ResourceManagerClient},
    status::from_status,
};
use resource_manager::{Config, Deps, config::ExternalNetworkConfig};
use service_kit::{context::CallContext, transport};
use std::{future::Future, time::Duration};
use store::{
    LeakKind, ProjectInsert, QuotaLimitPut, Unit,
    testing::{TestDatabase, TestStore},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// How long a condition may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct World {
    pub store: store::Store,
    /// Kept: it goes with the world.
    _database: TestDatabase,
    pub client: ResourceManagerClient<Channel>,
    pub project_id: ProjectId,
    config: Config,
    shutdown: CancellationToken,
    served: Option<JoinHandle<anyhow::Result<()>>>,
}

/// Room for a few of each.
pub const LIMIT: QuotaAmounts = QuotaAmounts {
    networks: 5,
    subnets: 10,
    ports: 40,
    routers: 3,
    floating_ips: 4,
    security_groups: 4,
    security_rules: 20,
    peerings: 3,
    ..QuotaAmounts::NONE
};

pub fn external(name: &str, cidr: &str, gateway: &str, allocation: &str) -> ExternalNetworkConfig {
    ExternalNetworkConfig {
        name: name.parse().expect("a name"),
        cidr: cidr.parse().expect("a CIDR"),
        gateway: gateway.parse().expect("an address"),
        allocation: vec![allocation.parse().expect("a range")],
    }
}

/// Without a check of memory by itself, so that tests choose their moments.
pub fn config() -> Config {
    Config {
        reconcile_interval_ms: 20,
        leak_check_secs: 0,
        external_networks: vec![external("public", "203.0.113.0/24", "203.0.113.1", "203.0.113.10-203.0.113.40")],
        ..Config::default()
    }
}

impl World {
    pub async fn one() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: Config) -> Self {
        let TestStore { store, database } = TestStore::sqlite().await;
        Self::on(store, database, config).await
    }

    /// One on each database.
    pub async fn each() -> Vec<Self> {
        let mut worlds = Vec::new();
        for TestStore { store, database } in TestStore::each().await {
            worlds.push(Self::on(store, database, config()).await);
        }
        worlds
    }

    async fn on(store: store::Store, database: TestDatabase, config: Config) -> Self {
        let (client, shutdown, served) = serve(&config, &store);
        let served = Some(served);
        let project_id = ProjectId::new();
        let mut world = Self { store, _database: database, client, project_id, config, shutdown, served };
        world.project_id = world.project("acme").await;
        world
    }

    /// As a crash and a new start.
    pub async fn restart(&mut self) {
        self.shutdown.cancel();
        if let Some(served) = self.served.take() {
            served.await.expect("no panic").expect("ended well");
        }
        let (client, shutdown, served) = serve(&self.config, &self.store);
        (self.client, self.shutdown, self.served) = (client, shutdown, Some(served));
    }

    pub async fn project(&self, called: &str) -> ProjectId {
        let id = ProjectId::new();
        let insert = ProjectInsert {
            id,
            name: called.parse().expect("a name"),
            description: String::new(),
            created_at: Timestamp::now(),
        };
        let unit = Unit::new().op(insert).op(QuotaLimitPut::new(id, &LIMIT, 0));
        self.store.commit(unit).await.expect("a project");
        id
    }

    /// Until its defaults are there.
    pub async fn defaults(&self) -> (NetworkId, domain::SecurityGroupId) {
        self.until(async || {
            let network = self.store.network_find_by_name(self.project_id, "default").await.expect("reads")?;
            let group = self.store.security_group_find_by_name(self.project_id, "default").await.expect("reads")?;
            Some((network.id, group.id))
        })
        .await
    }

    pub async fn try_apply_with(
        &self,
        context: CallContext,
        generation: i64,
        change: &Change,
    ) -> Result<ChangeOutcome, Problem> {
        let request = pb::ApplyRequest {
            project_id: self.project_id.to_string(),
            expected_generation: generation,
            change_json: serde_json::to_string(change).expect("JSON"),
        };
        let answer = self.client.clone().apply(context.request(request)).await;
        let answer = answer.map_err(|status| from_status(&status))?.into_inner();
        Ok(serde_json::from_str(&answer.outcome_json).expect("an outcome"))
    }

    pub async fn try_apply(&self, change: Change) -> Result<ChangeOutcome, Problem> {
        let context = CallContext { operation_id: Some(OperationId::new()), ..CallContext::system("test") };
        self.try_apply_with(context, 0, &change).await
    }

    #[track_caller]
    pub fn apply(&self, change: Change) -> impl Future<Output = NetworkObject> {
        let caller = std::panic::Location::caller();
        async move {
            match self.try_apply(change).await {
                Ok(outcome) => outcome.object.expect("an object"),
                Err(problem) => panic!("{caller}: {problem:?}"),
            }
        }
    }

    /// The code of the problem that refuses it.
    #[track_caller]
    pub fn refused(&self, change: Change) -> impl Future<Output = Problem> {
        let caller = std::panic::Location::caller();
        async move {
            match self.try_apply(change.clone()).await {
                Ok(outcome) => panic!("{caller}: it was to be refused: {change:?} gave {outcome:?}"),
                Err(problem) => {
                    assert!(!problem.detail.is_empty(), "{caller}");
                    problem
                }
            }
        }
    }

    pub async fn dry_run(&self, change: Change) -> Result<ChangeOutcome, Problem> {
        let context = CallContext { dry_run: true, ..CallContext::system("test") };
        self.try_apply_with(context, 0, &change).await
    }

    pub async fn network(&self, called: &str) -> NetworkId {
        let id = NetworkId::new();
        self.apply(Change::create::<Network>(NewNetwork {
            id,
            name: called.parse().expect("a name"),
            description: String::new(),
            mtu: None,
        }))
        .await;
        id
    }

    pub async fn subnet(&self, network_id: NetworkId, called: &str, cidr: &str, gateway: &str) -> SubnetId {
        let id = SubnetId::new();
        self.apply(subnet_create(id, network_id, called, cidr, gateway)).await;
        id
    }

    /// Tries until there is something.
    pub async fn until<T>(&self, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let waited = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, waited).await.expect("in time")
    }

    /// Nothing is left behind; instances aren't this test's.
    pub async fn assert_no_leaks(&self) {
        let leaks = self.store.leak_report().await.expect("reads");
        let ours: Vec<_> = leaks.into_iter().filter(|leak| leak.kind != LeakKind::PortWithoutInstance).collect();
        assert_eq!(ours, []);
    }
}

fn serve(
    config: &Config,
    store: &store::Store,
) -> (ResourceManagerClient<Channel>, CancellationToken, JoinHandle<anyhow::Result<()>>) {
    let (listener, target) = transport::in_process();
    let shutdown = CancellationToken::new();
    let deps = Deps { store: store.clone(), listener };
    let served = tokio::spawn(resource_manager::serve(config.clone(), deps, shutdown.clone()));
    let client = ResourceManagerClient::new(target.channel().expect("a channel"))
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    (client, shutdown, served)
}

pub fn subnet_create(id: SubnetId, network_id: NetworkId, called: &str, cidr: &str, gateway: &str) -> Change {
    Change::create::<Subnet>(NewSubnet {
        id,
        network_id,
        name: called.parse().expect("a name"),
        spec: SubnetSpec {
            cidr: cidr.parse().expect("a CIDR"),
            gateway: gateway.parse().expect("an address"),
            dns: vec![],
            allocation: vec![],
            host_routes: vec![],
        },
        dhcp: true,
    })
}
