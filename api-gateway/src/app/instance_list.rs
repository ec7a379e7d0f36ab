//! Lists of instances: the filters' names become ids.

use crate::{
    app::{App, host},
    failure::ApiError,
};
use domain::{
    InstanceId, Problem, ProjectId,
    instance::{Instance, InstanceState},
};
use store::{InstanceFilter, Page};

/// What narrows a list of instances; what is empty narrows nothing.
#[derive(Debug, Clone, Default)]
pub struct InstanceQuery {
    /// None: all projects.
    pub project_id: Option<ProjectId>,
    pub states: Vec<InstanceState>,
    pub name: Option<String>,
    pub name_prefix: Option<String>,
    /// Id or name.
    pub image: Option<String>,
    /// Id or name.
    pub host: Option<String>,
    /// The instance has all of them.
    pub tags: Vec<(String, String)>,
    pub newest_first: bool,
}

pub async fn list(app: &App, query: InstanceQuery, page: Page) -> Result<Vec<Instance>, ApiError> {
    let InstanceQuery { project_id, states, name, name_prefix, image, host, tags, newest_first } = query;
    let image_id = match (&image, project_id) {
        (None, _) => None,
        (Some(key), Some(project_id)) => Some(app.catalog().image(app, project_id, key).await?.id),
        // Among all projects a name means nothing.
        (Some(key), None) => {
            Some(key.parse().map_err(|_| Problem::invalid("image", "an id is expected together with all_projects"))?)
        }
    };
    let host_id = match &host {
        None => None,
        Some(key) => Some(host::find(app, key).await?.id),
    };
    let after = page.after.as_deref().map(str::parse::<InstanceId>).transpose();
    let filter = InstanceFilter {
        project_id,
        state: states,
        host_id,
        image_id,
        name,
        name_prefix,
        tag: tags,
        after: after.map_err(|_| Problem::invalid("cursor", "this cursor is not from this API"))?,
        limit: page.limit,
        newest_first,
    };
    Ok(app.store().instance_list(&filter).await?.into_iter().map(Instance::from).collect())
}
