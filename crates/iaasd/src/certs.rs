//! `iaasd certs`: the built-in CA by hand, for roles on hosts of their own.

use anyhow::{Context, ensure};
use clap::Subcommand;
use service_kit::tls::Ca;
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make the CA (once), or show where it is.
    Ca {
        /// Its directory; `ca.key` in it never leaves this machine.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Issue a certificate that a role serves with and calls with.
    Issue {
        #[arg(long)]
        ca_dir: PathBuf,
        /// control-plane, api-gateway, cluster-manager, storage-manager or resource-manager. Agents join with a token instead.
        #[arg(long)]
        role: String,
        /// A DNS name or address under which others reach it (repeatable).
        #[arg(long = "name")]
        names: Vec<String>,
        /// Where `<role>.pem`, `<role>.key` and `ca.pem` go: that role's `links.tls_dir`.
        #[arg(long)]
        out_dir: PathBuf,
        #[arg(long, default_value_t = 90)]
        days: u64,
    },
}

pub const ROLES: &[&str] = &["control-plane", "api-gateway", "cluster-manager", "storage-manager", "resource-manager"];

pub fn run(command: CertsCommand) -> anyhow::Result<()> {
    match command {
        CertsCommand::Ca { dir } => {
            Ca::open_or_create(&dir).with_context(|| format!("the CA in {}", dir.display()))?;
            println!("{}", dir.join("ca.pem").display());
        }
        CertsCommand::Issue { ca_dir, role, names, out_dir, days } => {
            ensure!(ROLES.contains(&role.as_str()), "`{role}` is not a role: {}", ROLES.join(", "));
            ensure!((1..=825).contains(&days), "--days must be 1 to 825");
            ensure!(
                ca_dir.join("ca.key").exists(),
                "there is no CA in {}: make one with `iaasd certs ca --dir`",
                ca_dir.display()
            );
            let ca = Ca::open_or_create(&ca_dir)?;
            let files = ca.issue_files(&out_dir, &role, &names, Duration::from_secs(days * 86_400))?;
            println!("{}", files.cert.display());
        }
    }
    Ok(())
}
