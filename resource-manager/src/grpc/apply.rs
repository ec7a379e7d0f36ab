//! Changes of networks and what is in them.

use crate::Manager;
use domain::{ErrorKind, Problem};
use proto::resource::v1 as pb;
use service_kit::context::CallContext;
use std::sync::Arc;

pub(super) async fn apply(
    _manager: &Arc<Manager>,
    _context: &CallContext,
    _request: pb::ApplyRequest,
) -> Result<pb::ApplyResponse, Problem> {
    Err(Problem::new(ErrorKind::Unavailable, "not_there_yet", "this change is being built"))
}
