//! The virtual resource manager: networks, subnets, ports, routers, floating IPs, security groups, and what each host must know of them.
//!
//! Tenants' changes come from the api-gateway ([`grpc`]); the ports of instances are reserved, bound, released and forgotten by the
//! cluster-manager, as disks are. Which address is free is the [`ipam`]'s proposal and the database's judgement. All rows are in memory
//! ([`topology`]), so that a change reaches the hosts that it concerns at once, by their network-agents' streams ([`link`]). What nobody
//! asks for, [`reconcile`] does.
//!
//! Writes the tables `external_network`, `network`, `subnet`, `router`, `uplink`, `security_group`, `security_rule`, `port`,
//! `port_security_group`, `floating_ip`, `peering`, `address`, `network_host`, `project_network_default`, `network_usage` and
//! `resource_operation`.

mod claim;
pub mod config;
mod failure;
mod grpc;
pub mod ipam;
pub mod link;
pub mod manager;
pub mod plan;
mod reconcile;
pub mod topology;

pub use config::Config;
pub use manager::Manager;

use anyhow::Context;
use grpc::ResourceService;
use link::NetworkLinkService;
use proto::{
    network::v1::network_link_server::NetworkLinkServer, resource::v1::resource_manager_server::ResourceManagerServer,
};
use service_kit::transport::{self, GrpcListener};
use std::sync::Arc;
use store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What it is given.
pub struct Deps {
    pub store: Store,
    pub listener: GrpcListener,
}

/// Serves until `shutdown`, then finishes the calls in progress.
pub async fn serve(config: Config, deps: Deps, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Deps { store, listener } = deps;
    let tasks = TaskTracker::new();
    let manager = Manager::load(config, store, tasks.clone(), shutdown.clone())
        .await
        .context("the networks can't be read from the database")?;
    let manager = Arc::new(manager);
    tasks.spawn(reconcile::run(Arc::clone(&manager)));
    let resources = ResourceManagerServer::new(ResourceService(Arc::clone(&manager)))
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    let agents = NetworkLinkServer::new(NetworkLinkService(manager))
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    let router = tonic::transport::Server::builder().add_service(resources).add_service(agents);
    let served = transport::serve(router, listener, shutdown.clone()).await;
    // The server may have ended by itself: then nothing else goes on either.
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    served.context("the resource-manager's server failed")
}
