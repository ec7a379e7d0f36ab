//! What the gateway does, whatever the API's dialect: one module for each kind of object, on neutral requests and domain types. Nothing here knows a
//! view, a status or a header. `App` holds what they work with: the store, the other services, authentication, events.

pub mod account;
pub mod api_key;
pub mod backup;
pub mod capacity;
pub mod catalog;
pub mod console;
pub mod console_log;
pub mod console_ticket;
pub mod event_stream;
pub mod events;
pub mod explain;
pub mod flavor;
pub mod host;
pub mod host_token;
pub mod idempotency;
pub mod image;
pub mod image_upload;
pub mod instance;
pub mod instance_list;
pub mod instance_load;
pub mod instance_nic;
pub mod instance_wait;
pub mod intent;
pub mod manager;
pub mod member;
pub mod mutate;
pub mod network;
pub mod page;
pub mod placement_group;
pub mod placement_record;
pub mod plan;
pub mod project;
pub mod quota;
pub mod readiness;
pub mod recovery;
pub mod ssh_key;
pub mod sweep;
pub mod user;
pub mod wait;

use crate::{auth::Auth, config::Config};
use catalog::Catalog;
use domain::UserId;
use events::EventHub;
use idempotency::{KeyCounts, KeyName};
use instance_load::InstanceLoader;
use operation::InFlight;
use proto::{
    cluster::v1::cluster_manager_client::ClusterManagerClient,
    resource::v1::resource_manager_client::ResourceManagerClient,
    storage::v1::storage_manager_client::StorageManagerClient,
};
use readiness::Cached;
use service_kit::{
    metrics::MetricsHandle,
    share::{Pool, SharedPool},
};
use std::sync::Arc;
use store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Channel;

/// The services behind the API.
#[derive(Clone)]
pub struct Services {
    pub cluster: Channel,
    pub storage: Channel,
    pub resource: Channel,
}

/// A cheap handle, given to every route as its state.
#[derive(Clone)]
pub struct App(Arc<Inner>);

pub struct Inner {
    config: Config,
    store: Store,
    cluster: ClusterManagerClient<Channel>,
    storage: StorageManagerClient<Channel>,
    resource: ResourceManagerClient<Channel>,
    /// The same services, for the readiness check.
    services: Services,
    auth: Auth,
    events: EventHub,
    in_flight: InFlight<KeyName>,
    key_counts: KeyCounts,
    catalog: Catalog,
    instances: InstanceLoader,
    /// One backup is made at a time.
    backup_turn: Arc<tokio::sync::Mutex<()>>,
    waits: SharedPool<UserId>,
    readiness: Cached,
    metrics: MetricsHandle,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl App {
    pub fn new(
        config: Config,
        store: Store,
        services: Services,
        auth: Auth,
        metrics: MetricsHandle,
        shutdown: CancellationToken,
    ) -> Self {
        let events = EventHub::new(store.clone(), &config.api);
        let instances = InstanceLoader::new(store.clone());
        let max = proto::MESSAGE_BYTES_MAX;
        let Services { cluster, storage, resource } = services.clone();
        Self(Arc::new(Inner {
            services,
            cluster: ClusterManagerClient::new(cluster).max_decoding_message_size(max).max_encoding_message_size(max),
            storage: StorageManagerClient::new(storage).max_decoding_message_size(max).max_encoding_message_size(max),
            resource: ResourceManagerClient::new(resource)
                .max_decoding_message_size(max)
                .max_encoding_message_size(max),
            waits: SharedPool::new(Pool::Waits, config.api.max_waits),
            readiness: Cached::default(),
            key_counts: KeyCounts::new(config.api.idempotency_keys_per_principal),
            config,
            store,
            auth,
            events,
            in_flight: InFlight::default(),
            catalog: Catalog::default(),
            instances,
            backup_turn: Arc::default(),
            metrics,
            shutdown,
            tasks: TaskTracker::new(),
        }))
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    #[must_use]
    pub fn backup_turn(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.0.backup_turn)
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// A client of the cluster-manager; cloning a channel is cheap, the connection is shared.
    #[must_use]
    pub fn cluster(&self) -> ClusterManagerClient<Channel> {
        self.0.cluster.clone()
    }

    #[must_use]
    pub fn storage(&self) -> StorageManagerClient<Channel> {
        self.0.storage.clone()
    }

    #[must_use]
    pub fn resource(&self) -> ResourceManagerClient<Channel> {
        self.0.resource.clone()
    }

    pub(crate) fn services(&self) -> &Services {
        &self.0.services
    }

    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.0.auth
    }

    /// The images, flavors and keys behind their names.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }

    /// Reads rows for all who wait for instances.
    #[must_use]
    pub fn instances(&self) -> &InstanceLoader {
        &self.0.instances
    }

    /// The places of requests that wait.
    #[must_use]
    pub fn waits(&self) -> &SharedPool<UserId> {
        &self.0.waits
    }

    /// The last answer of the readiness check.
    pub(crate) fn readiness(&self) -> &Cached {
        &self.0.readiness
    }

    /// How many idempotency keys principals have.
    pub(crate) fn key_counts(&self) -> &KeyCounts {
        &self.0.key_counts
    }

    #[must_use]
    pub fn events(&self) -> &EventHub {
        &self.0.events
    }

    #[must_use]
    pub fn metrics(&self) -> &MetricsHandle {
        &self.0.metrics
    }

    /// Ends when the process is asked to stop: streams end with it.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    /// For tasks that outlive their request (WebSockets, pumps): a stop waits for them.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// The idempotency keys that are being worked on.
    pub(crate) fn in_flight(&self) -> &InFlight<KeyName> {
        &self.0.in_flight
    }
}
