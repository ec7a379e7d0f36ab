//! `security-group`: what may pass.

use super::{create_and_show, delete_each, something};
use crate::{cli::IfNotExists, context::Context, error::CliError};
use clap::{Args, Subcommand, ValueEnum};
use client::model::{Described, SecurityGroupCreate, SecurityRuleCreate};
use domain::network::{Direction, Ethertype};

#[derive(Debug, Subcommand)]
pub enum SecurityGroupCommand {
    /// Make a group that lets everything out, and in what is allowed
    Create(CreateArgs),
    /// The project's security groups
    List,
    /// Show a security group with its rules
    Show { group: String },
    /// Rename or describe a security group
    Set {
        group: String,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete security groups that no port is in
    Delete {
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// What a group lets pass
    #[command(subcommand)]
    Rule(RuleCommand),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    name: String,
    /// What is let in: `tcp:22`, `udp:53`, `tcp:8000-8100@10.0.0.0/8`, `icmp`, `any`; repeat it for several
    #[arg(long = "allow", value_parser = parse_allowed, value_name = "WHAT[@CIDR]")]
    allowed: Vec<SecurityRuleCreate>,
    /// Let nothing out but replies
    #[arg(long)]
    no_egress: bool,
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    exists: IfNotExists,
}

#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Let something pass; it holds at once
    Add(RuleArgs),
    /// Don't let it pass any more (`iaasctl security-group show` has the ids)
    Remove {
        group: String,
        #[arg(required = true)]
        rules: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Family {
    Ipv4,
    Ipv6,
}

#[derive(Debug, Args)]
pub struct RuleArgs {
    group: String,
    /// What leaves the instances, instead of what comes in
    #[arg(long)]
    egress: bool,
    /// tcp, udp, sctp, icmp, icmpv6 or a number; without it tcp if ports are given, else everything
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// `22` or `8000-8100`
    #[arg(long, value_name = "PORT|FIRST-LAST")]
    port: Option<String>,
    /// Of icmp
    #[arg(long, value_name = "N")]
    icmp_type: Option<u8>,
    /// Of icmp
    #[arg(long, value_name = "N", requires = "icmp_type")]
    icmp_code: Option<u8>,
    /// The other end's addresses; without it, anybody
    #[arg(long, value_name = "CIDR", conflicts_with = "remote_group")]
    remote: Option<String>,
    /// The other end is an instance in this group
    #[arg(long, value_name = "NAME")]
    remote_group: Option<String>,
    /// Without it: as the other end's addresses are, else ipv4
    #[arg(long, value_enum)]
    family: Option<Family>,
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
            ethertype: self.family.map(|family| match family {
                Family::Ipv4 => Ethertype::Ipv4,
                Family::Ipv6 => Ethertype::Ipv6,
            }),
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
            let change = something(Described { name, description }, "security-group set")?;
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
