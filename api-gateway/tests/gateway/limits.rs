//! The bounds of requests at both ends: for each limit in `domain::limits`, the REST API refuses one more and takes the most, and the manager
//! that decides, called directly over gRPC, does the same. A limit that is added to that file and named neither here nor below fails
//! the test, so that a bound can't be kept at one end alone.

use crate::{compute::Cloud, harness::answer};
use domain::{
    ErrorKind, ImageId, InstanceId, NetworkId, PlacementGroupId, PortId, Problem, SecurityGroupId, SecurityRuleId,
    SubnetId,
    instance::InstanceSpec,
    limits as l,
    network::{
        Change, Cidr, Direction, Ethertype, ExternalNetwork, FixedIpRequest, Match, Network, NewExternalNetwork,
        NewNetwork, NewPort, NewSecurityGroup, NewSubnet, Port, RateLimit, Remote, SecurityGroup, SecurityGroupRule,
        SecurityRule, Subnet, SubnetSpec,
    },
    placement::PlacementConstraints,
    testing,
};
use proto::{
    cluster::v1::{
        self as cluster, change_instance_request::Change as InstanceChange,
        cluster_manager_client::ClusterManagerClient,
    },
    convert::spec_to_pb,
    resource::v1::{self as resource, resource_manager_client::ResourceManagerClient},
    storage::v1::{self as storage, storage_manager_client::StorageManagerClient},
};
use reqwest::Method;
use serde_json::{Value, json};
use service_kit::context::CallContext;
use std::collections::{BTreeMap, BTreeSet};

/// Bounds of what only the gateway sees: pages, bodies, headers and waits.
const OF_THE_GATEWAY_ALONE: [&str; 5] =
    ["PAGE_DEFAULT", "PAGE_MAX", "BODY_BYTES", "IDEMPOTENCY_KEY_BYTES", "WAIT_SECS_MAX"];

/// What exists: requests name it.
struct There {
    project_id: String,
    host_id: String,
    image_id: ImageId,
    instance_id: String,
}

/// A request to a manager.
enum Call {
    Create(cluster::CreateInstancesRequest),
    ChangeInstance(cluster::ChangeInstanceRequest),
    ChangeHost(cluster::ChangeHostRequest),
    Rebalance(cluster::PlanRebalanceRequest),
    Network(Change),
    Ports(resource::PortReservation),
    Image(storage::CreateImageRequest),
}

type ManagerCall = Box<dyn Fn(&There, u64) -> Call>;

struct Limit {
    name: &'static str,
    /// The last value that is taken, and the first that is refused.
    takes: u64,
    refuses: u64,
    /// What the refusal names, the beginning of it: at the gateway (behind the first `/`, if it is a pointer), and at the manager.
    fields: (&'static str, &'static str),
    rest: Box<dyn Fn(u64) -> (Method, &'static str, Value)>,
    manager: ManagerCall,
}

fn limit(
    name: &'static str,
    most: u64,
    fields: (&'static str, &'static str),
    rest: impl Fn(u64) -> (Method, &'static str, Value) + 'static,
    manager: impl Fn(&There, u64) -> Call + 'static,
) -> Limit {
    Limit { name, takes: most, refuses: most + 1, fields, rest: Box::new(rest), manager: Box::new(manager) }
}

impl Limit {
    /// A lower bound, of the same requests.
    fn at_least(self, name: &'static str, least: u64) -> Self {
        Self { name, takes: least, refuses: least - 1, ..self }
    }
}

fn text(n: u64) -> String {
    "x".repeat(usize::try_from(n).expect("a length"))
}

fn numbered(n: u64, of: impl Fn(u64) -> String) -> Vec<String> {
    (0..n).map(of).collect()
}

fn tags(n: u64) -> BTreeMap<String, String> {
    (0..n).map(|i| (format!("k{i}"), "v".to_owned())).collect()
}

/// A create of one instance of these fields.
fn instance(more: Value) -> (Method, &'static str, Value) {
    let mut body = json!({"name": "a", "image": "linux"});
    if more["vcpus"].is_null() {
        body["flavor"] = "tiny".into();
    }
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    (Method::POST, "instances", body)
}

fn create(there: &There, change: impl FnOnce(&mut cluster::CreateInstancesRequest, &mut InstanceSpec)) -> Call {
    let mut spec = InstanceSpec { image_id: there.image_id, ..testing::spec() };
    spec.size.disk_gib = 0;
    let new = cluster::InstanceRequest { id: InstanceId::new().to_string(), name: "a".into(), ..Default::default() };
    let mut request = cluster::CreateInstancesRequest {
        project_id: there.project_id.clone(),
        instances: vec![new],
        ..Default::default()
    };
    change(&mut request, &mut spec);
    request.spec = Some(spec_to_pb(&spec));
    Call::Create(request)
}

fn placement(there: &There, placement: PlacementConstraints) -> Call {
    create(there, |_, spec| spec.placement = placement)
}

fn of_instances() -> Vec<Limit> {
    let user_data = |n: u64| {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        BASE64_STANDARD.encode(text(n))
    };
    let plain = |field| (field, field);
    vec![
        limit(
            "USER_DATA_BYTES",
            l::USER_DATA_BYTES as u64,
            plain("user_data"),
            |n| instance(json!({"user_data": text(n)})),
            move |there, n| create(there, |_, spec| spec.user_data_base64 = user_data(n)),
        ),
        limit(
            "SSH_KEYS_PER_INSTANCE",
            l::SSH_KEYS_PER_INSTANCE as u64,
            plain("ssh_keys"),
            |n| instance(json!({"ssh_keys": numbered(n, |i| format!("k{i}"))})),
            |there, n| create(there, |_, spec| spec.ssh_keys = numbered(n, |i| format!("key {i}"))),
        ),
        limit(
            "SSH_KEY_BYTES",
            l::SSH_KEY_BYTES as u64,
            ("public_key", "ssh_keys"),
            |n| {
                let key = crate::harness::key("");
                let rest = text(n - key.len() as u64);
                (Method::POST, "ssh-keys", json!({"name": "long", "public_key": format!("{key}{rest}")}))
            },
            |there, n| create(there, |_, spec| spec.ssh_keys = vec![text(n)]),
        ),
        limit(
            "TAGS_PER_OBJECT",
            l::TAGS_PER_OBJECT as u64,
            plain("tags"),
            |n| instance(json!({"tags": tags(n)})),
            |there, n| create(there, |request, _| request.tags = tags(n).into_iter().collect()),
        ),
        limit(
            "TAG_KEY_BYTES",
            l::TAG_KEY_BYTES as u64,
            plain("tags/x"),
            |n| instance(json!({"tags": {text(n): "v"}})),
            |there, n| create(there, |request, _| request.tags = [(text(n), "v".to_owned())].into()),
        ),
        limit(
            "TAG_VALUE_BYTES",
            l::TAG_VALUE_BYTES as u64,
            plain("tags/k"),
            |n| instance(json!({"tags": {"k": text(n)}})),
            |there, n| create(there, |request, _| request.tags = [("k".to_owned(), text(n))].into()),
        ),
        limit(
            "NICS_PER_INSTANCE",
            l::NICS_PER_INSTANCE as u64,
            ("networks", "nics"),
            |n| instance(json!({"networks": (0..n).map(|_| json!({"network": "no"})).collect::<Vec<_>>()})),
            |there, n| {
                create(there, |request, _| {
                    let nic = || cluster::NicRequest {
                        port_id: PortId::new().to_string(),
                        network_id: NetworkId::new().to_string(),
                        ..Default::default()
                    };
                    request.instances[0].nics = (0..n).map(|_| nic()).collect();
                })
            },
        ),
        limit(
            "CREATE_COUNT",
            l::CREATE_COUNT.into(),
            plain("count"),
            |n| instance(json!({"count": n})),
            |there, n| {
                create(there, |request, _| {
                    let one = |i| cluster::InstanceRequest {
                        id: InstanceId::new().to_string(),
                        name: format!("a-{i}"),
                        ..Default::default()
                    };
                    request.instances = (0..n).map(one).collect();
                })
            },
        ),
        limit(
            "VCPUS_MAX",
            l::VCPUS_MAX.into(),
            plain("vcpus"),
            |n| instance(json!({"vcpus": n, "memory_mib": 128})),
            |there, n| create(there, |_, spec| spec.size.vcpus = u32::try_from(n).expect("a number")),
        ),
        memory().at_least("MEMORY_MIB_MIN", l::MEMORY_MIB_MIN),
        memory(),
        limit(
            "DISK_GIB_MAX",
            l::DISK_GIB_MAX,
            plain("disk_gib"),
            |n| instance(json!({"vcpus": 1, "memory_mib": 128, "disk_gib": n})),
            |there, n| create(there, |_, spec| spec.size.disk_gib = n),
        ),
        limit(
            "STOP_TIMEOUT_SECS_MAX",
            l::STOP_TIMEOUT_SECS_MAX.into(),
            ("timeout_secs", "stop_timeout_secs"),
            |n| (Method::POST, "instances/web/stop", json!({"timeout_secs": n})),
            |there, n| {
                Call::ChangeInstance(cluster::ChangeInstanceRequest {
                    project_id: there.project_id.clone(),
                    instance_id: there.instance_id.clone(),
                    expected_generation: 0,
                    change: Some(InstanceChange::SetPower(cluster::SetPower {
                        power: cluster::Power::Off.into(),
                        stop_timeout_secs: Some(u32::try_from(n).expect("a number")),
                    })),
                })
            },
        ),
        limit(
            "PLACEMENT_GROUPS_PER_INSTANCE",
            l::PLACEMENT_GROUPS_PER_INSTANCE as u64,
            plain("placement/groups"),
            |n| instance(json!({"placement": {"groups": numbered(n, |i| format!("g{i}"))}})),
            |there, n| {
                placement(
                    there,
                    PlacementConstraints {
                        groups: (0..n).map(|_| PlacementGroupId::new()).collect(),
                        ..Default::default()
                    },
                )
            },
        ),
        limit(
            "PLACEMENT_TAGS_PER_INSTANCE",
            l::PLACEMENT_TAGS_PER_INSTANCE as u64,
            plain("placement/required_tags"),
            |n| instance(json!({"placement": {"required_tags": tags(n)}})),
            |there, n| placement(there, PlacementConstraints { required_tags: tags(n), ..Default::default() }),
        ),
        limit(
            "PLACEMENT_TAGS_PER_INSTANCE",
            l::PLACEMENT_TAGS_PER_INSTANCE as u64,
            plain("placement/forbidden_tags"),
            |n| instance(json!({"placement": {"forbidden_tags": tags(n)}})),
            |there, n| placement(there, PlacementConstraints { forbidden_tags: tags(n), ..Default::default() }),
        ),
        limit(
            "TAG_KEY_BYTES",
            l::TAG_KEY_BYTES as u64,
            plain("placement/required_tags/x"),
            |n| instance(json!({"placement": {"required_tags": {text(n): "v"}}})),
            |there, n| {
                placement(
                    there,
                    PlacementConstraints { required_tags: [(text(n), "v".to_owned())].into(), ..Default::default() },
                )
            },
        ),
        limit(
            "CPU_FEATURES_PER_INSTANCE",
            l::CPU_FEATURES_PER_INSTANCE as u64,
            plain("placement/cpu_features"),
            |n| instance(json!({"placement": {"cpu_features": numbered(n, |i| format!("f{i}"))}})),
            |there, n| {
                placement(
                    there,
                    PlacementConstraints { cpu_features: numbered(n, |i| format!("f{i}")), ..Default::default() },
                )
            },
        ),
        limit(
            "RTO_SECONDS",
            u64::from(*l::RTO_SECONDS.end()),
            plain("placement/rto_seconds"),
            |n| instance(json!({"placement": {"rto_seconds": n}})),
            |there, n| {
                let rto_seconds = Some(u32::try_from(n).expect("a number"));
                placement(there, PlacementConstraints { rto_seconds, ..Default::default() })
            },
        ),
        limit(
            "CPU_FEATURE_BYTES",
            l::CPU_FEATURE_BYTES as u64,
            plain("placement/cpu_features/0"),
            |n| instance(json!({"placement": {"cpu_features": [text(n)]}})),
            |there, n| placement(there, PlacementConstraints { cpu_features: vec![text(n)], ..Default::default() }),
        ),
    ]
}

fn memory() -> Limit {
    limit(
        "MEMORY_MIB_MAX",
        l::MEMORY_MIB_MAX,
        ("memory_mib", "memory_mib"),
        |n| instance(json!({"vcpus": 1, "memory_mib": n})),
        |there, n| create(there, |_, spec| spec.size.memory_mib = n),
    )
}

fn of_hosts_and_images() -> Vec<Limit> {
    type Ratio = (
        &'static str,
        &'static str,
        std::ops::RangeInclusive<u32>,
        fn(&mut cluster::ChangeHostRequest) -> &mut Option<u32>,
    );
    let ratios: [Ratio; 3] = [
        ("CPU_OVERCOMMIT_PERMILLE", "cpu_overcommit", l::CPU_OVERCOMMIT_PERMILLE, |r| &mut r.cpu_overcommit_permille),
        ("MEMORY_OVERCOMMIT_PERMILLE", "memory_overcommit", l::MEMORY_OVERCOMMIT_PERMILLE, |r| {
            &mut r.memory_overcommit_permille
        }),
        ("DISK_OVERCOMMIT_PERMILLE", "disk_overcommit", l::DISK_OVERCOMMIT_PERMILLE, |r| {
            &mut r.disk_overcommit_permille
        }),
    ];
    let ratio = |(name, field, bounds, of): Ratio| {
        let most = limit(
            name,
            u64::from(*bounds.end()),
            (field, field),
            move |n| (Method::PATCH, "hosts/alpha", json!({field: n as f64 / 1000.0})),
            move |there, n| {
                let mut request = cluster::ChangeHostRequest { host_id: there.host_id.clone(), ..Default::default() };
                *of(&mut request) = Some(u32::try_from(n).expect("a ratio"));
                Call::ChangeHost(request)
            },
        );
        (most, u64::from(*bounds.start()))
    };
    let mut limits = Vec::new();
    for of in ratios {
        let ((most, _), (again, least)) = (ratio(of.clone()), ratio(of));
        limits.push(again.at_least(most.name, least));
        limits.push(most);
    }
    let image = |there: &There| storage::CreateImageRequest {
        id: ImageId::new().to_string(),
        project_id: there.project_id.clone(),
        name: "k".into(),
        visibility: "private".into(),
        kind: "kernel".into(),
        format: "raw".into(),
        ..Default::default()
    };
    limits.extend([
        limit(
            "DESCRIPTION_BYTES",
            l::DESCRIPTION_BYTES as u64,
            ("cordon_reason", "cordon_reason"),
            |n| (Method::PATCH, "hosts/alpha", json!({"cordoned": true, "cordon_reason": text(n)})),
            |there, n| {
                Call::ChangeHost(cluster::ChangeHostRequest {
                    host_id: there.host_id.clone(),
                    cordon_reason: Some(text(n)),
                    ..Default::default()
                })
            },
        ),
        limit(
            "REBALANCE_MOVES",
            l::REBALANCE_MOVES.into(),
            ("moves", "moves_max"),
            |n| {
                (
                    Method::GET,
                    if n > u64::from(l::REBALANCE_MOVES) {
                        "rebalance-plan?moves=10001"
                    } else {
                        "rebalance-plan?moves=10000"
                    },
                    Value::Null,
                )
            },
            |_, n| {
                Call::Rebalance(cluster::PlanRebalanceRequest {
                    moves_max: u32::try_from(n).expect("a number"),
                    moves_per_host_max: 1,
                    ..Default::default()
                })
            },
        ),
        limit(
            "KERNEL_CMDLINE_BYTES",
            l::KERNEL_CMDLINE_BYTES as u64,
            ("cmdline", "cmdline"),
            |n| (Method::POST, "images", json!({"name": "k", "kind": "kernel", "cmdline": text(n)})),
            move |there, n| Call::Image(storage::CreateImageRequest { cmdline: text(n), ..image(there) }),
        ),
        limit(
            "MEMORY_MIB_MAX",
            l::MEMORY_MIB_MAX,
            ("min_memory_mib", "min_memory_mib"),
            |n| (Method::POST, "images", json!({"name": "k", "kind": "kernel", "min_memory_mib": n})),
            move |there, n| Call::Image(storage::CreateImageRequest { min_memory_mib: n, ..image(there) }),
        ),
    ]);
    limits
}

fn subnet(more: Value) -> (Method, &'static str, Value) {
    let mut body = json!({"name": "s", "network": "no", "cidr": "10.0.0.0/16"});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    (Method::POST, "subnets", body)
}

fn subnet_create(change: impl FnOnce(&mut SubnetSpec)) -> Call {
    let mut spec = SubnetSpec {
        cidr: "10.0.0.0/16".parse().expect("a CIDR"),
        gateway: [10, 0, 0, 1].into(),
        dns: vec![],
        allocation: vec![],
        host_routes: vec![],
    };
    change(&mut spec);
    let name = "s".parse().expect("a name");
    Call::Network(Change::create::<Subnet>(NewSubnet {
        id: SubnetId::new(),
        network_id: NetworkId::new(),
        name,
        spec,
        dhcp: true,
    }))
}

fn range(n: u64) -> String {
    format!("10.0.{n}.10-10.0.{n}.20")
}

fn block(n: u64) -> String {
    format!("10.{n}.0.0/24")
}

fn of_subnets() -> Vec<Limit> {
    let parse = |texts: Vec<String>| texts.iter().map(|text| text.parse().expect("a range")).collect::<Vec<_>>();
    let external = |n: u64, ranges: u64| {
        let ranges = numbered(ranges, |i| format!("10.0.0.{}-10.0.0.{}", 10 + 2 * i, 10 + 2 * i));
        let subnet = move |i| json!({"cidr": block(i), "gateway": format!("10.{i}.0.1"), "allocation": if i == 0 { ranges.clone() } else { vec![] }});
        (0..n).map(subnet).collect::<Vec<_>>()
    };
    let create = move |n, ranges| {
        let subnets = serde_json::from_value(Value::Array(external(n, ranges))).expect("external subnets");
        let (id, name) = (domain::ExternalNetworkId::new(), "public".parse().expect("a name"));
        Call::Network(Change::create::<ExternalNetwork>(NewExternalNetwork {
            id,
            name,
            description: String::new(),
            subnets,
        }))
    };
    let post =
        move |n, ranges| (Method::POST, "external-networks", json!({"name": "public", "subnets": external(n, ranges)}));
    let plain = |field| (field, field);
    vec![
        limit(
            "DNS_SERVERS_PER_SUBNET",
            l::DNS_SERVERS_PER_SUBNET as u64,
            plain("dns"),
            |n| subnet(json!({"dns": numbered(n, |i| format!("9.9.9.{i}"))})),
            |_, n| subnet_create(|spec| spec.dns = (0..n).map(|i| [9, 9, 9, i as u8].into()).collect()),
        ),
        limit(
            "ALLOCATION_RANGES_PER_SUBNET",
            l::ALLOCATION_RANGES_PER_SUBNET as u64,
            plain("allocation"),
            |n| subnet(json!({"allocation": numbered(n, range)})),
            move |_, n| subnet_create(|spec| spec.allocation = parse(numbered(n, range))),
        ),
        limit(
            "HOST_ROUTES_PER_SUBNET",
            l::HOST_ROUTES_PER_SUBNET as u64,
            plain("host_routes"),
            |n| {
                subnet(
                    json!({"host_routes": (0..n).map(|i| json!({"destination": block(i), "next_hop": "10.0.0.9"})).collect::<Vec<_>>()}),
                )
            },
            |_, n| {
                subnet_create(|spec| {
                    let next_hop = [10, 0, 0, 9].into();
                    let route =
                        |i| domain::network::HostRoute { destination: block(i).parse().expect("a CIDR"), next_hop };
                    spec.host_routes = (0..n).map(route).collect();
                })
            },
        ),
        limit(
            "SUBNETS_PER_EXTERNAL_NETWORK",
            l::SUBNETS_PER_EXTERNAL_NETWORK as u64,
            plain("subnets"),
            move |n| post(n, 0),
            move |_, n| create(n, 0),
        ),
        limit(
            "ALLOCATION_RANGES_PER_SUBNET",
            l::ALLOCATION_RANGES_PER_SUBNET as u64,
            plain("subnets/0/allocation"),
            move |n| post(1, n),
            move |_, n| create(1, n),
        ),
    ]
}

fn port(more: Value) -> (Method, &'static str, Value) {
    let mut body = json!({"name": "p", "network": "no"});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    (Method::POST, "ports", body)
}

fn port_create(fixed_ips: u64, groups: u64, allowed: u64, to_instance_bps: u64) -> Call {
    Call::Network(Change::create::<Port>(NewPort {
        id: PortId::new(),
        network_id: NetworkId::new(),
        name: "p".parse().expect("a name"),
        mac: None,
        fixed_ips: (0..fixed_ips).map(|_| FixedIpRequest::AnyOf(SubnetId::new())).collect(),
        allowed_addresses: (0..allowed).map(|i| block(i).parse::<Cidr>().expect("a CIDR")).collect(),
        any_address: false,
        security_group_ids: (groups > 0).then(|| (0..groups).map(|_| SecurityGroupId::new()).collect()),
        rate_limit: RateLimit { to_instance_bps, from_instance_bps: 0 },
    }))
}

/// A new port of an instance.
fn reservation(there: &There, fixed_ips: u64, groups: u64) -> Call {
    let any = || serde_json::to_string(&FixedIpRequest::AnyOf(SubnetId::new())).expect("JSON");
    let nic = cluster::NicRequest {
        port_id: PortId::new().to_string(),
        network_id: NetworkId::new().to_string(),
        fixed_ip_request_json: (0..fixed_ips).map(|_| any()).collect(),
        security_groups_given: true,
        security_group_ids: (0..groups).map(|_| SecurityGroupId::new().to_string()).collect(),
        ..Default::default()
    };
    Call::Ports(resource::PortReservation {
        nic: Some(nic),
        instance_id: InstanceId::new().to_string(),
        project_id: there.project_id.clone(),
        hostname: String::new(),
    })
}

fn of_ports() -> Vec<Limit> {
    let (ips, groups) = (l::FIXED_IPS_PER_PORT as u64, l::SECURITY_GROUPS_PER_PORT as u64);
    let plain = |field| (field, field);
    let nic = |more: Value| instance(json!({"networks": [more]}));
    vec![
        limit(
            "FIXED_IPS_PER_PORT",
            ips,
            plain("fixed_ips"),
            |n| port(json!({"fixed_ips": numbered(n, |i| format!("10.0.0.{i}"))})),
            |_, n| port_create(n, 0, 0, 0),
        ),
        limit(
            "FIXED_IPS_PER_PORT",
            ips,
            ("networks/0/fixed_ips", "fixed_ips"),
            move |n| nic(json!({"network": "no", "fixed_ips": numbered(n, |i| format!("10.0.0.{i}"))})),
            |there, n| reservation(there, n, 0),
        ),
        limit(
            "SECURITY_GROUPS_PER_PORT",
            groups,
            plain("security_groups"),
            |n| port(json!({"security_groups": numbered(n, |i| format!("g{i}"))})),
            |_, n| port_create(0, n, 0, 0),
        ),
        limit(
            "SECURITY_GROUPS_PER_PORT",
            groups,
            ("networks/0/security_groups", "security_groups"),
            move |n| nic(json!({"network": "no", "security_groups": numbered(n, |i| format!("g{i}"))})),
            |there, n| reservation(there, 0, n),
        ),
        limit(
            "ALLOWED_ADDRESSES_PER_PORT",
            l::ALLOWED_ADDRESSES_PER_PORT as u64,
            plain("allowed_addresses"),
            |n| port(json!({"allowed_addresses": numbered(n, block)})),
            |_, n| port_create(0, 0, n, 0),
        ),
        limit(
            "PORT_RATE_BPS_MAX",
            l::PORT_RATE_BPS_MAX,
            plain("rate_limit/to_instance_bps"),
            |n| port(json!({"rate_limit": {"to_instance_bps": n}})),
            |_, n| port_create(0, 0, 0, n),
        ),
    ]
}

fn of_networks() -> Vec<Limit> {
    let network = |mtu: Option<u32>, description: String| {
        Call::Network(Change::create::<Network>(NewNetwork {
            id: NetworkId::new(),
            name: "n".parse().expect("a name"),
            description,
            mtu,
        }))
    };
    let mtu = move || {
        limit(
            "MTU_MAX",
            domain::network::MTU_MAX.into(),
            ("mtu", "mtu"),
            |n| (Method::POST, "networks", json!({"name": "n", "mtu": n})),
            move |_, n| network(Some(u32::try_from(n).expect("an MTU")), String::new()),
        )
    };
    let group = |n: u64, description: String| {
        let rule = |i: u64| SecurityRule {
            direction: Direction::Ingress,
            ethertype: Ethertype::Ipv4,
            matches: Match::Any,
            remote: Remote::Cidr(format!("10.0.{i}.0/24").parse().expect("a CIDR")),
        };
        let (id, name) = (SecurityGroupId::new(), "g".parse().expect("a name"));
        let new = |i| SecurityGroupRule {
            id: SecurityRuleId::new(),
            security_group_id: id,
            rule: rule(i),
            description: description.clone(),
        };
        let rules = (0..n).map(new).collect();
        Call::Network(Change::create::<SecurityGroup>(NewSecurityGroup { id, name, description: String::new(), rules }))
    };
    let rules = |n: u64, description: String| {
        let rule = move |i| json!({"direction": "ingress", "remote_cidr": format!("10.0.{i}.0/24"), "description": description});
        (Method::POST, "security-groups", json!({"name": "g", "rules": (0..n).map(rule).collect::<Vec<_>>()}))
    };
    let (bytes, plain) = (l::DESCRIPTION_BYTES as u64, |field| (field, field));
    vec![
        mtu().at_least("MTU_MIN", domain::network::MTU_MIN.into()),
        mtu(),
        limit(
            "DESCRIPTION_BYTES",
            bytes,
            plain("description"),
            |n| (Method::POST, "networks", json!({"name": "n", "description": text(n)})),
            move |_, n| network(None, text(n)),
        ),
        limit(
            "SECURITY_RULES_PER_REQUEST",
            l::SECURITY_RULES_PER_REQUEST as u64,
            plain("rules"),
            move |n| rules(n, String::new()),
            move |_, n| group(n, String::new()),
        ),
        limit(
            "DESCRIPTION_BYTES",
            bytes,
            plain("rules/0/description"),
            move |n| rules(1, text(n)),
            move |_, n| group(1, text(n)),
        ),
    ]
}

/// Whether a problem refuses the field as out of its bounds.
fn names(problem: &Problem, field: &str) -> bool {
    problem.kind == ErrorKind::InvalidArgument
        && problem.errors.iter().any(|e| e.field.trim_start_matches('/').starts_with(field))
}

async fn refused_by_rest(cloud: &Cloud, limit: &Limit, n: u64) -> bool {
    let (method, path, body) = (limit.rest)(n);
    let joined = if path.contains('?') { '&' } else { '?' };
    let request = cloud.admin.request(method.clone(), &format!("/v1/{path}{joined}project=blue"));
    let request = if method == Method::GET { request } else { request.query(&[("dry_run", "true")]).json(&body) };
    let answer = answer(request).await;
    let errors = answer.body["errors"].as_array().cloned().unwrap_or_default();
    let named = |e: &Value| e["field"].as_str().is_some_and(|f| f.trim_start_matches('/').starts_with(limit.fields.0));
    answer.status.as_u16() == 400 && errors.iter().any(named)
}

async fn refused_by_manager(cloud: &Cloud, there: &There, limit: &Limit, n: u64) -> bool {
    let world = &cloud.world;
    let channel = |target: &service_kit::transport::GrpcTarget| target.channel().expect("a channel");
    let context = CallContext { dry_run: true, ..CallContext::system("limits") };
    let refused = match (limit.manager)(there, n) {
        Call::Create(request) => {
            ClusterManagerClient::new(channel(&world.cluster)).create_instances(context.request(request)).await.err()
        }
        Call::ChangeInstance(request) => {
            ClusterManagerClient::new(channel(&world.cluster)).change_instance(context.request(request)).await.err()
        }
        Call::ChangeHost(request) => {
            ClusterManagerClient::new(channel(&world.cluster)).change_host(context.request(request)).await.err()
        }
        Call::Rebalance(request) => {
            ClusterManagerClient::new(channel(&world.cluster)).plan_rebalance(context.request(request)).await.err()
        }
        Call::Image(request) => {
            StorageManagerClient::new(channel(&world.storage)).create_image(context.request(request)).await.err()
        }
        Call::Ports(port) => {
            let request = resource::ReservePortsRequest { ports: vec![port], ttl_secs: 0 };
            ResourceManagerClient::new(channel(&world.resource)).reserve_ports(context.request(request)).await.err()
        }
        Call::Network(change) => {
            let change_json = serde_json::to_string(&change).expect("JSON");
            let request =
                resource::ApplyRequest { project_id: there.project_id.clone(), change_json, ..Default::default() };
            ResourceManagerClient::new(channel(&world.resource)).apply(context.request(request)).await.err()
        }
    };
    refused.is_some_and(|status| names(&proto::status::from_status(&status), limit.fields.1))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_keep_every_limit() {
    let cloud = Cloud::start().await;
    let web = cloud.running("web").await;
    let id = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    let there = There {
        project_id: web["project_id"].as_str().expect("an id").to_owned(),
        host_id: id(&cloud.admin.get("/v1/hosts/alpha").await.expect(200)),
        image_id: id(&cloud.ann.get("/v1/images/linux").await.expect(200)).parse().expect("an id"),
        instance_id: id(&web),
    };
    let limits = [of_instances(), of_hosts_and_images(), of_subnets(), of_ports(), of_networks()].into_iter().flatten();
    let mut covered = BTreeSet::from(OF_THE_GATEWAY_ALONE);
    for limit in limits {
        let name = format!("{} ({})", limit.name, limit.fields.1);
        covered.insert(limit.name);
        assert!(!refused_by_rest(&cloud, &limit, limit.takes).await, "REST takes {}: {name}", limit.takes);
        assert!(refused_by_rest(&cloud, &limit, limit.refuses).await, "REST refuses {}: {name}", limit.refuses);
        let manager = |n| refused_by_manager(&cloud, &there, &limit, n);
        assert!(!manager(limit.takes).await, "the manager takes {}: {name}", limit.takes);
        assert!(manager(limit.refuses).await, "the manager refuses {}: {name}", limit.refuses);
    }
    let source = include_str!("../../../crates/domain/src/limits.rs");
    let declared = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let missing: Vec<&str> = declared.filter(|name| !covered.contains(name)).collect();
    assert!(missing.is_empty(), "limits that are tested at no end: {missing:?}");
    cloud.stop().await;
}
