//! The markers of the agents' state directories: a directory that isn't mounted is noticed before anything is made in its place.
//!
//! **The problem.** Ledgers, disks and images are often on a file system of their own. When it isn't mounted at boot, the path leads to an empty
//! directory. An agent that began there would make a new ledger, and everything that it made would be hidden as soon as the file system
//! is mounted after all. The managers notice the other ledger, but they may be away for hours.
//!
//! **How.** At its first start each agent draws an id, writes it into its directory (`marker`) and into `identity.json`, which lies elsewhere. Later
//! starts compare the two. Where they differ, the agent makes nothing and starts nothing: it waits until the directory is back, or until the
//! operator says that it is lost (`iaasd host accept-loss`). The networks of what runs go on in the kernel meanwhile.
//!
//! The marker is written before the identity names it, so a crash between the two leaves a marker that the next start replaces.

use super::identity;
use crate::config::Config;
use anyhow::Context;
use domain::host::AgentRole;
use service_kit::secret_file;
use std::{
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const NAME: &str = "marker";
/// How often a directory that is missing is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a state directory isn't this host's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is not this host's state directory of the {}: its marker is {found}. Mount or restore it, and the agent goes on by itself. If it is \
     lost for good, run `iaasd host accept-loss --agent {}`: the agent begins with an empty one{}",
    dir.display(),
    agent.as_str(),
    agent.as_str(),
    what_then(*agent)
)]
pub struct NotOurs {
    agent: AgentRole,
    dir: PathBuf,
    found: &'static str,
}

/// What follows on an accepted loss.
pub fn what_then(agent: AgentRole) -> &'static str {
    match agent {
        AgentRole::ComputeAgent => {
            ". The control plane shows this host as held until the loss is accepted there, too: `iaasctl host accept-loss HOST`"
        }
        AgentRole::NetworkAgent => ", and the control plane gives it the host's networks again",
    }
}

/// The agent's state directory.
pub fn dir(config: &Config, agent: AgentRole) -> &Path {
    match agent {
        AgentRole::ComputeAgent => &config.compute.state_dir,
        AgentRole::NetworkAgent => &config.network.state_dir,
    }
}

/// With which mode the directory is made. Instances' users may pass through the compute-agent's.
fn mode(agent: AgentRole) -> u32 {
    match agent {
        AgentRole::ComputeAgent => 0o711,
        AgentRole::NetworkAgent => 0o700,
    }
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{}", path.display())),
    }
}

/// Whether the state directory is the one that the agent had before. It changes nothing; an agent that had none yet has no objection.
pub fn check(config: &Config, agent: AgentRole) -> anyhow::Result<Result<(), NotOurs>> {
    let Some(expected) = identity::marker(&config.host_dir(), agent)? else { return Ok(Ok(())) };
    let dir = dir(config, agent);
    let found = read(&dir.join(NAME))?;
    if found.as_deref() == Some(expected.to_string().as_str()) {
        return Ok(Ok(()));
    }
    let found = if found.is_some() { "another host's, or of another time" } else { "missing" };
    Ok(Err(NotOurs { agent, dir: dir.to_owned(), found }))
}

/// Marks the directory of an agent that has marked none yet; refuses one that isn't this host's.
pub fn ensure(config: &Config, agent: AgentRole) -> anyhow::Result<Result<(), NotOurs>> {
    if identity::marker(&config.host_dir(), agent)?.is_some() {
        return check(config, agent);
    }
    let marker = Uuid::new_v4();
    let dir = dir(config, agent);
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode(agent)).create(dir);
    made.with_context(|| format!("{}", dir.display()))?;
    let path = dir.join(NAME);
    secret_file::write(&path, marker.to_string().as_bytes()).with_context(|| format!("{}", path.display()))?;
    identity::change(&config.host_dir(), |identity| *identity.marker_mut(agent) = Some(marker))?;
    Ok(Ok(()))
}

/// Returns when the directory is this host's; false: the agent was told to stop meanwhile.
pub async fn wait(config: &Config, agent: AgentRole, shutdown: &CancellationToken) -> anyhow::Result<bool> {
    let mut logged = false;
    loop {
        let Err(reason) = ensure(config, agent)? else { return Ok(true) };
        if !std::mem::replace(&mut logged, true) {
            tracing::error!(%reason, "the {} starts nothing", agent.as_str());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return Ok(false),
        }
    }
}

/// The agents whose directory isn't this host's.
pub fn lost(config: &Config) -> anyhow::Result<Vec<AgentRole>> {
    let mut lost = Vec::new();
    for agent in AgentRole::ALL {
        if check(config, agent)?.is_err() {
            lost.push(agent);
        }
    }
    Ok(lost)
}

/// The operator's decision that the directory is lost: the next one is marked anew. Answers whether there was anything to accept.
pub fn accept_loss(config: &Config, agent: AgentRole) -> anyhow::Result<bool> {
    if check(config, agent)?.is_ok() {
        return Ok(false);
    }
    identity::change(&config.host_dir(), |identity| *identity.marker_mut(agent) = None)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Uses, host::Identity};

    fn host(dir: &Path) -> Config {
        let file = dir.join("iaasd.toml");
        std::fs::write(&file, format!("[paths]\nstate = {:?}\nrun = {:?}\n", dir.join("state"), dir.join("run")))
            .expect("written");
        let config = Config::load(&file, Uses::EVERYTHING).expect("valid");
        Identity::open_or_create(&config).expect("a host");
        config
    }

    #[test]
    fn a_directory_that_is_not_mounted_is_noticed_and_nothing_is_made_in_it() {
        AgentRole::ALL.into_iter().for_each(is_noticed);
    }

    fn is_noticed(agent: AgentRole) {
        let dir = tempfile::tempdir().expect("tempdir");
        let config = host(dir.path());
        let (check, ensure) = (|config| check(config, agent), |config| ensure(config, agent));
        let (state, aside) = (super::dir(&config, agent).to_owned(), dir.path().join("aside"));
        assert_eq!(check(&config).expect("readable"), Ok(()), "it has none yet");
        assert_eq!(ensure(&config).expect("written"), Ok(()));
        assert_eq!(ensure(&config).expect("again"), Ok(()));
        std::fs::rename(&state, &aside).expect("unmounted");
        let reason = ensure(&config).expect("readable").expect_err("it is gone").to_string();
        assert!(reason.contains("its marker is missing") && reason.contains("accept-loss"), "{reason}");
        assert!(!state.exists(), "nothing was made");
        std::fs::create_dir(&state).expect("an empty mount point");
        assert!(ensure(&config).expect("readable").is_err());
        assert_eq!(std::fs::read_dir(&state).expect("there").count(), 0);
        std::fs::write(state.join(NAME), Uuid::new_v4().to_string()).expect("another host's");
        let reason = ensure(&config).expect("readable").expect_err("another's").to_string();
        assert!(reason.contains("another host's"), "{reason}");
        std::fs::remove_dir_all(&state).expect("removed");
        std::fs::rename(&aside, &state).expect("mounted");
        assert_eq!(ensure(&config).expect("back"), Ok(()));
    }

    #[test]
    fn a_loss_is_accepted_once_and_only_when_there_is_one() {
        let dir = tempfile::tempdir().expect("tempdir");
        let config = host(dir.path());
        for agent in AgentRole::ALL {
            assert_eq!(ensure(&config, agent).expect("written"), Ok(()));
            assert!(!accept_loss(&config, agent).expect("readable"), "nothing is lost");
        }
        for agent in AgentRole::ALL {
            std::fs::remove_dir_all(super::dir(&config, agent)).expect("lost");
            assert_eq!(lost(&config).expect("readable"), [agent], "the other agent's isn't");
            assert!(accept_loss(&config, agent).expect("accepted"));
            assert_eq!(ensure(&config, agent).expect("a new one"), Ok(()));
            assert_eq!(check(&config, agent).expect("readable"), Ok(()));
        }
    }

    #[tokio::test]
    async fn the_agent_goes_on_by_itself_once_the_directory_is_back() {
        for agent in AgentRole::ALL {
            goes_on_by_itself(agent).await;
        }
    }

    async fn goes_on_by_itself(agent: AgentRole) {
        let dir = tempfile::tempdir().expect("tempdir");
        let config = host(dir.path());
        let shutdown = CancellationToken::new();
        assert!(wait(&config, agent, &shutdown).await.expect("marked"));
        let (state, aside) = (super::dir(&config, agent).to_owned(), dir.path().join("aside"));
        std::fs::rename(&state, &aside).expect("unmounted");
        let (waiting, stop) = (config.clone(), shutdown.clone());
        let waiter = tokio::spawn(async move { wait(&waiting, agent, &stop).await.expect("readable") });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        std::fs::rename(&aside, &state).expect("mounted");
        assert!(waiter.await.expect("no panic"));
        std::fs::rename(&state, &aside).expect("unmounted");
        shutdown.cancel();
        assert!(!wait(&config, agent, &shutdown).await.expect("readable"), "it was told to stop");
    }
}
