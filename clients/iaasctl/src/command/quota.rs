//! `quota`: limits and usage.

use crate::{
    context::Context,
    error::CliError,
    output::Format,
    size::{parse_gib, parse_mib},
    view::quota_lines,
};
use clap::{Args, Subcommand};
use client::model::{Quota, QuotaChange};

#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// Show the limits and the usage of a project
    Show {
        /// The project; without it, the project in use
        project: Option<String>,
    },
    /// Change limits (system admins)
    Set {
        project: String,
        /// Instances in any state
        #[arg(long, value_name = "N")]
        instances: Option<u32>,
        #[arg(long, value_name = "N")]
        vcpus: Option<u32>,
        /// Memory of all instances together, with a unit: `64GiB`
        #[arg(long, value_parser = parse_mib, value_name = "SIZE")]
        memory: Option<u64>,
        /// Disk of all instances together, with a unit: `500GiB`
        #[arg(long, value_parser = parse_gib, value_name = "SIZE")]
        disk: Option<u64>,
        /// Images in any state
        #[arg(long, value_name = "N")]
        images: Option<u32>,
        /// What all images take together, with a unit: `200GiB`; each is rounded up to whole GiB
        #[arg(long, value_parser = parse_gib, value_name = "SIZE")]
        image_size: Option<u64>,
        /// SSH keys
        #[arg(long, value_name = "N")]
        ssh_keys: Option<u32>,
        /// Placement groups
        #[arg(long, value_name = "N")]
        placement_groups: Option<u32>,
        #[command(flatten)]
        networks: NetworkLimits,
    },
}

/// Limits of what networks are made of.
#[derive(Debug, Args)]
pub struct NetworkLimits {
    /// Networks
    #[arg(long, value_name = "N")]
    networks: Option<u32>,
    /// Subnets of all networks together
    #[arg(long, value_name = "N")]
    subnets: Option<u32>,
    /// Ports, including those of instances
    #[arg(long, value_name = "N")]
    ports: Option<u32>,
    /// Routers
    #[arg(long, value_name = "N")]
    routers: Option<u32>,
    /// Floating IPs, in use or not
    #[arg(long, value_name = "N")]
    floating_ips: Option<u32>,
    /// Security groups
    #[arg(long, value_name = "N")]
    security_groups: Option<u32>,
    /// Rules of all security groups together
    #[arg(long, value_name = "N")]
    security_rules: Option<u32>,
    /// Peerings
    #[arg(long, value_name = "N")]
    peerings: Option<u32>,
}

pub(super) async fn run(context: Context, command: QuotaCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        QuotaCommand::Show { project } => {
            let project = project.or_else(|| context.project.clone()).ok_or_else(|| {
                CliError::usage("no project was given")
                    .with_hint("iaasctl quota show PROJECT, or iaasctl config set project")
            })?;
            show(&context, &client.quota(&project).await?)
        }
        QuotaCommand::Set {
            project,
            instances,
            vcpus,
            memory,
            disk,
            images,
            image_size,
            ssh_keys,
            placement_groups,
            networks: limits,
        } => {
            let amount = |x: Option<u64>| x.map(|x| i64::try_from(x).unwrap_or(i64::MAX));
            let change = QuotaChange {
                instances: instances.map(i64::from),
                vcpus: vcpus.map(i64::from),
                memory_mib: amount(memory),
                disk_gib: amount(disk),
                images: images.map(i64::from),
                image_gib: amount(image_size),
                networks: limits.networks.map(i64::from),
                subnets: limits.subnets.map(i64::from),
                ports: limits.ports.map(i64::from),
                routers: limits.routers.map(i64::from),
                floating_ips: limits.floating_ips.map(i64::from),
                security_groups: limits.security_groups.map(i64::from),
                security_rules: limits.security_rules.map(i64::from),
                peerings: limits.peerings.map(i64::from),
                ssh_keys: ssh_keys.map(i64::from),
                placement_groups: placement_groups.map(i64::from),
            };
            if change == QuotaChange::default() {
                return Err(CliError::usage("nothing to change").with_hint("iaasctl quota set --help"));
            }
            match context.change(client.quota_set(&project, &change)).await? {
                Some(quota) => show(&context, &quota),
                None => Ok(()),
            }
        }
    }
}

fn show(context: &Context, quota: &Quota) -> Result<(), CliError> {
    match context.out.format {
        Format::Table => context.out.list(&quota_lines(quota)),
        Format::Json | Format::Yaml => context.out.value(quota),
    }
}
