//! What names in requests stand for: images, flavors, SSH keys.
//!
//! A create names an image and a flavor, mostly the same ones, hundreds of times a second. So what was found is remembered for a
//! moment (`LIFETIME`) and forgotten at once when this process changes it. What isn't found is never remembered, and neither is an
//! image that isn't complete. The cluster-manager checks the image again, in the change itself; flavors and keys are copied into the
//! instance, so one that was deleted a moment ago does no harm.

use crate::{app::App, auth::cache::TtlCache, failure::ApiError};
use domain::{
    FlavorId, ImageId, Problem, ProjectId, SshKeyId,
    flavor::Flavor,
    image::{Image, ImageState, usable_by},
    ssh_key::SshKey,
};
use std::{sync::Arc, time::Duration};

const LIFETIME: Duration = Duration::from_secs(1);
const ENTRIES_MAX: usize = 4096;

pub struct Catalog {
    images: TtlCache<(ProjectId, String), Arc<Image>>,
    flavors: TtlCache<String, Arc<Flavor>>,
    ssh_keys: TtlCache<(ProjectId, String), Arc<SshKey>>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            images: TtlCache::new(LIFETIME, ENTRIES_MAX),
            flavors: TtlCache::new(LIFETIME, ENTRIES_MAX),
            ssh_keys: TtlCache::new(LIFETIME, ENTRIES_MAX),
        }
    }
}

impl Catalog {
    /// Drops everything. This process calls it after any write of images, flavors or keys.
    pub fn invalidate(&self) {
        self.images.invalidate();
        self.flavors.invalidate();
        self.ssh_keys.invalidate();
    }

    /// The image that `key` (an id, or a name: the project's own, else a public one) means to the project.
    pub async fn image(&self, app: &App, project_id: ProjectId, key: &str) -> Result<Arc<Image>, ApiError> {
        let entry = (project_id, key.to_owned());
        if let Some(known) = self.images.get(&entry) {
            return Ok(known);
        }
        let version = self.images.version();
        let image = Arc::new(image_find(app, project_id, key).await?);
        if image.state == ImageState::Active {
            self.images.put(entry, Arc::clone(&image), version);
        }
        Ok(image)
    }

    pub async fn flavor(&self, app: &App, key: &str) -> Result<Arc<Flavor>, ApiError> {
        if let Some(known) = self.flavors.get(key) {
            return Ok(known);
        }
        let version = self.flavors.version();
        let found = match key.parse::<FlavorId>() {
            Ok(id) => app.store().flavor_find(id).await?,
            Err(_) => app.store().flavor_find_by_name(key).await?,
        };
        let flavor = Arc::new(found.ok_or_else(|| Problem::not_found("flavor", shown(key)))?);
        self.flavors.put(key.to_owned(), Arc::clone(&flavor), version);
        Ok(flavor)
    }

    pub async fn ssh_key(&self, app: &App, project_id: ProjectId, key: &str) -> Result<Arc<SshKey>, ApiError> {
        let entry = (project_id, key.to_owned());
        if let Some(known) = self.ssh_keys.get(&entry) {
            return Ok(known);
        }
        let version = self.ssh_keys.version();
        let found = match key.parse::<SshKeyId>() {
            Ok(id) => app.store().ssh_key_find(project_id, id).await?,
            Err(_) => app.store().ssh_key_find_by_name(project_id, key).await?,
        };
        let ssh_key = Arc::new(found.ok_or_else(|| Problem::not_found("ssh key", shown(key)))?);
        self.ssh_keys.put(entry, Arc::clone(&ssh_key), version);
        Ok(ssh_key)
    }
}

/// The image as it is now. One that the project may not use is one that isn't there.
pub async fn image_find(app: &App, project_id: ProjectId, key: &str) -> Result<Image, ApiError> {
    let found = match key.parse::<ImageId>() {
        Ok(id) => app.store().image_find(id).await?.filter(|image| usable_by(image, project_id)),
        Err(_) => app.store().image_find_by_name(project_id, key).await?,
    };
    found.ok_or_else(|| Problem::not_found("image", shown(key)).into())
}

/// No id and no name is longer.
pub const KEY_BYTES_MAX: usize = 64;

/// A key as it may be repeated in a message.
#[must_use]
pub fn shown(key: &str) -> String {
    key.chars().take(KEY_BYTES_MAX).collect()
}
