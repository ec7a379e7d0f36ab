//! Where a caller who wants a console and the agent that has it meet.
//!
//! Agents listen on nothing, so a session is requested on the agent's stream and the agent calls back. The session's id is random and
//! used once: who presents it is the agent that was requested. Both sides' bytes pass through bounded channels; when either side ends, the
//! other does.

pub mod session;

use crate::{agents::HostStream, manager::Manager};
use domain::{ErrorKind, HostId, InstanceId, Problem, ProjectId, instance::Instance};
use operation::read_problem;
use proto::{
    agent::v1::{self as agent, console_up::Up},
    cluster::v1::{self as pb, console_input::Input},
    convert::parse,
    status::{from_status, to_status},
};
use service_kit::share::{Exhausted, Place};
use session::AgentSide;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

/// How long a host may take none of what is typed. Then nobody reads what comes back either: such a session is over.
const INPUT_STUCK: Duration = Duration::from_secs(20);
/// Messages on their way to a reader that is slower than the guest.
const BUFFERED: usize = 64;

/// A session that both sides have joined.
pub struct OpenConsole {
    agent: AgentSide,
    from_caller: Streaming<pb::ConsoleInput>,
    place: Place<ProjectId>,
    guard: DropGuard,
}

/// Serves the caller's side: finds the instance's host, requests its agent to call back, and waits for it.
pub async fn open(manager: &Manager, mut from_caller: Streaming<pb::ConsoleInput>) -> Result<OpenConsole, Problem> {
    let first = from_caller.message().await.map_err(|s| from_status(&s))?;
    let Some(pb::ConsoleInput { input: Some(Input::Open(open)) }) = first else {
        return Err(Problem::invalid("open", "the first message opens the console"));
    };
    let project_id: ProjectId = parse("project_id", &open.project_id)?;
    let instance_id: InstanceId = parse("instance_id", &open.instance_id)?;
    let instance = manager
        .store
        .instance_find(Some(project_id), instance_id)
        .await
        .map_err(read_problem)?
        .ok_or_else(|| Problem::not_found("instance", instance_id))?;
    let (host_id, stream) = stream_of(manager, &instance)?;
    let place = manager.consoles.place(project_id).map_err(|exhausted| {
        let detail = match exhausted {
            Exhausted::Share => "the project has as many consoles open as one project may have now".to_owned(),
            Exhausted::Total => format!("{} consoles are open, the most at once", manager.config.console_sessions_max),
        };
        Problem::new(ErrorKind::RateLimited, "too_many_consoles", detail)
            .with_hint("close one, or ask your administrator to raise cluster.console_sessions_max")
    })?;
    let session_id = uuid::Uuid::new_v4().to_string();
    let (agent, _expected) = manager.consoles.expect(&session_id);
    stream.open_session(agent::OpenSession { session_id, open: Some(open) });
    let timeout = Duration::from_millis(manager.config.console_open_timeout_ms);
    let agent = tokio::select! {
        agent = tokio::time::timeout(timeout, agent) => agent,
        () = stream.closed.cancelled() => {
            return Err(disconnected(&instance, &manager.host_name(host_id)));
        }
    };
    let Ok(Ok(agent)) = agent else {
        return Err(Problem::new(
            ErrorKind::DeadlineExceeded,
            "console_timeout",
            format!("the host of {} didn't open its console within {} ms", instance.name, timeout.as_millis()),
        )
        .with_hint("try again; if that doesn't help, look at the log of the host's compute-agent"));
    };
    let guard = agent.ended.clone().drop_guard();
    Ok(OpenConsole { agent, from_caller, place, guard })
}

fn stream_of(manager: &Manager, instance: &Instance) -> Result<(HostId, Arc<HostStream>), Problem> {
    let host_id = instance
        .host_id
        .ok_or_else(|| Problem::invalid_state(format!("instance {} has no host yet", instance.name)))?;
    let stream = manager.agents.find(host_id).ok_or_else(|| disconnected(instance, &manager.host_name(host_id)))?;
    Ok((host_id, stream))
}

fn disconnected(instance: &Instance, host: &str) -> Problem {
    let mut problem =
        Problem::unavailable(format!("the console of {} can't be reached: its host is disconnected", instance.name));
    problem.code = "host_disconnected".to_owned();
    tracing::debug!(instance_id = %instance.id, host, "a console was requested on a disconnected host");
    problem.with_hint("the instance itself may well be running; try again when its host is back")
}

impl OpenConsole {
    /// The bytes for the caller, until either side ends.
    pub fn into_stream(
        self,
        shutdown: CancellationToken,
    ) -> impl futures::Stream<Item = Result<pb::ConsoleOutput, Status>> + Send {
        let Self { agent, mut from_caller, place, guard } = self;
        let AgentSide { mut from_agent, to_agent, ended } = agent;
        // The caller's input has a task of its own: a caller who sends nothing, or ends sending to follow a log, still reads.
        let input_ended = ended.clone();
        let stopped = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let input = tokio::select! {
                    () = input_ended.cancelled() => break,
                    input = from_caller.message() => input,
                };
                match input {
                    Ok(Some(pb::ConsoleInput { input: Some(Input::Data(data)) })) => {
                        let sent = tokio::select! {
                            () = input_ended.cancelled() => break,
                            sent = tokio::time::timeout(INPUT_STUCK, to_agent.send(agent::ConsoleDown { data })) => sent,
                        };
                        match sent {
                            Ok(Ok(())) => {}
                            Ok(Err(_)) => break input_ended.cancelled().await,
                            Err(_) => break,
                        }
                    }
                    Ok(Some(_)) => {}
                    // A caller who is gone ends the session; one that only stopped sending doesn't.
                    Err(_) => break,
                    Ok(None) => break input_ended.cancelled().await,
                }
            }
            input_ended.cancel();
            // The place goes with the session, not with the stream below: a caller who doesn't read keeps that from being polled.
            drop((place, to_agent));
            // What is still on its way is read and thrown away: until then the caller's side of the call can't end.
            let rest = async { while let Ok(Some(_)) = from_caller.message().await {} };
            tokio::select! { () = stopped.cancelled() => {}, () = rest => {} }
        });
        async_stream::stream! {
            let _guard = guard;
            loop {
                let up = tokio::select! {
                    () = ended.cancelled() => break,
                    () = shutdown.cancelled() => break,
                    up = from_agent.message() => up,
                };
                match up {
                    Ok(Some(agent::ConsoleUp { up: Some(Up::Output(output)) })) => yield Ok(output),
                    Ok(Some(agent::ConsoleUp { up: Some(Up::Error(error)) })) => {
                        let problem = Problem::invalid_state(format!("the console can't be opened: {}", error.detail));
                        yield Err(to_status(&problem));
                        break;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        yield Err(to_status(&Problem::unavailable("the connection to the console's host broke")));
                        break;
                    }
                }
            }
        }
    }
}

/// Serves the agent's side: its call back, which presents the session's id first.
pub async fn agent_side(
    manager: &Manager,
    mut from_agent: Streaming<agent::ConsoleUp>,
) -> Result<impl futures::Stream<Item = Result<agent::ConsoleDown, Status>> + Send + use<>, Problem> {
    let timeout = Duration::from_millis(manager.config.console_open_timeout_ms);
    let first = tokio::time::timeout(timeout, from_agent.message()).await;
    let Ok(Ok(Some(agent::ConsoleUp { up: Some(Up::Start(start)) }))) = first else {
        return Err(Problem::invalid("start", "the first message names the session"));
    };
    let caller = manager.consoles.take_caller(&start.session_id);
    let (to_agent, mut from_caller) = mpsc::channel(BUFFERED);
    let ended = CancellationToken::new();
    let agent = AgentSide { from_agent, to_agent, ended: ended.clone() };
    let gone = || Problem::not_found("console session", &start.session_id);
    caller.ok_or_else(gone)?.send(agent).map_err(|_| gone())?;
    let shutdown = manager.lifetime.shutdown.clone();
    Ok(async_stream::stream! {
        // When the agent drops this, the other direction ends too, after what it still has to send.
        loop {
            let down = tokio::select! {
                () = ended.cancelled() => break,
                () = shutdown.cancelled() => break,
                down = from_caller.recv() => down,
            };
            let Some(down) = down else { break };
            yield Ok(down);
        }
    })
}
