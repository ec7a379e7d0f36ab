//! Networks by command line: what each command asks of the server, and what is refused before anything is requests.

use crate::server::{Home, problem, record, stderr, stdout};
use serde_json::{Value, json};

const ID: &str = "01234567-89ab-7def-8123-456789abcdef";
const AT: &str = "2026-01-31T00:00:00.000Z";

/// An object of every kind, as the server shows it.
fn object(path: &str) -> Value {
    let mut all = json!({
        "id": ID, "project_id": ID, "name": "thing", "network_id": ID, "network": "blue", "generation": 1, "created_at": AT, "description": "",
    });
    let own = match path.split('/').nth(2).unwrap_or_default() {
        "subnets" => {
            json!({"cidr": "10.1.0.0/24", "gateway": "10.1.0.1", "dns": [], "allocation": [], "host_routes": [], "dhcp": true})
        }
        "ports" => json!({
            "mac": "02:00:00:00:00:01", "state": "active", "status": "down", "status_reason": "", "addresses": [], "fixed_ips": [],
            "floating_ips": [], "allowed_addresses": [], "security_groups": [], "rate_limit": {"to_instance_bps": 0, "from_instance_bps": 0},
        }),
        "routers" => json!({"external_network_id": ID, "source_nat": true}),
        "floating-ips" => json!({"address": "203.0.113.9", "external_network_id": ID}),
        "network-peerings" => json!({"peer_network_id": ID}),
        "security-groups" if path.ends_with("/rules") => json!({"direction": "ingress", "ethertype": "ipv4"}),
        "instances" => instance(json!([])),
        "networks" => json!({"subnets": [], "peerings": []}),
        "security-groups" => json!({"rules": []}),
        "external-networks" => json!({"subnets": []}),
        other => panic!("{other} has no object"),
    };
    all.as_object_mut().expect("an object").extend(own.as_object().expect("an object").clone());
    all
}

fn instance(nics: Value) -> Value {
    json!({
        "id": ID, "name": "web", "project_id": ID, "state": "running", "reason": "", "step": "", "vcpus": 1, "memory_mib": 256,
        "disk_gib": 1, "image_id": ID, "nics": nics, "created_at": AT, "updated_at": AT, "generation": 1, "power": "on",
        "on_crash": "restart", "on_host_loss": "wait", "pool": "local", "tags": {}, "ssh_keys": [], "observed_generation": 1, "crash_count": 0,
        "placement": { "group_ids": [], "required_tags": {}, "forbidden_tags": {}, "cpu_features": [], "dedicated": false, "pinning": "none" },
    })
}

/// What a command line asks first, other than to look.
fn requests(line: &str) -> (String, Value) {
    let (url, received) = record(|requests, _| {
        let (method, path) = requests.split_once(' ').expect("a method and a path");
        match method {
            "DELETE" if !path.contains("/nics/") => (204, Value::Null),
            "GET" if path == "/v1/subnets" => (200, json!({"items": [], "next_cursor": null})),
            _ => (200, object(path)),
        }
    });
    let output = Home::new().run_at(&url, &line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
    let received = received.lock();
    received.iter().find(|(requests, _)| !requests.starts_with("GET")).unwrap_or(&received[0]).clone()
}

#[test]
fn every_command_asks_for_what_it_says() {
    for (line, what, body) in [
        (
            "network create blue --mtu 1400 --description x",
            "POST /v1/networks",
            json!({"name": "blue", "description": "x", "mtu": 1400}),
        ),
        ("network set blue --name red", "PATCH /v1/networks/blue", json!({"name": "red"})),
        ("network delete blue", "DELETE /v1/networks/blue", Value::Null),
        (
            "subnet create a --network blue --cidr 10.1.0.0/24 --gateway 10.1.0.254 --dns 9.9.9.9 --dns 1.1.1.1 \
             --range 10.1.0.10-10.1.0.99 --route 10.9.0.0/16=10.1.0.9 --no-dhcp",
            "POST /v1/subnets",
            json!({
                "name": "a", "network": "blue", "cidr": "10.1.0.0/24", "gateway": "10.1.0.254", "dns": ["9.9.9.9", "1.1.1.1"],
                "allocation": ["10.1.0.10-10.1.0.99"], "host_routes": [{"destination": "10.9.0.0/16", "next_hop": "10.1.0.9"}],
                "dhcp": false,
            }),
        ),
        (
            "subnet create six --network blue --cidr fd00:1::/64",
            "POST /v1/subnets",
            json!({"name": "six", "network": "blue", "cidr": "fd00:1::/64"}),
        ),
        ("subnet set a --no-dns --dhcp on", "PATCH /v1/subnets/a", json!({"dns": [], "dhcp": true})),
        (
            "port create p --network blue --ip 10.1.0.5 --ip six --mac 02:00:00:00:00:05 --security-group web \
             --allow-address 10.1.0.50/32 --rate-in 100M",
            "POST /v1/ports",
            json!({
                "name": "p", "network": "blue", "fixed_ips": ["10.1.0.5", "six"], "mac": "02:00:00:00:00:05",
                "security_groups": ["web"], "allowed_addresses": ["10.1.0.50/32"],
                "rate_limit": {"to_instance_bps": 100_000_000, "from_instance_bps": 0},
            }),
        ),
        ("port set p --no-security-group", "PATCH /v1/ports/p", json!({"security_groups": []})),
        (
            "router create out --network blue --external-network public --no-source-nat",
            "POST /v1/routers",
            json!({"name": "out", "network": "blue", "external_network": "public", "source_nat": false}),
        ),
        ("router set out --source-nat on", "PATCH /v1/routers/out", json!({"source_nat": true})),
        ("floating-ip create --instance web", "POST /v1/floating-ips", json!({"instance": "web"})),
        (
            "fip create --address 203.0.113.9 --port p --fixed-ip 10.1.0.5",
            "POST /v1/floating-ips",
            json!({"address": "203.0.113.9", "port": "p", "fixed_ip": "10.1.0.5"}),
        ),
        (
            "floating-ip associate 203.0.113.9 --instance db",
            "PATCH /v1/floating-ips/203.0.113.9",
            json!({"instance": "db"}),
        ),
        ("floating-ip dissociate 203.0.113.9", "PATCH /v1/floating-ips/203.0.113.9", json!({"port": null})),
        ("floating-ip delete 203.0.113.9", "DELETE /v1/floating-ips/203.0.113.9", Value::Null),
        (
            "security-group create web --no-egress --allow tcp:80 --allow icmpv6@fd00::/8",
            "POST /v1/security-groups",
            json!({"name": "web", "rules": [
                {"direction": "ingress", "protocol": "tcp", "port_range": "80"},
                {"direction": "ingress", "protocol": "icmpv6", "remote_cidr": "fd00::/8"},
            ]}),
        ),
        (
            "sg rule add default --protocol tcp --port 22 --remote 198.51.100.0/24",
            "POST /v1/security-groups/default/rules",
            json!({"direction": "ingress", "protocol": "tcp", "port_range": "22", "remote_cidr": "198.51.100.0/24"}),
        ),
        (
            "security-group rule add web --egress --port 8000-8100 --remote-group db --family ipv6",
            "POST /v1/security-groups/web/rules",
            json!({"direction": "egress", "ethertype": "ipv6", "protocol": "tcp", "port_range": "8000-8100", "remote_group": "db"}),
        ),
        ("security-group rule remove web 42", "DELETE /v1/security-groups/web/rules/42", Value::Null),
        (
            "peering create both blue red",
            "POST /v1/network-peerings",
            json!({"name": "both", "network": "blue", "peer_network": "red"}),
        ),
        (
            "external-network create public --subnet 203.0.113.0/24,gateway=203.0.113.1,range=203.0.113.10-203.0.113.99",
            "POST /v1/external-networks",
            json!({"name": "public", "subnets": [{"cidr": "203.0.113.0/24", "gateway": "203.0.113.1", "allocation": ["203.0.113.10-203.0.113.99"]}]}),
        ),
        (
            "external-network create public --cidr 203.0.113.0/24 --gateway 203.0.113.1 --range 203.0.113.10-203.0.113.99",
            "POST /v1/external-networks",
            json!({"name": "public", "subnets": [{"cidr": "203.0.113.0/24", "gateway": "203.0.113.1", "allocation": ["203.0.113.10-203.0.113.99"]}]}),
        ),
        (
            "instance nic add web --network blue,ip=10.1.0.5",
            "POST /v1/instances/web/nics",
            json!({"network": "blue", "fixed_ips": ["10.1.0.5"]}),
        ),
        ("instance attach web --port p", "POST /v1/instances/web/nics", json!({"port": "p"})),
        ("instance nic remove web --port p", "DELETE /v1/instances/web/nics/p", Value::Null),
    ] {
        let (what_requested, body_requested) = requests(line);
        assert_eq!((what_requested.as_str(), &body_requested), (what, &body), "{line}");
    }
}

#[test]
fn an_instance_is_requested_with_its_nics() {
    let networks = |options: &str| {
        requests(&format!("instance create web --image tiny --flavor small {options}")).1.get("networks").cloned()
    };
    assert_eq!(networks(""), None, "the server chooses");
    assert_eq!(networks("--no-network"), Some(json!([])));
    assert_eq!(
        networks("--network blue,ip=10.1.0.5,ip=fd00::5,security-group=web --port p --network red"),
        Some(json!([
            {"network": "blue", "fixed_ips": ["10.1.0.5", "fd00::5"], "security_groups": ["web"]},
            {"network": "red"},
            {"port": "p"},
        ]))
    );
}

#[test]
fn a_network_is_made_with_all_that_it_needs() {
    let (url, received) = record(|requests, _| {
        let (_, path) = requests.split_once(' ').expect("a method and a path");
        (200, object(path))
    });
    let line = "network create blue --subnet 10.1.0.0/24 --subnet fd00:1::/64 --external-network public -o json";
    let output = Home::new().run_at(&url, &line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let received = received.lock();
    let bodies: Vec<_> = received.iter().filter(|(requests, _)| requests.starts_with("POST")).collect();
    let names: Vec<_> =
        bodies.iter().map(|(requests, body)| (requests.as_str(), body["name"].as_str().expect("a name"))).collect();
    assert_eq!(
        names,
        [
            ("POST /v1/networks", "blue"),
            ("POST /v1/subnets", "thing"),
            ("POST /v1/subnets", "thing-2"),
            ("POST /v1/routers", "thing")
        ]
    );
    assert_eq!(bodies[1].1["network"], ID, "by id: its name may be taken meanwhile");
    let shown: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(shown["name"], "thing");
}

#[test]
fn nonsense_is_refused_with_what_to_do() {
    // Nobody listens there: whatever these were reported, the server wasn't requests.
    let run = |line: &str| Home::new().run_at("http://127.0.0.1:1", &line.split_whitespace().collect::<Vec<_>>());
    for (line, said) in [
        ("network set blue", "nothing to change"),
        ("subnet set a", "iaasctl subnet set --help"),
        ("port set p", "nothing to change"),
        ("router set r", "nothing to change"),
        ("security-group set g", "nothing to change"),
        ("external-network set x", "nothing to change"),
        ("subnet create a --network blue", "--cidr"),
        ("subnet create a --network blue --cidr 10.1.0.0/24 --route 10.9.0.0/16", "not a route like"),
        ("subnet set a --dns 9.9.9.9 --no-dns", "cannot be used with"),
        ("port create p", "--network"),
        ("port create p --network blue --rate-in fast", "not a rate like"),
        ("port create p --network blue --security-group a --no-security-group", "cannot be used with"),
        ("router set r --source-nat maybe", "possible values"),
        ("floating-ip create --instance web --port p", "cannot be used with"),
        ("floating-ip associate 203.0.113.9", "--instance"),
        ("security-group create web --allow 22/tcp", "not like tcp:22"),
        ("security-group rule add web --remote 10.0.0.0/8 --remote-group db", "cannot be used with"),
        ("security-group rule add web --protocol icmp --icmp-code 1", "--icmp-type"),
        ("security-group rule add web --family ipv5", "possible values"),
        ("external-network create x", "--subnet"),
        ("external-network create x --subnet 203.0.113.0/24,203.0.113.1", "neither gateway=ADDRESS nor range="),
        ("external-network create x --cidr 203.0.113.0/24 --subnet 198.51.100.0/24", "cannot be used with"),
        ("external-network create x --gateway 203.0.113.1", "--cidr"),
        ("instance nic add web", "--network"),
        ("instance nic add web --network blue --port p", "cannot be used with"),
        ("instance create web --image i --flavor f --network ip=10.0.0.5", "begin with a network's name"),
        (
            "instance create web --image i --flavor f --network blue,10.0.0.5",
            "neither ip=ADDRESS nor security-group=NAME",
        ),
        ("instance create web --image i --flavor f --network blue --no-network", "cannot be used with"),
        ("peering create both blue", "PEER"),
    ] {
        let output = run(line);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{line}: {}", stderr(&output));
    }
}

#[test]
fn what_the_server_refuses_is_shown_whole() {
    let (url, _) = record(|_, _| {
        let (_, mut body) = problem(409, "address_taken");
        body["detail"] = json!("10.1.0.5 is the port p's");
        body["errors"] =
            json!([{"field": "/fixed_ips/0", "detail": "taken"}, {"field": "/mac", "detail": "taken as well"}]);
        (409, body)
    });
    let output = Home::new().run_at(&url, &["port", "create", "q", "--network", "blue", "--ip", "10.1.0.5"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(5), ""));
    assert_eq!(
        stderr(&output),
        "error: 10.1.0.5 is the port p's\n  /fixed_ips/0: taken\n  /mac: taken as well\nhint: do this next\n\
         code: address_taken\nrequest id: req-42\n"
    );
}

fn nic(floating_ips: Value) -> Value {
    json!([{
        "port_id": ID, "network_id": ID, "network": "default", "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.5"],
        "floating_ips": floating_ips,
    }])
}

/// A cloud with the instance `web`, whose port is in the group `default` with these rules.
fn cloud(shown: Value, rules: Value) -> String {
    let (url, _) = record(move |requests, _| match requests {
        "GET /v1/instances/web" => (200, shown.clone()),
        requests if requests.starts_with("GET /v1/ports/") => {
            let mut port = object("/v1/ports");
            port["security_groups"] = json!([{"id": ID, "name": "default"}]);
            (200, port)
        }
        requests if requests.starts_with("GET /v1/security-groups/") => {
            let mut group = object("/v1/security-groups");
            (group["name"], group["rules"]) = (json!("default"), rules.clone());
            (200, group)
        }
        _ => problem(404, "not_found"),
    });
    url
}

fn lets_in(ports: &str) -> Value {
    json!([{"id": ID, "direction": "ingress", "ethertype": "ipv4", "protocol": "tcp", "port_range": ports, "description": ""}])
}

#[test]
fn ssh_says_what_is_missing() {
    let mut stopped = instance(nic(json!(["203.0.113.9"])));
    stopped["state"] = json!("stopped");
    for (shown, rules, said, hint) in [
        (stopped, lets_in("22"), "is stopped", "iaasctl instance start web"),
        (instance(json!([])), lets_in("22"), "no NIC", "iaasctl instance nic add web --network"),
        (instance(nic(json!([]))), lets_in("22"), "no floating IP", "iaasctl floating-ip create --instance web"),
        (
            instance(nic(json!(["203.0.113.9"]))),
            lets_in("80"),
            "allows SSH",
            "iaasctl security-group rule add default --port 22",
        ),
    ] {
        let output = Home::new().run_at(&cloud(shown, rules), &["instance", "ssh", "web"]);
        assert_eq!(output.status.code(), Some(5), "{said}");
        let reported = stderr(&output);
        assert!(reported.contains(said) && reported.contains(&format!("hint: {hint}")), "{reported}");
    }
    let nobody = Home::new().run_at(&cloud(json!({}), json!([])), &["instance", "ssh", "nope"]);
    assert_eq!(nobody.status.code(), Some(3));
}

#[test]
fn ssh_becomes_ssh() {
    let home = Home::new();
    let url = cloud(instance(nic(json!(["203.0.113.9"]))), lets_in("1-1024"));
    let line = ["instance", "ssh", "web", "-l", "root", "--", "uname", "-a"];
    let options = format!("-o HostKeyAlias=iaas-{ID} -o CheckHostIP=no -o StrictHostKeyChecking=accept-new");
    let arguments = format!("{options} -l root -- 203.0.113.9 uname -a\n");
    let dry = home.run_at(&url, &[&line[..3], &["--dry-run"], &line[3..]].concat());
    assert_eq!(stdout(&dry), format!("dry run: ssh {arguments}"));
    // An `ssh` that says what it was given, and ends with a code of its own.
    let bin = home.program("ssh", "#!/bin/sh\necho \"$@\"\nexit 42\n");
    let run = |path: &str| {
        let mut command = home.command(&line);
        command.env("PATH", path).env("IAAS_URL", &url).env("IAAS_TOKEN", "iaas_key").output().expect("it runs")
    };
    let output = run(&bin);
    assert_eq!((stdout(&output), output.status.code()), (arguments, Some(42)), "{}", stderr(&output));
    let without = run("/nowhere");
    assert_eq!(without.status.code(), Some(1));
    assert!(stderr(&without).contains("install an OpenSSH client"), "{}", stderr(&without));
}
