//! What a request about instances may say at all, before anything is looked up. Pure. Every wrong field is named at once, because a
//! caller who corrects one and learns of the next has to try as often as there are mistakes.

use crate::{
    app::instance_nic,
    v1::view::{
        instance_request::{InstanceChange, InstanceCreate, InstanceRebuild, InstanceResize, InstanceStop},
        nic::NicRequest,
        placement::PlacementRequest,
    },
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{
    ErrorKind, FieldError, Name, Problem,
    flavor::Size,
    instance::{InstanceState, OnCrash, OnHostLoss, Power},
    limits,
    placement::Fill,
};
use std::collections::BTreeMap;

/// The longest time that a stop may wait for the guest, seconds.
pub const STOP_TIMEOUT_SECS_MAX: u32 = 3600;
/// Longer than any id or name: what follows is cut from messages.
const KEY_BYTES_MAX: usize = 64;

/// Wrong fields, gathered.
#[derive(Debug, Default)]
pub struct Wrong(Vec<FieldError>);

impl Wrong {
    pub fn add(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), detail: detail.into() });
    }

    pub fn unless(&mut self, ok: bool, field: &str, detail: impl FnOnce() -> String) {
        if !ok {
            self.add(field, detail());
        }
    }

    /// The problem that names them all, if there are any.
    pub fn finish(self) -> Result<(), Problem> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let more = match self.0.len() {
            1 => String::new(),
            n => format!(" (and {} more: see errors)", n - 1),
        };
        let detail = format!("{}: {}{more}", first.field, first.detail);
        let mut problem = Problem::new(ErrorKind::InvalidArgument, "invalid_argument", detail);
        problem.errors = self.0;
        Err(problem)
    }
}

/// A size as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SizeAsked {
    /// A flavor's id or name.
    Flavor(String),
    Given {
        vcpus: u32,
        memory_mib: u64,
        disk_gib: Option<u64>,
    },
}

/// A create that says nothing impossible; ids and names in it are still to be looked up.
#[derive(Debug, Clone)]
pub struct CheckedCreate {
    pub names: Vec<Name>,
    /// `count` was given: the answer is a list, even of one.
    pub many: bool,
    pub fill: Fill,
    pub image: String,
    pub size: SizeAsked,
    pub ssh_keys: Vec<String>,
    pub user_data_base64: String,
    pub tags: BTreeMap<String, String>,
    pub on_crash: OnCrash,
    pub on_host_loss: OnHostLoss,
    pub zone: Option<String>,
    pub placement: PlacementRequest,
    pub power: Power,
    pub networks: Option<Vec<NicRequest>>,
}

pub fn create(body: &InstanceCreate) -> Result<CheckedCreate, Problem> {
    let mut wrong = Wrong::default();
    let names = check_names(&mut wrong, &body.name, body.count);
    let counted = body.count.is_some() || body.fill.is_none();
    wrong.unless(counted, "/fill", || "only with count".to_owned());
    check_key(&mut wrong, "/image", &body.image);
    let size = check_size_asked(&mut wrong, body);
    let most = limits::SSH_KEYS_PER_INSTANCE;
    wrong.unless(body.ssh_keys.len() <= most, "/ssh_keys", || format!("at most {most}"));
    for (i, key) in body.ssh_keys.iter().enumerate() {
        check_key(&mut wrong, &format!("/ssh_keys/{i}"), key);
    }
    let user_data_base64 = check_user_data(&mut wrong, body);
    check_tags(&mut wrong, &body.tags);
    if let Some(zone) = &body.zone {
        check_name(&mut wrong, "/zone", zone);
    }
    check_placement(&mut wrong, &body.placement);
    instance_nic::check_all(&mut wrong, body.networks.as_ref(), names.len());
    let power = body.power.unwrap_or_default();
    wrong.unless(power != Power::Paused, "/power", || "on or off: a new instance can't be paused".to_owned());
    wrong.finish()?;
    Ok(CheckedCreate {
        names,
        many: body.count.is_some(),
        fill: body.fill.unwrap_or(Fill::AllOrNothing),
        image: body.image.clone(),
        // Both are there when nothing was wrong.
        size: size.unwrap_or(SizeAsked::Flavor(String::new())),
        ssh_keys: body.ssh_keys.clone(),
        user_data_base64,
        tags: body.tags.clone(),
        on_crash: body.on_crash.unwrap_or_default(),
        on_host_loss: body.on_host_loss.unwrap_or_default(),
        zone: body.zone.clone(),
        placement: body.placement.clone(),
        power,
        networks: body.networks.clone(),
    })
}

fn check_placement(wrong: &mut Wrong, asked: &PlacementRequest) {
    let most = limits::PLACEMENT_GROUPS_PER_INSTANCE;
    wrong.unless(asked.groups.len() <= most, "/placement/groups", || format!("at most {most}"));
    for (i, group) in asked.groups.iter().enumerate() {
        check_key(wrong, &format!("/placement/groups/{i}"), group);
    }
    for (field, tags) in [("required_tags", &asked.required_tags), ("forbidden_tags", &asked.forbidden_tags)] {
        let field = format!("/placement/{field}");
        let most = limits::PLACEMENT_TAGS_PER_INSTANCE;
        wrong.unless(tags.len() <= most, &field, || format!("at most {most}"));
        for (key, value) in tags {
            let ok = (1..=limits::TAG_KEY_BYTES).contains(&key.len()) && value.len() <= limits::TAG_VALUE_BYTES;
            wrong.unless(ok, &field, || "a tag that no host can have: its key is empty, or it is too long".to_owned());
        }
    }
    let both = asked.required_tags.iter().find(|(key, value)| asked.forbidden_tags.get(*key) == Some(value));
    if let Some((key, value)) = both {
        wrong.add("/placement/forbidden_tags", format!("{key}={value} is required and forbidden at once"));
    }
    let most = limits::CPU_FEATURES_PER_INSTANCE;
    wrong.unless(asked.cpu_features.len() <= most, "/placement/cpu_features", || format!("at most {most}"));
    for (i, feature) in asked.cpu_features.iter().enumerate() {
        let ok =
            (1..=limits::CPU_FEATURE_BYTES).contains(&feature.len()) && feature.bytes().all(|b| b.is_ascii_graphic());
        wrong.unless(ok, &format!("/placement/cpu_features/{i}"), || "a name as in /proc/cpuinfo".to_owned());
    }
}

pub fn change(body: &InstanceChange) -> Result<(), Problem> {
    let mut wrong = Wrong::default();
    if let Some(name) = &body.name {
        check_name(&mut wrong, "/name", name);
    }
    if let Some(tags) = &body.tags {
        check_tags(&mut wrong, tags);
    }
    wrong.finish()
}

/// How long the guest may take; `None` is the instance's own time.
pub fn stop(body: &InstanceStop) -> Result<Option<u32>, Problem> {
    let mut wrong = Wrong::default();
    let too_long = body.timeout_secs.is_some_and(|secs| secs > STOP_TIMEOUT_SECS_MAX);
    wrong.unless(!too_long, "/timeout_secs", || format!("0 to {STOP_TIMEOUT_SECS_MAX}"));
    let both = body.hard && body.timeout_secs.is_some_and(|secs| secs > 0);
    wrong.unless(!both, "/hard", || "a hard stop waits for nothing: give hard or timeout_secs".to_owned());
    wrong.finish()?;
    Ok(if body.hard { Some(0) } else { body.timeout_secs })
}

/// A flavor, or the present size with what is named replaced.
pub fn resize(body: &InstanceResize) -> Result<(), Problem> {
    let mut wrong = Wrong::default();
    let sizes = body.vcpus.is_some() || body.memory_mib.is_some() || body.disk_gib.is_some();
    match &body.flavor {
        Some(flavor) => {
            check_key(&mut wrong, "/flavor", flavor);
            wrong.unless(!sizes, "/flavor", || "give a flavor or sizes, not both".to_owned());
        }
        None => wrong
            .unless(sizes, "/flavor", || "give a flavor, or at least one of vcpus, memory_mib, disk_gib".to_owned()),
    }
    check_sizes(&mut wrong, body.vcpus, body.memory_mib, body.disk_gib);
    wrong.finish()
}

pub fn rebuild(body: &InstanceRebuild) -> Result<(), Problem> {
    let mut wrong = Wrong::default();
    if let Some(image) = &body.image {
        check_key(&mut wrong, "/image", image);
    }
    wrong.finish()
}

/// The instance's present size with what the request names in its place.
#[must_use]
pub fn resized(now: Size, body: &InstanceResize) -> Size {
    Size {
        vcpus: body.vcpus.unwrap_or(now.vcpus),
        memory_mib: body.memory_mib.unwrap_or(now.memory_mib),
        disk_gib: body.disk_gib.unwrap_or(now.disk_gib),
    }
}

/// `on_host_loss: restart` needs disks that outlive the host.
pub fn check_host_loss(on_host_loss: OnHostLoss, size: Size) -> Result<(), Problem> {
    if on_host_loss == OnHostLoss::Restart && size.disk_gib > 0 {
        return Err(Problem::new(
            ErrorKind::InvalidState,
            "local_disk",
            "on_host_loss: restart needs disks that outlive the host, and this root disk is on the host's local pool",
        )
        .with_hint("use on_host_loss: recreate or wait, or an image that runs from memory with disk_gib 0")
        .with_field("/on_host_loss", "restart isn't possible with a root disk on a local pool"));
    }
    Ok(())
}

fn check_name(wrong: &mut Wrong, field: &str, text: &str) {
    if let Err(error) = text.parse::<Name>() {
        wrong.add(field, error.to_string());
    }
}

/// An id or a name of something that is looked up later.
pub fn check_key(wrong: &mut Wrong, field: &str, text: &str) {
    wrong.unless((1..=KEY_BYTES_MAX).contains(&text.len()), field, || "an id or a name is expected".to_owned());
}

/// `name`, or `name-1` to `name-N`.
fn check_names(wrong: &mut Wrong, name: &str, count: Option<u32>) -> Vec<Name> {
    let parsed = name.parse::<Name>();
    if let Err(error) = &parsed {
        wrong.add("/name", error.to_string());
    }
    let Some(count) = count else { return parsed.into_iter().collect() };
    if !(1..=limits::CREATE_COUNT).contains(&count) {
        wrong.add("/count", format!("1 to {}", limits::CREATE_COUNT));
        return Vec::new();
    }
    let numbered: Result<Vec<Name>, _> = (1..=count).map(|i| format!("{name}-{i}").parse()).collect();
    match (parsed, numbered) {
        (Ok(_), Ok(names)) => names,
        (Ok(_), Err(_)) => {
            wrong.add("/name", format!("with -{count} behind it, it is longer than a name may be"));
            Vec::new()
        }
        (Err(_), _) => Vec::new(),
    }
}

fn check_sizes(wrong: &mut Wrong, vcpus: Option<u32>, memory_mib: Option<u64>, disk_gib: Option<u64>) {
    let vcpus_ok = vcpus.is_none_or(|n| (1..=limits::VCPUS_MAX).contains(&n));
    wrong.unless(vcpus_ok, "/vcpus", || format!("1 to {}", limits::VCPUS_MAX));
    let memory = limits::MEMORY_MIB_MIN..=limits::MEMORY_MIB_MAX;
    let memory_ok = memory_mib.is_none_or(|n| memory.contains(&n));
    wrong.unless(memory_ok, "/memory_mib", || format!("{} to {}", memory.start(), memory.end()));
    let disk_ok = disk_gib.is_none_or(|n| n <= limits::DISK_GIB_MAX);
    wrong.unless(disk_ok, "/disk_gib", || format!("at most {}", limits::DISK_GIB_MAX));
}

fn check_size_asked(wrong: &mut Wrong, body: &InstanceCreate) -> Option<SizeAsked> {
    check_sizes(wrong, body.vcpus, body.memory_mib, body.disk_gib);
    let sizes = body.vcpus.is_some() || body.memory_mib.is_some() || body.disk_gib.is_some();
    match (&body.flavor, body.vcpus, body.memory_mib) {
        (Some(_), ..) if sizes => {
            wrong.add("/flavor", "give a flavor or sizes, not both");
            None
        }
        (Some(flavor), ..) => {
            check_key(wrong, "/flavor", flavor);
            Some(SizeAsked::Flavor(flavor.clone()))
        }
        (None, Some(vcpus), Some(memory_mib)) => Some(SizeAsked::Given { vcpus, memory_mib, disk_gib: body.disk_gib }),
        (None, ..) if !sizes => {
            wrong.add("/flavor", "give a flavor, or vcpus and memory_mib");
            None
        }
        (None, vcpus, memory_mib) => {
            wrong.unless(vcpus.is_some(), "/vcpus", || "is needed without a flavor".to_owned());
            wrong.unless(memory_mib.is_some(), "/memory_mib", || "is needed without a flavor".to_owned());
            None
        }
    }
}

/// As base64, however it came.
fn check_user_data(wrong: &mut Wrong, body: &InstanceCreate) -> String {
    let (field, bytes) = match (&body.user_data, &body.user_data_base64) {
        (None, None) => return String::new(),
        (Some(_), Some(_)) => {
            wrong.add("/user_data", "give user_data or user_data_base64, not both");
            return String::new();
        }
        (Some(text), None) => ("/user_data", text.as_bytes().to_vec()),
        (None, Some(text)) => match BASE64_STANDARD.decode(text) {
            Ok(bytes) => ("/user_data_base64", bytes),
            Err(error) => {
                wrong.add("/user_data_base64", format!("is not base64: {error}"));
                return String::new();
            }
        },
    };
    let most = limits::USER_DATA_BYTES;
    wrong.unless(bytes.len() <= most, field, || format!("{} bytes; at most {most}", bytes.len()));
    BASE64_STANDARD.encode(bytes)
}

/// Bounds of tags. A key has no `:` and no `=`, which the list's filter `tag=key:value` splits at.
pub fn check_tags(wrong: &mut Wrong, tags: &BTreeMap<String, String>) {
    wrong.unless(tags.len() <= limits::TAGS_PER_OBJECT, "/tags", || format!("at most {}", limits::TAGS_PER_OBJECT));
    for (key, value) in tags {
        let field = || format!("/tags/{}", key.replace('~', "~0").replace('/', "~1"));
        let plain = key.chars().all(|c| !c.is_control() && c != ':' && c != '=');
        if !(1..=limits::TAG_KEY_BYTES).contains(&key.len()) || !plain {
            let detail =
                format!("a tag's key has 1 to {} bytes without ':', '=' and control characters", limits::TAG_KEY_BYTES);
            wrong.add(field(), detail);
        } else if value.len() > limits::TAG_VALUE_BYTES || value.chars().any(char::is_control) {
            let detail =
                format!("a tag's value has at most {} bytes without control characters", limits::TAG_VALUE_BYTES);
            wrong.add(field(), detail);
        }
    }
}

/// `?state=` given once or often, each a state or several with commas.
pub fn states(wrong: &mut Wrong, given: &[String]) -> Vec<InstanceState> {
    let mut states = Vec::new();
    for text in given.iter().flat_map(|t| t.split(',')).map(str::trim).filter(|t| !t.is_empty()) {
        match InstanceState::parse(text) {
            Some(state) => states.push(state),
            None => {
                let all: Vec<_> = InstanceState::ALL.iter().map(|s| s.as_str()).collect();
                wrong.add("state", format!("one of {} is expected", all.join(", ")));
                break;
            }
        }
    }
    states
}

/// `?tag=key:value` (or `key=value`), each.
pub fn tag_filters(wrong: &mut Wrong, given: &[String]) -> Vec<(String, String)> {
    let mut tags = Vec::new();
    for text in given {
        match text.split_once([':', '=']) {
            Some((key, value)) if !key.is_empty() => tags.push((key.to_owned(), value.to_owned())),
            _ => wrong.add("tag", "key:value is expected"),
        }
    }
    tags
}
