//! What the verbs of all nouns do with changes: make, show, delete many, and say what failed.

use crate::{context::Context, error::CliError, exit, output::Row};
use client::{ClientError, Mutation};
use serde::de::DeserializeOwned;

/// Makes an object and shows it; one that exists already is shown instead, if that is asked for. `None`: a dry run.
pub(super) async fn create<T: DeserializeOwned + Row>(
    context: &Context,
    mutation: Mutation<T>,
    if_not_exists: bool,
    existing: impl Future<Output = Result<T, ClientError>>,
) -> Result<Option<T>, CliError> {
    match context.change(mutation).await {
        Err(CliError::Client(ClientError::Problem(problem)))
            if if_not_exists && problem.status == 409 && problem.code == "name_taken" =>
        {
            context.note("it already exists");
            Ok(Some(existing.await?))
        }
        other => other,
    }
}

pub(super) async fn create_and_show<T: DeserializeOwned + Row>(
    context: &Context,
    mutation: Mutation<T>,
    if_not_exists: bool,
    existing: impl Future<Output = Result<T, ClientError>>,
) -> Result<(), CliError> {
    match create(context, mutation, if_not_exists, existing).await? {
        Some(object) => context.out.one(&object),
        None => Ok(()),
    }
}

/// Refuses a change of nothing.
pub(super) fn something<T: Default + PartialEq>(change: T, command: &str) -> Result<T, CliError> {
    if change == T::default() {
        return Err(CliError::usage("nothing to change").with_hint(format!("iaasctl {command} --help")));
    }
    Ok(change)
}

/// Deletes each; one that fails doesn't keep the others.
pub(super) async fn delete_each(
    context: &Context,
    kind: &str,
    names: &[String],
    delete: impl Fn(&str) -> Mutation<()>,
) -> Result<(), CliError> {
    let mut failures = Failures::default();
    for name in names {
        match context.change(delete(name)).await {
            Ok(Some(())) => context.note(&format!("{kind} {name} deleted")),
            Ok(None) => {}
            Err(error) => failures.add(name, error, names.len()),
        }
    }
    failures.end()
}

/// The failures of a command on many objects: each is said at once, the first one's kind is the exit code.
#[derive(Default)]
pub(crate) struct Failures {
    first: Option<CliError>,
    said: bool,
}

impl Failures {
    pub fn add(&mut self, name: &str, error: CliError, of: usize) {
        if of > 1 {
            eprint!("{name}: {}", error.render());
            self.said = true;
        }
        self.first.get_or_insert(error);
    }

    pub fn end(self) -> Result<(), CliError> {
        match self.first {
            None => Ok(()),
            Some(error) if self.said => Err(CliError::Said { code: error.exit_code().max(exit::FAILURE) }),
            Some(error) => Err(error),
        }
    }
}
