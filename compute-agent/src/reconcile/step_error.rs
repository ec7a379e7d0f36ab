//! Why a step failed.

use crate::{disk::overlay::DiskError, images::FetchError, ledger::LedgerError, qmp::QmpError};
use service_kit::error_chain;
use std::{io, path::Path};

/// Why a step failed, in words for the instance's owner.
#[derive(Debug)]
pub(super) struct StepError {
    pub reason: String,
    /// Somebody has to act before the step can succeed.
    pub fault: bool,
}

pub(super) type StepResult = Result<(), StepError>;

pub(super) fn fault(error: &(dyn std::error::Error + 'static)) -> StepError {
    StepError { reason: error_chain(error), fault: true }
}

pub(super) fn transient(error: &(dyn std::error::Error + 'static)) -> StepError {
    StepError { reason: error_chain(error), fault: false }
}

impl From<LedgerError> for StepError {
    fn from(error: LedgerError) -> Self {
        fault(&error)
    }
}

impl From<QmpError> for StepError {
    fn from(error: QmpError) -> Self {
        transient(&error)
    }
}

impl From<DiskError> for StepError {
    fn from(error: DiskError) -> Self {
        fault(&error)
    }
}

impl From<FetchError> for StepError {
    fn from(error: FetchError) -> Self {
        Self { reason: error.to_string(), fault: error.fault() }
    }
}

pub(super) fn on_path(path: &Path) -> impl Fn(io::Error) -> StepError + '_ {
    move |source| fault(&DiskError::io(path, source))
}
