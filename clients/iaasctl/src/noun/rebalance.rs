//! `rebalance`: moves that would free hosts or even out load.

use crate::{context::Context, error::CliError, output::Format};
use clap::{Args, ValueEnum};
use client::model::RebalanceGoal;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Goal {
    /// Empty hosts, to switch off or to give away
    FreeHosts,
    /// Hosts used alike
    EvenLoad,
}

#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// Only say what would be moved; nothing else can be asked for yet
    #[arg(long, required = true)]
    plan: bool,
    /// What the moves are for
    #[arg(long, value_enum, default_value_t = Goal::FreeHosts)]
    goal: Goal,
    /// At most so many moves
    #[arg(long, default_value_t = 100, value_name = "N")]
    moves: u32,
    /// What a freed host is worth, in moves
    #[arg(long, default_value_t = 20, value_name = "N")]
    moves_per_host: u32,
    /// With --goal even-load: hosts are even whose loads differ by no more than so many percent
    #[arg(long, default_value_t = 10, value_name = "PERCENT")]
    tolerance: u32,
}

pub(super) async fn run(context: Context, args: RebalanceArgs) -> Result<(), CliError> {
    let goal = match args.goal {
        Goal::FreeHosts => RebalanceGoal::FreeHosts { moves_per_host: args.moves_per_host },
        Goal::EvenLoad => RebalanceGoal::EvenLoad { tolerance: args.tolerance },
    };
    let plan = context.client()?.rebalance_plan(goal, args.moves).await?;
    if context.out.format != Format::Table {
        return context.out.value(&plan);
    }
    context.out.list(&plan.moves)?;
    let gain = match args.goal {
        Goal::FreeHosts => format!("free {} hosts", plan.freed_host_ids.len()),
        Goal::EvenLoad => format!(
            "narrow the widest gap between two hosts from {} to {} % of a host",
            percent(plan.gap_before_permille),
            percent(plan.gap_after_permille)
        ),
    };
    context.note(&format!(
        "{} moves would {gain}; {} MiB of memory and {} GiB of disks would be copied",
        plan.moves.len(),
        plan.memory_mib,
        plan.disk_gib
    ));
    Ok(())
}

/// 413 thousandths are 41.3 %.
fn percent(permille: u32) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}
