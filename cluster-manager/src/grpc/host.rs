//! The calls about hosts: parsed into domain types, and answered.

use super::execute_once;
use crate::{
    host::{
        admission::{
            AdmittedHost, Certificate,
            join::{self, JoinRequest},
            remove::{self, RemovedHost},
            token::{self, CreatedToken, DeletedToken, TokenRequest},
        },
        capacity,
        change::{self, ChangedHost, HostChange},
        rebalance::{self, RebalanceGoal},
    },
    manager::Manager,
    outcome::Outcome,
    recovery::{
        Proof,
        verdict::{self, DeclaredLost},
    },
    scheduler::resident::MoveLimits,
};
use domain::{
    Name, Problem,
    flavor::{Pinning, Size},
    host::AgentRole,
    limits, validate,
};
use proto::{
    cluster::v1 as pb,
    convert::{parse, parse_optional, size_from_pb},
};
use service_kit::context::CallContext;

const SIZES_MAX: usize = 1000;

pub async fn change(
    manager: &Manager,
    context: &CallContext,
    request: pb::ChangeHostRequest,
) -> Result<pb::ChangeHostResponse, Problem> {
    let host_id = parse("host_id", &request.host_id)?;
    let expected = expected_generation(request.expected_generation);
    let change = parse_change(request)?;
    execute_once(manager, context, change::change(manager, context, host_id, expected, &change)).await
}

fn parse_change(request: pb::ChangeHostRequest) -> Result<HostChange, Problem> {
    Ok(HostChange {
        cordoned: request.cordoned,
        cordon_reason: request.cordon_reason,
        draining: request.draining,
        dedicated_to: request.dedicated_to.map(|project| parse_optional("dedicated_to", &project)).transpose()?,
        zone: request.zone.map(|zone| parse("zone", &zone)).transpose()?,
        tags: request.replace_tags.then(|| request.tags.into_iter().collect()),
        cpu_overcommit_permille: request.cpu_overcommit_permille,
        memory_overcommit_permille: request.memory_overcommit_permille,
        disk_overcommit_permille: request.disk_overcommit_permille,
        reserved_vcpus: request.reserved_vcpus,
        reserved_memory_mib: request.reserved_memory_mib,
        reserved_disk_gib: request.reserved_disk_gib,
        accept_loss: request.accept_loss,
        accept_capacity: request.accept_capacity,
    })
}

fn expected_generation(generation: i64) -> Option<i64> {
    (generation != 0).then_some(generation)
}

pub async fn remove(
    manager: &Manager,
    context: &CallContext,
    request: pb::RemoveHostRequest,
) -> Result<pb::RemoveHostResponse, Problem> {
    let host_id = parse("host_id", &request.host_id)?;
    let expected = expected_generation(request.expected_generation);
    execute_once(manager, context, remove::remove(manager, context, host_id, expected)).await
}

pub async fn declare_lost(
    manager: &Manager,
    context: &CallContext,
    request: pb::DeclareHostLostRequest,
) -> Result<pb::DeclareHostLostResponse, Problem> {
    let host_id = parse("host_id", &request.host_id)?;
    execute_once(manager, context, verdict::declare(manager, context, host_id, Proof::Declared)).await
}

pub async fn create_token(
    manager: &Manager,
    context: &CallContext,
    request: pb::CreateHostTokenRequest,
) -> Result<pb::CreateHostTokenResponse, Problem> {
    let named = |field: &str, text: &str| match text {
        "" => Ok(None),
        text => text.parse::<Name>().map(Some).map_err(|e| Problem::invalid(field, e.to_string())),
    };
    let request = TokenRequest {
        id: parse("token_id", &request.token_id)?,
        secret_sha256: request.secret_sha256,
        host_name: named("/name", &request.host_name)?,
        zone: named("/zone", &request.zone)?,
        ttl_secs: request.ttl_secs,
    };
    execute_once(manager, context, token::create(manager, context, request)).await
}

pub async fn delete_token(
    manager: &Manager,
    context: &CallContext,
    request: pb::DeleteHostTokenRequest,
) -> Result<pb::DeleteHostTokenResponse, Problem> {
    let id = parse("token_id", &request.token_id)?;
    execute_once(manager, context, token::delete(manager, context, id)).await
}

pub async fn admit(
    manager: &Manager,
    context: &CallContext,
    request: pb::AdmitHostRequest,
) -> Result<pb::AdmitHostResponse, Problem> {
    let role = AgentRole::parse(&request.role)
        .ok_or_else(|| Problem::invalid("/role", "must be compute-agent or network-agent"))?;
    let request = JoinRequest {
        host_id: parse("host_id", &request.host_id)?,
        role,
        name: request.name,
        csr_pem: request.csr_pem,
        secret_sha256: Some(request.secret_sha256).filter(|hash| !hash.is_empty()),
    };
    let AdmittedHost { host_id, name, certificate, links } = join::admit(manager, context, request).await?;
    Ok(pb::AdmitHostResponse {
        host_id: host_id.to_string(),
        name,
        certificate: Some(certificate_to_pb(certificate)),
        cluster_url: links.cluster_url,
        storage_url: links.storage_url,
        resource_url: links.resource_url,
    })
}

pub fn certificate_to_pb(certificate: Certificate) -> pb::HostCertificate {
    pb::HostCertificate { certificate_pem: certificate.certificate_pem, ca_pem: certificate.ca_pem }
}

pub async fn read_capacity(
    manager: &Manager,
    _: &CallContext,
    request: pb::ReadCapacityRequest,
) -> Result<pb::ReadCapacityResponse, Problem> {
    if request.sizes.len() > SIZES_MAX {
        return Err(Problem::invalid("sizes", format!("at most {SIZES_MAX}")));
    }
    let pinnings =
        request.pinnings.iter().map(|text| Pinning::parse(text)).chain(std::iter::repeat(Some(Pinning::None)));
    let requested = request.sizes.iter().zip(pinnings);
    let sizes: Vec<(Size, Pinning)> = requested
        .map(|(size, pinning)| Some((size_from_pb(*size), pinning?)))
        .collect::<Option<_>>()
        .ok_or_else(|| Problem::invalid("pinnings", "must be none or numa"))?;
    let zones = capacity::read_capacity(manager, sizes).await?;
    Ok(pb::ReadCapacityResponse { zones_json: to_json(&zones)? })
}

pub async fn plan_rebalance(
    manager: &Manager,
    _: &CallContext,
    request: pb::PlanRebalanceRequest,
) -> Result<pb::PlanRebalanceResponse, Problem> {
    validate::check(|v| {
        v.within("moves_max", request.moves_max, &(1..=limits::REBALANCE_MOVES));
        v.within("moves_per_host_max", request.moves_per_host_max, &(1..=limits::REBALANCE_MOVES));
        v.within("tolerance_permille", request.tolerance_permille, &(0..=1000));
    })?;
    let limits = MoveLimits { moves: request.moves_max as usize, moves_per_host: request.moves_per_host_max as usize };
    let goal = match request.goal() {
        pb::RebalanceGoal::Unspecified | pb::RebalanceGoal::FreeHosts => RebalanceGoal::FreeHosts,
        pb::RebalanceGoal::EvenLoad => RebalanceGoal::EvenLoad { tolerance_permille: request.tolerance_permille },
    };
    let plan = rebalance::plan_rebalance(manager, goal, limits).await?;
    Ok(pb::PlanRebalanceResponse { plan_json: to_json(&plan)? })
}

fn to_json(value: &impl serde::Serialize) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|error| {
        tracing::error!(%error, "an answer can't be written as JSON");
        Problem::internal()
    })
}

impl Outcome for ChangedHost {
    type Answer = pb::ChangeHostResponse;

    fn answer(&self) -> Self::Answer {
        pb::ChangeHostResponse { host_id: self.host_id.to_string(), generation: self.generation }
    }
}

impl Outcome for RemovedHost {
    type Answer = pb::RemoveHostResponse;

    fn answer(&self) -> Self::Answer {
        pb::RemoveHostResponse { host_id: self.0.to_string() }
    }
}

impl Outcome for DeclaredLost {
    type Answer = pb::DeclareHostLostResponse;

    fn answer(&self) -> Self::Answer {
        let Self { host_id, already, recreated, restarted, waiting, deleted, ref lines } = *self;
        let (host_id, lines) = (host_id.to_string(), lines.clone());
        pb::DeclareHostLostResponse { host_id, already, recreated, restarted, waiting, deleted, lines }
    }
}

impl Outcome for CreatedToken {
    type Answer = pb::CreateHostTokenResponse;

    fn answer(&self) -> Self::Answer {
        pb::CreateHostTokenResponse {
            token_id: self.id.to_string(),
            expires_at: self.expires_at.0,
            ca_sha256: self.ca_sha256.clone(),
        }
    }
}

impl Outcome for DeletedToken {
    type Answer = pb::DeleteHostTokenResponse;

    fn answer(&self) -> Self::Answer {
        pb::DeleteHostTokenResponse {}
    }
}
