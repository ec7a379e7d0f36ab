//! The external networks of the configuration: made, or brought up to date, at each start.

use crate::{
    Manager,
    grpc::apply::{Wish, apply},
};
use domain::{
    ExternalNetworkId,
    network::{Change, ExternalNetwork, ExternalNetworkPatch, NewExternalNetwork},
};
use service_kit::context::CallContext;

/// What can't be done (a block that is in use is gone from the configuration) is said, and is as it was.
pub(crate) async fn ensure(manager: &Manager) {
    for (name, subnets) in manager.config.external_networks() {
        let there = manager.topology().external_networks().find(|external| external.name == name).cloned();
        let change = match there {
            Some(external) if external.subnets == subnets => continue,
            Some(external) => {
                let patch = ExternalNetworkPatch { description: None, subnets: Some(subnets) };
                Change::update::<ExternalNetwork>(external.id, patch)
            }
            None => Change::create::<ExternalNetwork>(NewExternalNetwork {
                id: ExternalNetworkId::new(),
                name: name.clone(),
                description: "of the configuration".to_owned(),
                subnets,
            }),
        };
        let wish = Wish { change, project_id: None, expected_generation: 0 };
        match apply(manager, &CallContext::system("configuration"), &wish).await {
            Ok(outcome) => tracing::info!(summary = outcome.summary, "an external network of the configuration"),
            Err(problem) => {
                tracing::error!(%name, problem = problem.detail, "an external network of the configuration can't be had as it is there");
            }
        }
    }
}
