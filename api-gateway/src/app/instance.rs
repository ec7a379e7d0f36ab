//! Instances: what a request means is settled here (names become ids, a flavor becomes numbers, new ids are minted), and the
//! cluster-manager does it. It owns them; reads go to the store.

use crate::{
    app::{
        App,
        catalog::shown,
        idempotency::IdempotencyRecord,
        instance_nic::{self, NicRequest},
        intent::Intent,
        network::find,
        placement_group,
        plan::{Done, Plan, QuotaLeft},
    },
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{
    ErrorKind, InstanceId, Name, PortId, Problem, ProjectId,
    explain::PlacementRecord,
    flavor::{Pinning, Size},
    image::{Image, ImageKind},
    instance::{DiskPool, Instance, InstanceSpec, OnCrash, OnHostLoss, Power, default_stop_timeout_secs},
    placement::{Fill, PlacementConstraints},
    validate,
};
use proto::{
    cluster::v1::{self as pb, change_instance_request::Change},
    convert::{instance_from_pb, on_crash_to_pb, power_to_pb, size_to_pb, spec_to_pb},
};
use std::collections::BTreeMap;
use store::OperationTable;
use uuid::Uuid;

/// The instance that `key` (an id or a name) means in the project, as it is now.
pub async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<Instance, ApiError> {
    let found = match key.parse::<InstanceId>() {
        Ok(id) => app.store().instance_find(Some(project_id), id).await?,
        Err(_) => app.store().instance_find_by_name(project_id, key).await?,
    };
    found.map(Instance::from).ok_or_else(|| not_found(key).into())
}

fn not_found(key: &str) -> Problem {
    Problem::not_found("instance", shown(key))
}

/// The id behind a key. An id needs no look: the cluster-manager checks that it is of the project.
async fn find_id(app: &App, project_id: ProjectId, key: &str) -> Result<InstanceId, ApiError> {
    match key.parse::<InstanceId>() {
        Ok(id) => Ok(id),
        Err(_) => Ok(find(app, project_id, key).await?.id),
    }
}

/// A size as requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SizeRequest {
    /// A flavor's id or name.
    Flavor(String),
    Given {
        vcpus: u32,
        memory_mib: u64,
        /// None: the smallest that the image needs.
        disk_gib: Option<u64>,
    },
}

/// New instances whose form was checked. Keys (ids or names) are still to be looked up.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    pub names: Vec<Name>,
    pub fill: Fill,
    pub image: String,
    pub size: SizeRequest,
    pub ssh_keys: Vec<String>,
    pub user_data_base64: String,
    pub tags: BTreeMap<String, String>,
    pub on_crash: OnCrash,
    pub on_host_loss: OnHostLoss,
    pub pool: DiskPool,
    pub zone: Option<String>,
    pub placement_groups: Vec<String>,
    /// The constraints without groups and pinning, which come from the groups' keys and the flavor.
    pub constraints: PlacementConstraints,
    pub power: Power,
    /// None: a NIC on the project's network `default`, if there is one.
    pub nics: Option<Vec<NicRequest>>,
}

/// The instances of one request, and those of its names that had no place.
pub struct Created {
    pub instances: Vec<Instance>,
    pub not_created: Option<NotCreated>,
}

/// Names for which no host was found, and why.
pub struct NotCreated {
    pub names: Vec<String>,
    pub record: PlacementRecord,
}

/// Creates instances: all or none, or as many as fit.
pub async fn create(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    requested: CreateRequest,
    intent: &Intent,
) -> Result<Done<Created>, ApiError> {
    let count = requested.names.len();
    let ports = count * instance_nic::ports_each(requested.nics.as_ref());
    // For each instance: itself, its root disk, and a port for each of its NICs.
    let record = IdempotencyRecord::open(app, caller, intent, 2 * count + ports, async { Ok(vec![]) }).await?;
    let answer = match record.first_answer::<pb::CreateInstancesResponse>(app, OperationTable::Compute).await? {
        Some(answer) => answer,
        None => {
            let spec = resolve(app, project_id, &requested).await?;
            let nics = instance_nic::resolve_all(app, project_id, requested.nics.as_ref()).await?;
            let request = create_request(project_id, &requested, &spec, &nics, &record.ids);
            let answer = app.cluster().create_instances(record.request(request)).await;
            answer.map_err(|status| refused(caller, &record, status))?.into_inner()
        }
    };
    if intent.dry_run {
        return Ok(Done::Plan(plan_of(caller, answer.plan, true)?));
    }
    let instances = answer.instances.into_iter().map(received).collect::<Result<_, _>>()?;
    let not_created = answer.not_made.map(not_created).transpose()?;
    Ok(Done::Change(Created { instances, not_created }))
}

fn not_created(not_made: pb::NotMade) -> Result<NotCreated, ApiError> {
    let record = serde_json::from_str(&not_made.placement_json)
        .map_err(|error| ApiError::internal("a refusal's placement doesn't parse", &error))?;
    Ok(NotCreated { names: not_made.names, record })
}

fn create_request(
    project_id: ProjectId,
    requested: &CreateRequest,
    spec: &InstanceSpec,
    nics: &[pb::NicRequest],
    ids: &[Uuid],
) -> pb::CreateInstancesRequest {
    let count = requested.names.len();
    let (instance_ids, rest) = ids.split_at(count.min(ids.len()));
    let (disk_ids, port_ids) = rest.split_at(count.min(rest.len()));
    let ports_each = instance_nic::ports_each(requested.nics.as_ref());
    let has_disk = spec.size.disk_gib > 0;
    let each = requested.names.iter().zip(instance_ids).zip(disk_ids).enumerate();
    let instances = each.map(|(at, ((name, id), disk))| pb::InstanceRequest {
        id: id.to_string(),
        name: name.to_string(),
        root_disk_id: if has_disk { disk.to_string() } else { String::new() },
        nics: instance_nic::with_ports(nics, port_ids.get(at * ports_each..).unwrap_or_default()),
    });
    pb::CreateInstancesRequest {
        project_id: project_id.to_string(),
        instances: instances.collect(),
        fill: match requested.fill {
            Fill::AllOrNothing => pb::Fill::AllOrNothing.into(),
            Fill::AsManyAsFit => pb::Fill::AsManyAsFit.into(),
        },
        spec: Some(spec_to_pb(spec)),
        tags: requested.tags.clone().into_iter().collect(),
    }
}

/// Ids and numbers for the names in a create.
async fn resolve(app: &App, project_id: ProjectId, requested: &CreateRequest) -> Result<InstanceSpec, ApiError> {
    let catalog = app.catalog();
    let image = catalog.image(app, project_id, &requested.image).await?;
    let (size, flavor, pinning) = match &requested.size {
        SizeRequest::Flavor(key) => {
            let flavor = catalog.flavor(app, key).await?;
            (flavor.size, flavor.name.to_string(), flavor.pinning)
        }
        SizeRequest::Given { vcpus, memory_mib, disk_gib } => {
            let disk_gib = disk_gib.unwrap_or_else(|| least_disk_gib(&image));
            (Size { vcpus: *vcpus, memory_mib: *memory_mib, disk_gib }, String::new(), Pinning::None)
        }
    };
    validate::instance::host_loss("/on_host_loss", requested.on_host_loss, requested.pool, size)?;
    let mut ssh_keys = Vec::with_capacity(requested.ssh_keys.len());
    for key in &requested.ssh_keys {
        ssh_keys.push(catalog.ssh_key(app, project_id, key).await?.public_key.clone());
    }
    let placement = PlacementConstraints { pinning, ..resolve_placement(app, project_id, requested).await? };
    Ok(InstanceSpec {
        size,
        flavor,
        image_id: image.id,
        power: requested.power,
        boot_seq: 0,
        boot_hard: false,
        root_seq: 0,
        stop_timeout_secs: default_stop_timeout_secs(),
        on_crash: requested.on_crash,
        on_host_loss: requested.on_host_loss,
        pool: requested.pool,
        ssh_keys,
        user_data_base64: requested.user_data_base64.clone(),
        zone: requested.zone.clone(),
        placement,
        nics: vec![],
        deleted: false,
    })
}

/// Ids for the names of placement groups.
async fn resolve_placement(
    app: &App,
    project_id: ProjectId,
    requested: &CreateRequest,
) -> Result<PlacementConstraints, ApiError> {
    let mut groups = Vec::with_capacity(requested.placement_groups.len());
    for (at, key) in requested.placement_groups.iter().enumerate() {
        let field = format!("/placement/groups/{at}");
        let group = find::in_field(&field, placement_group::find(app, project_id, key)).await?;
        groups.push(group.id);
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(PlacementConstraints { groups, ..requested.constraints.clone() })
}

/// The smallest root disk that the image runs with.
fn least_disk_gib(image: &Image) -> u64 {
    match image.kind {
        ImageKind::Disk => image.min_disk_gib.max(1),
        ImageKind::Kernel => 0,
    }
}

/// What is to be changed. Names in it are looked up once it is known that the request is no repeat.
pub enum ChangeRequest {
    Describe {
        name: Option<String>,
        /// Replaces all tags.
        tags: Option<BTreeMap<String, String>>,
        on_crash: Option<OnCrash>,
    },
    /// How long the guest may take to stop; None: the instance's own time.
    Power {
        power: Power,
        stop_timeout_secs: Option<u32>,
    },
    Reboot {
        hard: bool,
    },
    /// The instance gets the size of this flavor.
    ResizeToFlavor(String),
    /// The numbers that are given replace those of the present size.
    Resize {
        vcpus: Option<u32>,
        memory_mib: Option<u64>,
        disk_gib: Option<u64>,
    },
    /// The root disk is made of this image, or of the present one.
    Rebuild(Option<String>),
    AttachNic(NicRequest),
    /// The NIC with this port, by id or name.
    DetachNic(String),
}

/// Changes an instance.
pub async fn change(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    key: &str,
    intent: &Intent,
    requested: ChangeRequest,
) -> Result<Done<Instance>, ApiError> {
    // The instance, and the port of a NIC that may be attached.
    let existing = async { Ok(vec![find_id(app, project_id, key).await?.0]) };
    let record = IdempotencyRecord::open(app, caller, intent, 1, existing).await?;
    let id = known_id(&record)?;
    let answer = match record.first_answer::<pb::ChangeInstanceResponse>(app, OperationTable::Compute).await? {
        Some(answer) => answer,
        None => {
            let resizes = matches!(requested, ChangeRequest::Resize { .. } | ChangeRequest::ResizeToFlavor(_));
            let request = pb::ChangeInstanceRequest {
                project_id: project_id.to_string(),
                instance_id: id.to_string(),
                expected_generation: intent.expected_generation(),
                change: Some(resolve_change(app, project_id, id, &record.ids, requested).await?),
            };
            let answer = app.cluster().change_instance(record.request(request)).await;
            let answer = answer.map_err(|status| refused(caller, &record, status))?.into_inner();
            if intent.dry_run {
                return Ok(Done::Plan(plan_of(caller, answer.plan, resizes)?));
            }
            answer
        }
    };
    let instance = answer.instance.ok_or_else(unexpected)?;
    received(instance).map(Done::Change)
}

async fn resolve_change(
    app: &App,
    project_id: ProjectId,
    id: InstanceId,
    ids: &[Uuid],
    requested: ChangeRequest,
) -> Result<Change, ApiError> {
    match requested {
        ChangeRequest::Describe { name, tags, on_crash } => Ok(Change::Describe(pb::Describe {
            name,
            replace_tags: tags.is_some(),
            tags: tags.unwrap_or_default().into_iter().collect(),
            on_crash: on_crash.map(|c| on_crash_to_pb(c).into()),
        })),
        ChangeRequest::Power { power, stop_timeout_secs } => {
            Ok(Change::SetPower(pb::SetPower { power: power_to_pb(power).into(), stop_timeout_secs }))
        }
        ChangeRequest::Reboot { hard } => Ok(Change::Reboot(pb::Reboot { hard })),
        ChangeRequest::ResizeToFlavor(key) => resize_to_flavor(app, project_id, id, &key).await,
        ChangeRequest::Resize { vcpus, memory_mib, disk_gib } => {
            let now = find(app, project_id, &id.to_string()).await?.spec.size;
            let size = Size {
                vcpus: vcpus.unwrap_or(now.vcpus),
                memory_mib: memory_mib.unwrap_or(now.memory_mib),
                disk_gib: disk_gib.unwrap_or(now.disk_gib),
            };
            Ok(Change::Resize(pb::Resize { size: Some(size_to_pb(size)), flavor: String::new() }))
        }
        ChangeRequest::Rebuild(key) => {
            let image_id = match key {
                Some(key) => app.catalog().image(app, project_id, &key).await?.id,
                None => find(app, project_id, &id.to_string()).await?.spec.image_id,
            };
            Ok(Change::Rebuild(pb::Rebuild { image_id: image_id.to_string() }))
        }
        ChangeRequest::AttachNic(nic) => {
            let nic = instance_nic::resolve(app, project_id, "", &nic).await?;
            let filled = instance_nic::with_ports(&[nic], ids.get(1..).unwrap_or_default());
            filled.into_iter().next().map(Change::AttachNic).ok_or_else(unexpected)
        }
        ChangeRequest::DetachNic(key) => {
            let now = find(app, project_id, &id.to_string()).await?;
            let port_id = match key.parse::<PortId>() {
                Ok(port_id) => port_id,
                Err(_) => find::port(app, project_id, &key).await?.id,
            };
            if !now.spec.nics.iter().any(|nic| nic.port_id == port_id) {
                let detail = format!("instance {} has no NIC with the port {}", now.name, shown(&key));
                let problem = Problem::new(ErrorKind::NotFound, "nic_not_found", detail);
                return Err(problem.with_hint(format!("`iaasctl instance show {}` shows its NICs", now.name)).into());
            }
            Ok(Change::DetachNic(pb::DetachNic { port_id: port_id.to_string() }))
        }
    }
}

async fn resize_to_flavor(app: &App, project_id: ProjectId, id: InstanceId, key: &str) -> Result<Change, ApiError> {
    let flavor = app.catalog().flavor(app, key).await?;
    let now = find(app, project_id, &id.to_string()).await?;
    let pinning = now.spec.placement.pinning;
    if flavor.pinning != pinning {
        let (has, given) = (pinning.as_str(), flavor.pinning.as_str());
        let detail =
            format!("instance {} was created with pinning {has}, flavor {} has {given}", now.name, flavor.name);
        let problem = Problem::invalid("/flavor", detail);
        return Err(problem.with_hint("choose a flavor with the same pinning, or create another instance").into());
    }
    Ok(Change::Resize(pb::Resize { size: Some(size_to_pb(flavor.size)), flavor: flavor.name.to_string() }))
}

/// Deletes an instance. `None`: it is gone already.
pub async fn delete(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    key: &str,
    intent: &Intent,
) -> Result<Done<Option<Instance>>, ApiError> {
    let record =
        IdempotencyRecord::open(app, caller, intent, 0, async { Ok(vec![find_id(app, project_id, key).await?.0]) })
            .await?;
    let request = pb::DeleteInstanceRequest {
        project_id: project_id.to_string(),
        instance_id: known_id(&record)?.to_string(),
        expected_generation: intent.expected_generation(),
    };
    let answer = app.cluster().delete_instance(record.request(request)).await;
    let answer = answer.map_err(|status| refused(caller, &record, status))?.into_inner();
    if intent.dry_run {
        return Ok(Done::Plan(plan_of(caller, answer.plan, false)?));
    }
    answer.instance.map(received).transpose().map(Done::Change)
}

fn known_id(record: &IdempotencyRecord) -> Result<InstanceId, ApiError> {
    record.ids.first().map(|id| InstanceId(*id)).ok_or_else(unexpected)
}

/// What the cluster-manager refused. A refused placement names no host to a tenant.
fn refused(caller: &Caller, record: &IdempotencyRecord, status: tonic::Status) -> ApiError {
    let mut problem = record.refused(status).into_problem();
    if !caller.system_admin() {
        problem.explain = problem.explain.map(PlacementRecord::redacted);
    }
    if problem.kind == ErrorKind::InvalidArgument {
        // Its fields are the body's.
        for error in &mut problem.errors {
            if !error.field.starts_with('/') {
                error.field.insert(0, '/');
            }
        }
    }
    problem.into()
}

fn received(instance: pb::Instance) -> Result<Instance, ApiError> {
    instance_from_pb(instance).map_err(|error| ApiError::internal("the cluster-manager's answer can't be read", &error))
}

fn unexpected() -> ApiError {
    tracing::error!("the cluster-manager answered without the object");
    Problem::internal().into()
}

/// `claims`: the plan takes from the quota, so what would be left is worth saying.
fn plan_of(caller: &Caller, plan: Option<pb::Plan>, claims: bool) -> Result<Plan, ApiError> {
    let plan = plan.ok_or_else(unexpected)?;
    let placement = if plan.placement_json.is_empty() {
        None
    } else {
        let record: PlacementRecord = serde_json::from_str(&plan.placement_json)
            .map_err(|error| ApiError::internal("a plan's placement doesn't parse", &error))?;
        // Where it would go is decided anew when it is requested for: no host is promised.
        Some(if caller.system_admin() { record } else { record.redacted() })
    };
    Ok(Plan {
        summary: plan.summary,
        placement,
        quota_left: claims.then_some(QuotaLeft {
            instances: plan.instances_left,
            vcpus: plan.vcpus_left,
            memory_mib: plan.memory_mib_left,
            disk_gib: plan.disk_gib_left,
        }),
        changes: plan.touches,
    })
}
