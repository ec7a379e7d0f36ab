//! The other managers and the images, as this service uses them.

pub mod coalesce;
pub mod resource;
pub mod storage;

use coalesce::Coalescer;
use domain::{ImageId, InstanceId, Problem, image::Image};
use operation::read_problem;
use resource::Resource;
use storage::Storage;
use store::{ReadError, Store};
use tokio_util::task::TaskTracker;

/// Images read in one go.
const IMAGES_MAX: usize = 256;

pub struct Clients {
    pub storage: Storage,
    pub resource: Resource,
    images: Coalescer<ImageId, Result<Option<Image>, ReadError>>,
}

impl Clients {
    pub fn new(storage: Storage, resource: Resource, store: Store, tasks: &TaskTracker) -> Self {
        let images = Coalescer::start(tasks, IMAGES_MAX, 1, move |ids: Vec<ImageId>| {
            let store = store.clone();
            async move { find_images(&store, &ids).await }
        });
        Self { storage, resource, images }
    }

    pub async fn image(&self, id: ImageId) -> Result<Option<Image>, Problem> {
        match self.images.call(id).await {
            Ok(found) => found.map_err(read_problem),
            Err(stopped) => Err(Problem::unavailable(stopped.to_string())),
        }
    }

    /// Removes what instances hold that are proven gone, or never came to be. `ports`: some had NICs.
    pub async fn remove_claims(&self, ids: &[InstanceId], ports: bool) -> Result<(), Problem> {
        let with_ports = if ports { ids } else { &[] };
        let (disks, ports) = tokio::join!(self.storage.remove(ids), self.resource.remove(with_ports));
        disks.and(ports)
    }
}

/// Concurrent creates mostly name the same few images: each is read once per round.
async fn find_images(store: &Store, ids: &[ImageId]) -> Vec<Result<Option<Image>, ReadError>> {
    let mut distinct = ids.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let found = futures::future::join_all(distinct.iter().map(|id| store.image_find(*id))).await;
    ids.iter().map(|id| found[distinct.partition_point(|d| d < id)].clone()).collect()
}
