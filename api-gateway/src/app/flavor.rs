//! Flavors: named sizes. Everybody reads them; system admins create and delete them.

use crate::{
    app::{
        App,
        catalog::shown,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        plan::Done,
    },
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{
    FlavorId, Name, Problem, Timestamp,
    flavor::{Flavor, Pinning, Size},
    limits,
};
use operation::Activity;
use store::{FlavorDelete, FlavorInsert, Unit};

pub struct FlavorRequest {
    pub name: Name,
    pub size: Size,
    pub pinning: Pinning,
    pub description: String,
}

/// The flavor behind an id or a name.
pub async fn find(app: &App, key: &str) -> Result<Flavor, ApiError> {
    let found = match key.parse::<FlavorId>() {
        Ok(id) => app.store().flavor_find(id).await?,
        Err(_) => app.store().flavor_find_by_name(key).await?,
    };
    found.ok_or_else(|| Problem::not_found("flavor", shown(key)).into())
}

pub async fn create(
    app: &App,
    caller: &Caller,
    request: FlavorRequest,
    intent: &Intent,
) -> Result<Done<Flavor>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let FlavorRequest { name, size, pinning, description } = request;
        if description.len() > limits::DESCRIPTION_BYTES {
            let detail = format!("more than {} bytes", limits::DESCRIPTION_BYTES);
            return Err(Problem::invalid("/description", detail).into());
        }
        if intent.dry_run && app.store().flavor_find_by_name(name.as_str()).await?.is_some() {
            return Err(Problem::already_exists("flavor", &name).into());
        }
        let id = FlavorId::new();
        let flavor = Flavor { id, name, size, pinning, description, generation: 1, created_at: Timestamp::now() };
        let unit = Unit::new().op(FlavorInsert {
            id: flavor.id,
            name: flavor.name.clone(),
            vcpus: size.vcpus,
            memory_mib: size.memory_mib,
            disk_gib: size.disk_gib,
            pinning: flavor.pinning,
            description: flavor.description.clone(),
            created_at: flavor.created_at,
        });
        let activity = activity("flavor.create", "flavor.created", "was created", &flavor);
        Ok(OwnChange { unit, activity, object_name: flavor.name.to_string(), outcome: flavor, changes_identity: false })
    })
    .await
}

pub async fn delete(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let flavor = find(app, key).await?;
        intent.check_generation(flavor.generation)?;
        let unit = Unit::new().op(FlavorDelete { id: flavor.id });
        let activity = activity("flavor.delete", "flavor.deleted", "was deleted", &flavor);
        Ok(OwnChange { unit, activity, object_name: flavor.name.to_string(), outcome: (), changes_identity: false })
    })
    .await
}

fn activity(action: &'static str, event: &'static str, what: &str, flavor: &Flavor) -> Activity {
    let message = format!("flavor {} {what}", flavor.name);
    Activity::new("flavor", flavor.id, action, event, message)
}
