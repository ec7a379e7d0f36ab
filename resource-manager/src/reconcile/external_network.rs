//! The external networks of the configuration are created, or brought up to date, at each start.

use crate::{
    Manager,
    grpc::apply::{ChangeRequest, apply},
};
use domain::{
    ExternalNetworkId,
    network::{Change, ExternalNetwork, ExternalNetworkPatch, NewExternalNetwork},
};
use service_kit::context::CallContext;

/// What can't be done (the configuration no longer has a block that is in use) is logged, and stays as it was.
pub(crate) async fn ensure(manager: &Manager) {
    for (name, subnets) in manager.config.external_networks() {
        let existing = manager.topology().external_networks().find(|external| external.name == name).cloned();
        let change = match existing {
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
        match apply(manager, &CallContext::system("configuration"), &ChangeRequest::new(change, None)).await {
            Ok(outcome) => tracing::info!(summary = outcome.summary, "an external network of the configuration"),
            Err(problem) => {
                tracing::error!(%name, problem = problem.detail, "an external network can't be made as the configuration has it");
            }
        }
    }
}
