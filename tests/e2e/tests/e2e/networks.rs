//! Networks of a project by `iaasctl`, against a real control plane: everything that needs no guest.

use crate::support::server;
use anyhow::{Context, ensure};
use harness::{Server, bin_dir};
use serde_json::{Value, json};
use std::process::{Command, Output};

struct Terminal<'a> {
    server: &'a Server,
}

impl Terminal<'_> {
    fn run(&self, line: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(bin_dir().join("iaasctl"));
        command.args(line.split_whitespace()).args(["--output", "json"]).env_clear();
        command.env("HOME", self.server.dir.path()).env("IAAS_URL", &self.server.base);
        command.output().context("iaasctl runs")
    }

    fn ctl(&self, line: &str) -> anyhow::Result<Value> {
        let output = self.run(line)?;
        ensure!(output.status.success(), "`iaasctl {line}`: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    /// Its code and its hint are these; nothing is data.
    fn refused(&self, line: &str, code: &str, hint: &str) -> anyhow::Result<()> {
        let output = self.run(line)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && output.stdout.is_empty(), "`iaasctl {line}` was done");
        ensure!(said.contains(&format!("code: {code}\n")) && said.contains(hint), "`iaasctl {line}`: {said}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projects_networks_from_a_terminal() -> anyhow::Result<()> {
    let server = server().await?;
    let terminal = Terminal { server: &server };
    terminal.ctl(&format!("login --user admin --password-file {}", server.dir.path().join("password").display()))?;
    for line in [
        "external-network create public --subnet 203.0.113.0/24,range=203.0.113.10-203.0.113.99",
        "project create demo",
        "config set project demo",
    ] {
        terminal.ctl(line)?;
    }

    // What a new project has, and what can be read of it.
    let default = terminal.ctl("network show default")?;
    ensure!(default["subnets"].as_array().map(Vec::len) == Some(2), "{default}");
    ensure!(default["router"]["external_network"] == "public", "{default}");
    let blue =
        terminal.ctl("network create blue --subnet 10.1.0.0/24 --subnet fd00:1::/64 --external-network public")?;
    ensure!(blue["subnets"].as_array().map(Vec::len) == Some(2) && blue["router"]["source_nat"] == true, "{blue}");
    terminal.ctl("network create red --subnet 10.2.0.0/24")?;
    let again = terminal.ctl("network create red --subnet 10.2.0.0/24 --if-not-exists")?;
    ensure!(again["subnets"].as_array().map(Vec::len) == Some(1), "{again}");

    // Every other kind: made, found by name and by id, changed, listed.
    terminal.ctl("security-group create web --allow tcp:80 --allow tcp:443@203.0.113.0/24 --allow icmpv6")?;
    let rule = terminal.ctl("security-group rule add web --port 8000-8100 --remote-group default")?;
    let port =
        terminal.ctl("port create vip --network blue --ip 10.1.0.50 --ip blue-2 --security-group web --rate-out 1G")?;
    ensure!(port["addresses"][0] == "10.1.0.50" && port["addresses"].as_array().map(Vec::len) == Some(2), "{port}");
    let by_id = terminal.ctl(&format!("port show {}", port["id"].as_str().unwrap_or_default()))?;
    ensure!(by_id["mac"] == port["mac"], "{by_id}");
    let floating = terminal.ctl("floating-ip create --port vip")?;
    let address = floating["address"].as_str().context("an address")?.to_owned();
    ensure!(floating["fixed_ip"] == "10.1.0.50", "{floating}");
    terminal.ctl("port create other --network blue")?;
    let moved = terminal.ctl(&format!("floating-ip associate {address} --port other"))?;
    ensure!(moved["port_id"] != port["id"], "{moved}");
    terminal.ctl("peering create both blue red")?;
    terminal.ctl("router set blue --source-nat off")?;
    terminal.ctl("subnet set blue --dns 9.9.9.9 --route 10.9.0.0/16=10.1.0.9")?;
    for (kind, names) in [
        ("network", json!(["default", "blue", "red"])),
        ("router", json!(["default", "blue"])),
        ("port --network blue", json!(["vip", "other"])),
        ("security-group", json!(["default", "web"])),
        ("peering", json!(["both"])),
        ("external-network", json!(["public"])),
    ] {
        let (kind, options) = kind.split_once(' ').unwrap_or((kind, ""));
        let list = terminal.ctl(&format!("{kind} list {options}"))?;
        let found: Vec<_> = list.as_array().into_iter().flatten().map(|item| item["name"].clone()).collect();
        ensure!(json!(found) == names, "{kind}: {list}");
    }

    refusals(&terminal, &port)?;

    // All of it goes, in the order in which it may.
    let rule = rule["id"].as_str().context("a rule")?;
    for line in [
        format!("security-group rule remove web {rule}"),
        format!("floating-ip delete {address}"),
        "port delete vip other".to_owned(),
        "security-group delete web".to_owned(),
        "peering delete both".to_owned(),
        "router delete blue".to_owned(),
        "network delete blue red".to_owned(),
    ] {
        terminal.ctl(&line)?;
    }
    let quota = terminal.ctl("quota show demo")?;
    let used = ["networks", "subnets", "ports", "floating_ips", "peerings"].map(|what| quota["used"][what].clone());
    ensure!(json!(used) == json!([1, 2, 0, 0, 0]), "{quota}");
    server.stop()
}

fn refusals(terminal: &Terminal<'_>, port: &Value) -> anyhow::Result<()> {
    let mac = port["mac"].as_str().unwrap_or_default();
    for (line, code, hint) in [
        ("subnet create x --network red --cidr 10.2.0.128/25", "subnet_overlaps", "choose a range that is free"),
        ("subnet create x --network red --cidr 10.2.0.0/33", "invalid_argument", "cidr"),
        ("subnet create x --network red --cidr 10.3.0.7/24", "invalid_argument", "cidr"),
        ("subnet create x --network red --cidr 10.3.0.0/24 --gateway 10.4.0.1", "invalid_argument", "gateway"),
        ("port create x --network blue --ip 10.1.0.50", "address_taken", ""),
        ("port create x --network blue --ip 192.0.2.1", "address_outside_subnet", ""),
        ("port create x --network blue --ip 10.1.0.1", "address_is_gateway", ""),
        ("port create x --network nope", "network_not_found", "iaasctl network list"),
        (
            "port create x --network blue --security-group nope",
            "security_group_not_found",
            "iaasctl security-group list",
        ),
        ("router create x --network blue", "router_exists", ""),
        ("floating-ip create --address 192.0.2.1", "address_outside_subnet", ""),
        ("security-group rule add web --protocol tcp --port 90-80", "invalid_argument", "port"),
        ("security-group rule add web --protocol nonsense", "invalid_argument", "protocol"),
        ("security-group rule add web --port 80", "rule_exists", ""),
        ("security-group delete web", "security_group_in_use", ""),
        ("security-group delete default", "default_group", ""),
        ("peering create twice red blue", "peering_exists", ""),
        ("peering create self red red", "invalid_argument", ""),
        ("network delete blue", "network_in_use", "delete these first"),
        ("network create blue", "name_taken", ""),
        ("external-network delete public", "external_network_in_use", ""),
    ] {
        terminal.refused(line, code, hint)?;
    }
    terminal.refused(&format!("port create x --network red --mac {mac}"), "mac_taken", "give none")?;
    terminal.ctl("quota set demo --networks 3")?;
    terminal.refused("network create green", "quota_exceeded", "")
}
