//! `capacity`: what still fits.

use crate::{
    context::Context,
    error::CliError,
    output::Format,
    view::{capacity_flavors, capacity_zones},
};

pub(super) async fn run(context: Context) -> Result<(), CliError> {
    let capacity = context.client()?.capacity().await?;
    if context.out.format != Format::Table {
        return context.out.value(&capacity);
    }
    context.out.list(&capacity_zones(&capacity))?;
    crate::output::print("\n")?;
    context.out.list(&capacity_flavors(&capacity))
}
