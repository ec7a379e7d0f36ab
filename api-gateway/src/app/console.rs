//! Sessions with an instance's console, by way of the cluster-manager: the live serial port here, the log in `console_log`. The instance's host calls the cluster-manager back, so opening one takes a moment and can be refused.

use crate::{
    app::{App, console_ticket::Grant},
    failure::ApiError,
};
use domain::{InstanceId, ProjectId};
use proto::cluster::v1::{self as pb, console_input::Input, console_open::What};
use service_kit::context::CallContext;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// What the guest printed last, shown when a console opens.
const REPLAY_BYTES: u32 = 8 * 1024;
/// Keystrokes on their way.
const BUFFERED: usize = 64;
/// An open session with the instance's host.
pub struct Session {
    pub input: mpsc::Sender<pb::ConsoleInput>,
    pub output: Streaming<pb::ConsoleOutput>,
}

pub(super) async fn open(
    app: &App,
    context: &CallContext,
    project_id: ProjectId,
    instance_id: InstanceId,
    what: What,
) -> Result<Session, ApiError> {
    let (input, stream) = mpsc::channel(BUFFERED);
    let open =
        pb::ConsoleOpen { project_id: project_id.to_string(), instance_id: instance_id.to_string(), what: Some(what) };
    let opened = input.try_send(pb::ConsoleInput { input: Some(Input::Open(open)) });
    debug_assert!(opened.is_ok(), "an empty channel has room");
    let output = app.cluster().console(context.request(ReceiverStream::new(stream))).await?.into_inner();
    Ok(Session { input, output })
}

/// The live serial port.
pub async fn open_serial(app: &App, grant: &Grant) -> Result<Session, ApiError> {
    let what = What::Serial(pb::SerialConsole { replay_bytes: REPLAY_BYTES });
    open(app, &grant.context, grant.project_id, grant.instance_id, what).await
}
