//! What is known of an instance: itself, how its place was chosen, what happened to it. Also of one that was refused or no longer exists, as
//! long as that is kept.

use crate::{
    app::{App, host, instance, network::related, placement_record},
    auth::caller::SystemRole,
    failure::ApiError,
};
use domain::{
    ErrorKind, InstanceId, ProjectId, event::Event, host::Host, instance::Instance, placement::KeptPlacement,
};
use store::PlacementRecordFilter;

/// The last events that an explanation has.
const LAST: u32 = 20;
/// Placement records that an explanation has.
const RECORDS: u32 = 20;

pub struct Explanation {
    /// None: there is no instance of that name; the rest is of what was refused or ended last.
    pub instance: Option<(Instance, related::Related)>,
    /// Its host, for those who may know of it.
    pub host: Option<Host>,
    /// The newest first.
    pub records: Vec<KeptPlacement>,
    /// The newest last.
    pub events: Vec<Event>,
}

/// Explains the instance behind an id or a name.
pub async fn explain(app: &App, project_id: ProjectId, key: &str, role: SystemRole) -> Result<Explanation, ApiError> {
    let instance = match instance::find(app, project_id, key).await {
        Ok(instance) => instance,
        Err(missing) if missing.problem().kind == ErrorKind::NotFound => {
            let records = records(app, project_id, key).await?;
            let Some(newest) = records.first() else { return Err(missing) };
            let events = last_events(app, newest.instance_id).await?;
            return Ok(Explanation { instance: None, host: None, records, events });
        }
        Err(other) => return Err(other),
    };
    let records = records(app, project_id, instance.name.as_str()).await?;
    let host = match instance.host_id.filter(|_| role == SystemRole::Admin) {
        Some(id) => Some(host::find(app, &id.to_string()).await?),
        None => None,
    };
    let events = last_events(app, instance.id).await?;
    let related = related::instances(app, [&instance]).await?;
    Ok(Explanation { instance: Some((instance, related)), host, records, events })
}

/// The records of an id or a name, the newest first.
async fn records(app: &App, project_id: ProjectId, key: &str) -> Result<Vec<KeptPlacement>, ApiError> {
    let filter = PlacementRecordFilter {
        project_id: Some(project_id),
        limit: RECORDS,
        newest_first: true,
        ..placement_record::of_instance(Some(key))
    };
    placement_record::list(app, &filter).await
}

async fn last_events(app: &App, id: InstanceId) -> Result<Vec<Event>, ApiError> {
    Ok(app.store().event_last_of_object(&id.to_string(), LAST).await?)
}

/// What happened to an instance after the event `after`, the oldest first. By its id also when it no longer exists.
pub async fn timeline(
    app: &App,
    project_id: ProjectId,
    key: &str,
    after: i64,
    limit: u32,
) -> Result<Vec<Event>, ApiError> {
    let id = match key.parse::<InstanceId>() {
        Ok(id) => id,
        Err(_) => instance::find(app, project_id, key).await?.id,
    };
    let mut events = app.store().event_of_object(&id.to_string(), after, limit).await?;
    // The id may be of another project, or of nothing, or of what is past retention.
    let foreign = events.iter().any(|event| event.project_id != Some(project_id));
    if foreign || (events.is_empty() && after == 0) {
        instance::find(app, project_id, key).await?;
        events.clear();
    }
    Ok(events)
}
