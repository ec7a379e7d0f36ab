//! `instance ssh`: the way in over a floating IP.
//!
//! What would make ssh wait in vain is said before: no floating IP, a stopped instance, no rule that lets SSH in. Then this process
//! becomes `ssh`. Floating IPs move between instances, so host keys are remembered by the instance's id, not by the address.

use crate::{context::Context, error::CliError, exit, output::print};
use clap::Args;
use client::{Client, model::Instance};
use domain::instance::InstanceState;
use std::{ffi::OsString, net::IpAddr, os::unix::process::CommandExt, path::PathBuf, process::Command};

const SSH_PORT: u16 = 22;

#[derive(Debug, Args)]
pub struct SshArgs {
    instance: String,
    /// The user name in the guest; without it, the one that ssh chooses
    #[arg(long, short, value_name = "USER")]
    login: Option<String>,
    /// The private key file; without it, the one that ssh chooses
    #[arg(long, short, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The command to run in the guest, with its arguments; without it, a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn failed(detail: String, hint: String, code: u8) -> CliError {
    CliError::Failed { detail, hint: Some(hint), code }
}

/// The floating IP that ssh can use.
fn way_in(instance: &Instance) -> Result<IpAddr, CliError> {
    let name = &instance.name;
    if instance.state != InstanceState::Running {
        let detail = format!("the instance {name} is {}, so ssh can't connect", instance.state.as_str());
        return Err(failed(detail, format!("iaasctl instance start {name} --wait=guest"), exit::CONFLICT));
    }
    if instance.nics.is_empty() {
        let detail = format!("the instance {name} has no NIC");
        let hint = format!(
            "iaasctl instance nic add {name} --network default, then iaasctl floating-ip create --instance {name}; or use \
             iaasctl instance console {name}"
        );
        return Err(failed(detail, hint, exit::CONFLICT));
    }
    instance.nics.iter().flat_map(|nic| &nic.floating_ips).next().copied().ok_or_else(|| {
        let detail = format!("the instance {name} has no floating IP, so it can't be reached from here");
        failed(detail, format!("iaasctl floating-ip create --instance {name}"), exit::CONFLICT)
    })
}

/// Refuses when surely no rule lets SSH in. Whoever may not look at the rules just tries.
async fn check_rules(client: &Client, instance: &Instance, address: IpAddr) -> Result<(), CliError> {
    let nic = instance.nics.iter().find(|nic| nic.floating_ips.contains(&address));
    let Some(nic) = nic else { return Ok(()) };
    let Ok(port) = client.port(&nic.port_id.to_string()).await else { return Ok(()) };
    let mut names = Vec::new();
    for group in &port.security_groups {
        let Ok(group) = client.security_group(&group.id.to_string()).await else { return Ok(()) };
        if group.rules.iter().any(|rule| rule.opens_tcp(SSH_PORT)) {
            return Ok(());
        }
        names.push(group.name.to_string());
    }
    let name = &instance.name;
    let (detail, hint) = match names.first() {
        None => (
            format!("the instance {name} is in no security group, so all traffic to it is dropped"),
            format!("iaasctl port set {} --security-group default", port.id),
        ),
        Some(first) => (
            format!("no rule of the security groups of {name} ({}) allows SSH", names.join(", ")),
            format!(
                "iaasctl security-group rule add {first} --port {SSH_PORT} (with --remote YOUR-ADDRESS/32 only from your address)"
            ),
        ),
    };
    Err(failed(detail, hint, exit::CONFLICT))
}

fn arguments(instance: &Instance, address: IpAddr, args: &SshArgs) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec![
        "-o".into(),
        format!("HostKeyAlias=iaas-{}", instance.id).into(),
        "-o".into(),
        "CheckHostIP=no".into(),
        "-o".into(),
        "StrictHostKeyChecking=accept-new".into(),
    ];
    if let Some(login) = &args.login {
        all.extend(["-l".into(), login.into()]);
    }
    if let Some(identity) = &args.identity {
        all.extend(["-i".into(), identity.into()]);
    }
    all.extend(["--".into(), address.to_string().into()]);
    all.extend(args.command.iter().cloned());
    all
}

pub(super) async fn run(context: &Context, client: &Client, args: SshArgs) -> Result<(), CliError> {
    let instance = client.instance(&args.instance).await?;
    let address = way_in(&instance)?;
    check_rules(client, &instance, address).await?;
    let arguments = arguments(&instance, address, &args);
    if context.dry_run {
        let arguments_shown: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        return print(&format!("dry run: ssh {}\n", arguments_shown.join(" ")));
    }
    // Only comes back when there is no ssh.
    let error = Command::new("ssh").args(arguments).exec();
    Err(failed(
        format!("ssh can't be started: {error}"),
        format!("install an OpenSSH client (apt install openssh-client); the address is {address}"),
        exit::FAILURE,
    ))
}
