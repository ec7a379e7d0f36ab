//! SSH public keys of a project. Instances get copies at their creation, so that deleting a key changes no instance.

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
    Name, Problem, ProjectId, SshKeyId, Timestamp,
    ssh_key::{SshKey, parse_public_key},
};
use operation::Activity;
use store::{IdentityUsageAdd, SshKeyDelete, SshKeyInsert, Unit};

/// The key behind an id or a name, in this project only.
pub async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<SshKey, ApiError> {
    let found = match key.parse::<SshKeyId>() {
        Ok(id) => app.store().ssh_key_find(project_id, id).await?,
        Err(_) => app.store().ssh_key_find_by_name(project_id, key).await?,
    };
    found.ok_or_else(|| Problem::not_found("ssh key", shown(key)).into())
}

pub async fn create(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    name: Name,
    public_key: &str,
    intent: &Intent,
) -> Result<Done<SshKey>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let parsed = parse_public_key(public_key);
        let (public_key, fingerprint) = parsed.map_err(|e| Problem::invalid("/public_key", e.to_string()))?;
        if intent.dry_run && app.store().ssh_key_find_by_name(project_id, name.as_str()).await?.is_some() {
            return Err(Problem::already_exists("ssh key", &name).into());
        }
        let (id, created_at) = (SshKeyId::new(), Timestamp::now());
        let key = SshKey { id, project_id, name, public_key, fingerprint, generation: 1, created_at };
        let unit = Unit::new().op(IdentityUsageAdd::ssh_keys(project_id, 1)).op(SshKeyInsert {
            id: key.id,
            project_id: key.project_id,
            name: key.name.clone(),
            public_key: key.public_key.clone(),
            fingerprint: key.fingerprint.clone(),
            created_at: key.created_at,
        });
        let activity = activity("ssh_key.create", "ssh_key.created", "was created", &key);
        Ok(OwnChange { unit, activity, object_name: key.name.to_string(), outcome: key, changes_identity: false })
    })
    .await
}

pub async fn delete(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    key: &str,
    intent: &Intent,
) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let key = find(app, project_id, key).await?;
        intent.check_generation(key.generation)?;
        let unit = Unit::new().op(SshKeyDelete { id: key.id }).op(IdentityUsageAdd::ssh_keys(project_id, -1));
        let activity = activity("ssh_key.delete", "ssh_key.deleted", "was deleted", &key);
        Ok(OwnChange { unit, activity, object_name: key.name.to_string(), outcome: (), changes_identity: false })
    })
    .await
}

fn activity(action: &'static str, event: &'static str, what: &str, key: &SshKey) -> Activity {
    let message = format!("SSH key {} {what}", key.name);
    Activity::new("ssh_key", key.id, action, event, message).in_project(key.project_id)
}
