//! `security-group`: what may pass.

use super::change::{create_and_show, delete_each, something};
use crate::{
    args::{IfNotExists, one_of},
    context::Context,
    error::CliError,
};
use clap::{Args, Subcommand};
use client::model::{SecurityGroupChange, SecurityGroupCreate, SecurityRuleCreate};
use domain::network::{Direction, Ethertype};

#[derive(Debug, Subcommand)]
pub enum SecurityGroupCommand {
    /// Create a group that allows all outgoing traffic, and the incoming traffic that you name
    Create(CreateArgs),
    /// List the project's security groups
    List,
    /// Show a security group with its rules
    Show { group: String },
    /// Change the name or description of a security group
    Set {
        group: String,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete security groups that no port uses
    Delete {
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// Manage the rules of a security group
    #[command(subcommand)]
    Rule(RuleCommand),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    name: String,
    /// Incoming traffic to allow: `tcp:22`, `udp:53`, `tcp:8000-8100@10.0.0.0/8`, `icmp`, `any`; repeat it for several
    #[arg(long = "allow", value_parser = parse_allowed, value_name = "WHAT[@CIDR]")]
    allowed: Vec<SecurityRuleCreate>,
    /// Allow no outgoing traffic except replies
    #[arg(long)]
    no_egress: bool,
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    exists: IfNotExists,
}

#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Allow traffic; the rule takes effect at once
    Add(RuleArgs),
    /// Remove rules (`iaasctl security-group show` lists their ids)
    Remove {
        group: String,
        #[arg(required = true)]
        rules: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct RuleArgs {
    group: String,
    /// A rule for outgoing traffic, instead of incoming
    #[arg(long)]
    egress: bool,
    /// tcp, udp, sctp, icmp, icmpv6 or a number; without it, tcp if a port is given, otherwise every protocol
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// A port or a range of ports: `22`, `8000-8100`
    #[arg(long, value_name = "PORT|FIRST-LAST")]
    port: Option<String>,
    /// The type of ICMP messages
    #[arg(long, value_name = "N")]
    icmp_type: Option<u8>,
    /// The code of ICMP messages
    #[arg(long, value_name = "N", requires = "icmp_type")]
    icmp_code: Option<u8>,
    /// The remote addresses; without it, any
    #[arg(long, value_name = "CIDR", conflicts_with = "remote_group")]
    remote: Option<String>,
    /// The remote end is an instance in this security group
    #[arg(long, value_name = "NAME")]
    remote_group: Option<String>,
    /// The address family; without it, that of the remote addresses, otherwise ipv4
    #[arg(long, value_parser = one_of(Ethertype::ALL, Ethertype::as_str))]
    family: Option<Ethertype>,
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
}

fn rule(direction: Direction) -> SecurityRuleCreate {
    SecurityRuleCreate {
        direction,
        ethertype: None,
        protocol: None,
        port_range: None,
        icmp_type: None,
        icmp_code: None,
        remote_cidr: None,
        remote_group: None,
        description: String::new(),
    }
}

/// `tcp:22@10.0.0.0/8`.
fn parse_allowed(text: &str) -> Result<SecurityRuleCreate, String> {
    let (what, remote_cidr) = match text.split_once('@') {
        Some((what, cidr)) => (what, Some(cidr.to_owned())),
        None => (text, None),
    };
    let (protocol, port_range) = match what.split_once(':') {
        Some((protocol, ports)) => (protocol, Some(ports.to_owned())),
        None => (what, None),
    };
    if protocol.is_empty() || protocol.bytes().any(|b| !b.is_ascii_alphanumeric()) {
        return Err(format!("`{text}` is not like tcp:22, udp:53@10.0.0.0/8, icmp or any"));
    }
    let protocol = (protocol != "any").then(|| protocol.to_owned());
    Ok(SecurityRuleCreate { protocol, port_range, remote_cidr, ..rule(Direction::Ingress) })
}

/// What is allowed in, and out everything unless that is unwanted. `None`: as the server makes groups.
fn rules(allowed: Vec<SecurityRuleCreate>, no_egress: bool) -> Option<Vec<SecurityRuleCreate>> {
    if no_egress {
        return Some(allowed);
    }
    if allowed.is_empty() {
        return None;
    }
    let out = Ethertype::ALL.map(|family| SecurityRuleCreate { ethertype: Some(family), ..rule(Direction::Egress) });
    Some(allowed.into_iter().chain(out).collect())
}

impl RuleArgs {
    fn request(self) -> (String, SecurityRuleCreate) {
        let protocol = self.protocol.or_else(|| self.port.as_ref().map(|_| "tcp".to_owned()));
        let request = SecurityRuleCreate {
            direction: if self.egress { Direction::Egress } else { Direction::Ingress },
            ethertype: self.family,
            protocol,
            port_range: self.port,
            icmp_type: self.icmp_type,
            icmp_code: self.icmp_code,
            remote_cidr: self.remote,
            remote_group: self.remote_group,
            description: self.description,
        };
        (self.group, request)
    }
}

pub(super) async fn run(context: Context, command: SecurityGroupCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        SecurityGroupCommand::Create(CreateArgs { name, allowed, no_egress, description, exists }) => {
            let request = SecurityGroupCreate { name: name.clone(), description, rules: rules(allowed, no_egress) };
            let mutation = client.security_group_create(&request);
            create_and_show(&context, mutation, exists.if_not_exists, client.security_group(&name)).await
        }
        SecurityGroupCommand::List => context.out.list(&client.security_groups().all().await?),
        SecurityGroupCommand::Show { group } => context.out.one(&client.security_group(&group).await?),
        SecurityGroupCommand::Set { group, name, description } => {
            let change = something(SecurityGroupChange { name, description }, "security-group set")?;
            context.change_and_show(client.security_group_change(&group, &change)).await
        }
        SecurityGroupCommand::Delete { groups } => {
            delete_each(&context, "security group", &groups, |name| client.security_group_delete(name)).await
        }
        SecurityGroupCommand::Rule(RuleCommand::Add(args)) => {
            let (group, request) = args.request();
            context.change_and_show(client.security_rule_create(&group, &request)).await
        }
        SecurityGroupCommand::Rule(RuleCommand::Remove { group, rules }) => {
            delete_each(&context, "rule", &rules, |rule| client.security_rule_delete(&group, rule)).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_read() {
        let ssh = parse_allowed("tcp:22@10.0.0.0/8").expect("a rule");
        assert_eq!((ssh.protocol.as_deref(), ssh.port_range.as_deref()), (Some("tcp"), Some("22")));
        assert_eq!(ssh.remote_cidr.as_deref(), Some("10.0.0.0/8"));
        assert_eq!(parse_allowed("icmp").expect("a rule").protocol.as_deref(), Some("icmp"));
        assert_eq!(parse_allowed("any").expect("a rule").protocol, None);
        for bad in ["", ":22", "@10.0.0.0/8", "tcp 22", "22/tcp"] {
            assert!(parse_allowed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_group_lets_everything_out_unless_it_shall_not() {
        assert_eq!(rules(vec![], false), None);
        assert_eq!(rules(vec![], true), Some(vec![]));
        let made = rules(vec![parse_allowed("tcp:22").expect("a rule")], false).expect("rules");
        assert_eq!(made.iter().filter(|r| r.direction == Direction::Egress).count(), 2);
    }
}
