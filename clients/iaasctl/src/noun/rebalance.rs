//! `rebalance`: moves that would free hosts.

use crate::{context::Context, error::CliError, output::Format};
use clap::Args;

#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// Only say what would be moved; nothing else can be asked for yet
    #[arg(long, required = true)]
    plan: bool,
    /// At most so many moves
    #[arg(long, default_value_t = 100, value_name = "N")]
    moves: u32,
    /// What a freed host is worth, in moves
    #[arg(long, default_value_t = 20, value_name = "N")]
    moves_per_host: u32,
}

pub(super) async fn run(context: Context, args: RebalanceArgs) -> Result<(), CliError> {
    let plan = context.client()?.rebalance_plan(args.moves, args.moves_per_host).await?;
    if context.out.format != Format::Table {
        return context.out.value(&plan);
    }
    context.out.list(&plan.moves)?;
    context.note(&format!(
        "{} moves would free {} hosts; {} MiB of memory and {} GiB of disks would be copied",
        plan.moves.len(),
        plan.freed_host_ids.len(),
        plan.memory_mib,
        plan.disk_gib
    ));
    Ok(())
}
