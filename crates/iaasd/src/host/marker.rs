//! The marker of the compute-agent's state directory: a directory that isn't mounted is noticed before anything is made in its place.
//!
//! **The problem.** Ledger, disks and images are often on a file system of their own. When it isn't mounted at boot, the path leads to an empty
//! directory. An agent that began there would make a new ledger, and everything that it made would be hidden as soon as the file system
//! is mounted after all. The manager notices the other ledger and holds the host, but it may be away for hours.
//!
//! **How.** At its first start the host draws an id, writes it into the directory (`marker`) and into `identity.json`, which lies elsewhere. Later
//! starts compare the two. Where they differ, the agent makes nothing and starts nothing: it waits until the directory is back, or until the
//! operator says that it is lost (`iaasd host accept-loss`).
//!
//! The marker is written before the identity names it, so a crash between the two leaves a marker that the next start replaces.

use super::identity;
use crate::config::Config;
use anyhow::Context;
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
    "{} is not this host's state directory: its marker is {found}. Mount or restore it, and the agent goes on by itself. If it is lost for good, \
     run `iaasd host accept-loss`: the host begins with an empty one, and the control plane holds it until the loss is accepted there, too",
    dir.display()
)]
pub struct NotOurs {
    dir: PathBuf,
    found: &'static str,
}

fn path(config: &Config) -> PathBuf {
    config.compute.state_dir.join(NAME)
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{}", path.display())),
    }
}

/// Whether the state directory is the one that this host had before. It changes nothing; a host that had none yet has no objection.
pub fn check(config: &Config) -> anyhow::Result<Result<(), NotOurs>> {
    let Some(expected) = identity::marker(&config.host_dir())? else { return Ok(Ok(())) };
    let found = read(&path(config))?;
    if found.as_deref() == Some(expected.to_string().as_str()) {
        return Ok(Ok(()));
    }
    let found = if found.is_some() { "another host's, or of another time" } else { "missing" };
    Ok(Err(NotOurs { dir: config.compute.state_dir.clone(), found }))
}

/// Marks the directory of a host that has marked none yet; refuses one that isn't this host's.
pub fn ensure(config: &Config) -> anyhow::Result<Result<(), NotOurs>> {
    if identity::marker(&config.host_dir())?.is_some() {
        return check(config);
    }
    let marker = Uuid::new_v4();
    let dir = &config.compute.state_dir;
    // Instances' users may pass through, as through all of the agent's directories.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir);
    made.with_context(|| format!("{}", dir.display()))?;
    let path = path(config);
    secret_file::write(&path, marker.to_string().as_bytes()).with_context(|| format!("{}", path.display()))?;
    identity::change(&config.host_dir(), |identity| identity.compute_marker = Some(marker))?;
    Ok(Ok(()))
}

/// Returns when the directory is this host's; false: the agent was told to stop meanwhile.
pub async fn wait(config: &Config, shutdown: &CancellationToken) -> anyhow::Result<bool> {
    let mut logged = false;
    loop {
        let Err(reason) = ensure(config)? else { return Ok(true) };
        if !std::mem::replace(&mut logged, true) {
            tracing::error!(%reason, "the compute-agent starts nothing");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return Ok(false),
        }
    }
}

/// The operator's decision that the directory is lost: the next one is marked anew. Answers whether there was anything to accept.
pub fn accept_loss(config: &Config) -> anyhow::Result<bool> {
    if check(config)?.is_ok() {
        return Ok(false);
    }
    identity::change(&config.host_dir(), |identity| identity.compute_marker = None)?;
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
        let dir = tempfile::tempdir().expect("tempdir");
        let config = host(dir.path());
        let (state, aside) = (config.compute.state_dir.clone(), dir.path().join("aside"));
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
        assert_eq!(ensure(&config).expect("written"), Ok(()));
        assert!(!accept_loss(&config).expect("readable"), "nothing is lost");
        std::fs::remove_dir_all(&config.compute.state_dir).expect("lost");
        assert!(accept_loss(&config).expect("accepted"));
        assert_eq!(ensure(&config).expect("a new one"), Ok(()));
        assert_eq!(check(&config).expect("readable"), Ok(()));
    }

    #[tokio::test]
    async fn the_agent_goes_on_by_itself_once_the_directory_is_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let config = host(dir.path());
        let shutdown = CancellationToken::new();
        assert!(wait(&config, &shutdown).await.expect("marked"));
        let (state, aside) = (config.compute.state_dir.clone(), dir.path().join("aside"));
        std::fs::rename(&state, &aside).expect("unmounted");
        let (waiting, stop) = (config.clone(), shutdown.clone());
        let waiter = tokio::spawn(async move { wait(&waiting, &stop).await.expect("readable") });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        std::fs::rename(&aside, &state).expect("mounted");
        assert!(waiter.await.expect("no panic"));
        std::fs::rename(&state, &aside).expect("unmounted");
        shutdown.cancel();
        assert!(!wait(&config, &shutdown).await.expect("readable"), "it was told to stop");
    }
}
