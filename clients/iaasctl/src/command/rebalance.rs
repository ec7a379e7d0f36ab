//! `rebalance`: moves that would free hosts or even out load.

use crate::{context::Context, error::CliError, output::Format};
use clap::{Args, ValueEnum};
use client::model::RebalanceGoal;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Goal {
    /// Empty hosts, which can then be switched off or removed
    FreeHosts,
    /// Similar load on all hosts
    EvenLoad,
}

#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// Show the moves without making them; this is required, as moving isn't supported yet
    #[arg(long, required = true)]
    plan: bool,
    /// The goal of the moves
    #[arg(long, value_enum, default_value_t = Goal::FreeHosts)]
    goal: Goal,
    /// The most moves to plan
    #[arg(long, default_value_t = 100, value_name = "N")]
    moves: u32,
    /// With --goal free-hosts: the most moves that emptying one host may take
    #[arg(long, default_value_t = 20, value_name = "N")]
    moves_per_host: u32,
    /// With --goal even-load: the difference in load between two hosts, in percent, that is small enough
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
        Goal::FreeHosts => format!("empty {} hosts", plan.freed_host_ids.len()),
        Goal::EvenLoad => format!(
            "reduce the largest difference in load between two hosts from {} % to {} %",
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
