//! What all parts of this service share.

use crate::{
    link::Links,
    topology::{Learned, Topology},
};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub struct Manager {
    pub store: Store,
    /// Never held across an await.
    topology: RwLock<Topology>,
    pub links: Links,
    pub tasks: TaskTracker,
    /// Ends streams and background work.
    pub shutdown: CancellationToken,
}

impl Manager {
    #[must_use]
    pub fn new(store: Store, topology: Topology, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { store, topology: RwLock::new(topology), links: Links::default(), tasks, shutdown }
    }

    pub fn topology(&self) -> RwLockReadGuard<'_, Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was committed: memory follows, and the hosts that it concerns are told.
    pub fn learn(&self, news: impl IntoIterator<Item = Learned>) {
        let touched = {
            let mut topology = self.topology.write().unwrap_or_else(PoisonError::into_inner);
            news.into_iter().fold(Vec::new(), |mut touched, one| {
                touched.extend(topology.learn(one));
                touched
            })
        };
        self.links.mark(touched);
    }
}
