//! What a request about instances may say at all, before anything is looked up. Pure. The bounds and what is wrong with a
//! field are `domain::validate`'s, which the managers call too; here are the names of the fields, and what only this API knows.

use super::{check_key, nic};
use crate::app::instance::{CreateRequest, SizeRequest};
use api_types::{InstanceChange, InstanceCreate, InstanceRebuild, InstanceResize, InstanceStop, PlacementRequest};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{
    Name, Problem, Violations,
    flavor::Pinning,
    instance::{InstanceState, Power},
    limits,
    placement::{Fill, PlacementConstraints},
    validate,
};

pub fn create(body: InstanceCreate) -> Result<CreateRequest, Problem> {
    let mut violations = Violations::default();
    let names = check_names(&mut violations, &body.name, body.count);
    let counted = body.count.is_some() || body.fill.is_none();
    violations.unless(counted, "/fill", || "only with count".to_owned());
    check_key(&mut violations, "/image", &body.image);
    let size = check_size_request(&mut violations, &body);
    violations.at_most("/ssh_keys", body.ssh_keys.len(), limits::SSH_KEYS_PER_INSTANCE);
    for (i, key) in body.ssh_keys.iter().enumerate() {
        check_key(&mut violations, &format!("/ssh_keys/{i}"), key);
    }
    let user_data_base64 = check_user_data(&mut violations, &body);
    validate::tags(&mut violations, "/tags", &body.tags);
    if let Some(zone) = &body.zone {
        validate::name(&mut violations, "/zone", zone);
    }
    check_placement(&mut violations, &body.placement);
    let nics = nic::check_all(&mut violations, body.networks, names.len());
    let power = body.power.unwrap_or_default();
    violations.unless(power != Power::Paused, "/power", || "on or off: a new instance can't be paused".to_owned());
    violations.finish()?;
    Ok(CreateRequest {
        names,
        fill: body.fill.unwrap_or(Fill::AllOrNothing),
        image: body.image,
        // It is there when nothing is violated.
        size: size.ok_or_else(Problem::internal)?,
        ssh_keys: body.ssh_keys,
        user_data_base64,
        tags: body.tags,
        on_crash: body.on_crash.unwrap_or_default(),
        on_host_loss: body.on_host_loss.unwrap_or_default(),
        pool: body.pool.unwrap_or_default(),
        zone: body.zone,
        placement_groups: body.placement.groups,
        constraints: PlacementConstraints {
            pinning: Pinning::None,
            required_tags: body.placement.required_tags,
            forbidden_tags: body.placement.forbidden_tags,
            cpu_features: body.placement.cpu_features,
            groups: Vec::new(),
            dedicated: body.placement.dedicated,
            preemptible_class: body.placement.preemptible_class,
            rto_seconds: body.placement.rto_seconds,
        },
        power,
        nics,
    })
}

fn check_placement(violations: &mut Violations, requested: &PlacementRequest) {
    violations.at_most("/placement/groups", requested.groups.len(), limits::PLACEMENT_GROUPS_PER_INSTANCE);
    for (i, group) in requested.groups.iter().enumerate() {
        check_key(violations, &format!("/placement/groups/{i}"), group);
    }
    if let Some(secs) = requested.rto_seconds {
        violations.within("/placement/rto_seconds", secs, &limits::RTO_SECONDS);
    }
    let (required, forbidden) = (&requested.required_tags, &requested.forbidden_tags);
    validate::instance::host_tags(violations, "/placement/", required, forbidden);
    validate::instance::cpu_features(violations, "/placement/cpu_features", &requested.cpu_features);
}

pub fn change(body: &InstanceChange) -> Result<(), Problem> {
    let mut violations = Violations::default();
    if let Some(name) = &body.name {
        validate::name(&mut violations, "/name", name);
    }
    if let Some(tags) = &body.tags {
        validate::tags(&mut violations, "/tags", tags);
    }
    violations.finish()
}

/// How long the guest may take; `None` is the instance's own time.
pub fn stop(body: &InstanceStop) -> Result<Option<u32>, Problem> {
    let mut violations = Violations::default();
    validate::instance::stop_timeout(&mut violations, "/timeout_secs", body.timeout_secs.unwrap_or_default());
    let both = body.hard && body.timeout_secs.is_some_and(|secs| secs > 0);
    violations.unless(!both, "/hard", || "a hard stop doesn't wait: give either hard or timeout_secs".to_owned());
    violations.finish()?;
    Ok(if body.hard { Some(0) } else { body.timeout_secs })
}

/// A flavor, or the present size with what is named replaced.
pub fn resize(body: &InstanceResize) -> Result<(), Problem> {
    let mut violations = Violations::default();
    let sizes = body.vcpus.is_some() || body.memory_mib.is_some() || body.disk_gib.is_some();
    match &body.flavor {
        Some(flavor) => {
            check_key(&mut violations, "/flavor", flavor);
            violations.unless(!sizes, "/flavor", || "give a flavor or sizes, not both".to_owned());
        }
        None => violations
            .unless(sizes, "/flavor", || "give a flavor, or at least one of vcpus, memory_mib, disk_gib".to_owned()),
    }
    check_sizes(&mut violations, body.vcpus, body.memory_mib, body.disk_gib);
    violations.finish()
}

pub fn rebuild(body: &InstanceRebuild) -> Result<(), Problem> {
    let mut violations = Violations::default();
    if let Some(image) = &body.image {
        check_key(&mut violations, "/image", image);
    }
    violations.finish()
}

/// `name`, or `name-1` to `name-N`.
fn check_names(violations: &mut Violations, name: &str, count: Option<u32>) -> Vec<Name> {
    let parsed = name.parse::<Name>();
    if let Err(error) = &parsed {
        violations.add("/name", error.to_string());
    }
    let Some(count) = count else { return parsed.into_iter().collect() };
    if !(1..=limits::CREATE_COUNT).contains(&count) {
        violations.add("/count", format!("1 to {}", limits::CREATE_COUNT));
        return Vec::new();
    }
    let numbered: Result<Vec<Name>, _> = (1..=count).map(|i| format!("{name}-{i}").parse()).collect();
    match (parsed, numbered) {
        (Ok(_), Ok(names)) => names,
        (Ok(_), Err(_)) => {
            violations.add("/name", format!("with -{count} appended, the name is too long"));
            Vec::new()
        }
        (Err(_), _) => Vec::new(),
    }
}

fn check_sizes(violations: &mut Violations, vcpus: Option<u32>, memory_mib: Option<u64>, disk_gib: Option<u64>) {
    vcpus.into_iter().for_each(|n| validate::instance::vcpus(violations, "/vcpus", n));
    memory_mib.into_iter().for_each(|n| validate::instance::memory_mib(violations, "/memory_mib", n));
    disk_gib.into_iter().for_each(|n| validate::instance::disk_gib(violations, "/disk_gib", n));
}

fn check_size_request(violations: &mut Violations, body: &InstanceCreate) -> Option<SizeRequest> {
    check_sizes(violations, body.vcpus, body.memory_mib, body.disk_gib);
    let sizes = body.vcpus.is_some() || body.memory_mib.is_some() || body.disk_gib.is_some();
    match (&body.flavor, body.vcpus, body.memory_mib) {
        (Some(_), ..) if sizes => {
            violations.add("/flavor", "give a flavor or sizes, not both");
            None
        }
        (Some(flavor), ..) => {
            check_key(violations, "/flavor", flavor);
            Some(SizeRequest::Flavor(flavor.clone()))
        }
        (None, Some(vcpus), Some(memory_mib)) => {
            Some(SizeRequest::Given { vcpus, memory_mib, disk_gib: body.disk_gib })
        }
        (None, ..) if !sizes => {
            violations.add("/flavor", "give a flavor, or vcpus and memory_mib");
            None
        }
        (None, vcpus, memory_mib) => {
            violations.unless(vcpus.is_some(), "/vcpus", || "is needed without a flavor".to_owned());
            violations.unless(memory_mib.is_some(), "/memory_mib", || "is needed without a flavor".to_owned());
            None
        }
    }
}

/// The user data as base64, in whichever form it was given.
fn check_user_data(violations: &mut Violations, body: &InstanceCreate) -> String {
    let (field, bytes) = match (&body.user_data, &body.user_data_base64) {
        (None, None) => return String::new(),
        (Some(_), Some(_)) => {
            violations.add("/user_data", "give user_data or user_data_base64, not both");
            return String::new();
        }
        (Some(text), None) => ("/user_data", text.as_bytes().to_vec()),
        (None, Some(text)) => match BASE64_STANDARD.decode(text) {
            Ok(bytes) => ("/user_data_base64", bytes),
            Err(error) => {
                violations.add("/user_data_base64", format!("is not base64: {error}"));
                return String::new();
            }
        },
    };
    validate::instance::user_data(violations, field, &bytes);
    BASE64_STANDARD.encode(bytes)
}

/// `?state=` given once or often, each a state or several with commas.
pub fn states(violations: &mut Violations, given: &[String]) -> Vec<InstanceState> {
    let mut states = Vec::new();
    for text in given.iter().flat_map(|t| t.split(',')).map(str::trim).filter(|t| !t.is_empty()) {
        match InstanceState::parse(text) {
            Some(state) => states.push(state),
            None => {
                let all: Vec<_> = InstanceState::ALL.iter().map(|s| s.as_str()).collect();
                violations.add("state", format!("one of {} is expected", all.join(", ")));
                break;
            }
        }
    }
    states
}

/// `?tag=key:value` (or `key=value`), each.
pub fn tag_filters(violations: &mut Violations, given: &[String]) -> Vec<(String, String)> {
    let mut tags = Vec::new();
    for text in given {
        match text.split_once([':', '=']) {
            Some((key, value)) if !key.is_empty() => tags.push((key.to_owned(), value.to_owned())),
            _ => violations.add("tag", "key:value is expected"),
        }
    }
    tags
}
