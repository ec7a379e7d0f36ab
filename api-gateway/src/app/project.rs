//! Projects: what belongs together, with its members and its quota.

use crate::{
    app::{
        App,
        catalog::shown,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        network,
        plan::Done,
    },
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{Name, Problem, ProjectId, Timestamp, identity::Project, limits, policy::Role, quota::QuotaAmounts};
use operation::Activity;
use store::{Page, ProjectDelete, ProjectInsert, ProjectRow, ProjectUpdate, QuotaLimitPut, RoleBindingPut, Unit};

pub(super) fn from_row(row: ProjectRow) -> Project {
    let ProjectRow { id, name, description, generation, created_at } = row;
    Project { id, name, description, generation, created_at }
}

/// The projects that the caller is in; a system admin's list has all.
pub async fn list(app: &App, caller: &Caller, page: Page) -> Result<Vec<Project>, ApiError> {
    let rows = if caller.system_admin() {
        app.store().project_list(page).await?
    } else {
        let mut rows = app.store().project_list_of_user(caller.identity.user_id, page).await?;
        // A key bound to one project knows of no other.
        rows.retain(|row| caller.identity.principal.role_in(row.id).is_some());
        rows
    };
    Ok(rows.into_iter().map(from_row).collect())
}

/// The project behind an id or a name.
pub async fn find(app: &App, key: &str) -> Result<Project, ApiError> {
    let found = match key.parse::<ProjectId>() {
        Ok(id) => app.store().project_find(id).await?,
        Err(_) => app.store().project_find_by_name(key).await?,
    };
    found.map(from_row).ok_or_else(|| Problem::not_found("project", shown(key)).into())
}

/// Creates a project with the default quota, its network and its security group, and the caller as its admin.
pub async fn create(
    app: &App,
    caller: &Caller,
    name: Name,
    description: String,
    intent: &Intent,
) -> Result<Done<Project>, ApiError> {
    let id = ProjectId::new();
    let done = commit_own_change(app, caller, intent, async {
        check_description(&description)?;
        if intent.dry_run && app.store().project_find_by_name(name.as_str()).await?.is_some() {
            return Err(Problem::already_exists("project", &name).into());
        }
        let project = Project { id, name, description, generation: 1, created_at: Timestamp::now() };
        let unit = Unit::new()
            .op(ProjectInsert {
                id: project.id,
                name: project.name.clone(),
                description: project.description.clone(),
                created_at: project.created_at,
            })
            .op(QuotaLimitPut::new(project.id, &QuotaAmounts::DEFAULT_LIMIT, 0))
            .op(RoleBindingPut {
                project_id: project.id,
                user_id: caller.identity.user_id,
                role: Role::Admin,
                created_at: project.created_at,
            });
        let activity = activity("project.create", "project.created", "was created", &project);
        Ok(OwnChange {
            unit,
            activity,
            object_name: project.name.to_string(),
            outcome: project,
            changes_identity: true,
        })
    })
    .await?;
    // A repeat is answered with the first outcome: its project has another id, and its defaults already.
    if let Done::Change(project) = &done
        && project.id == id
    {
        network::ensure_defaults(app, &caller.context(None, false), id).await;
    }
    Ok(done)
}

pub async fn change(
    app: &App,
    caller: &Caller,
    id: ProjectId,
    name: Option<Name>,
    description: Option<String>,
    intent: &Intent,
) -> Result<Done<Project>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let mut project = find(app, &id.to_string()).await?;
        intent.check_generation(project.generation)?;
        let expected_generation = project.generation;
        if let Some(name) = name {
            project.name = name;
        }
        if let Some(description) = description {
            check_description(&description)?;
            project.description = description;
        }
        project.generation += 1;
        let unit = Unit::new().op(ProjectUpdate {
            id,
            expected_generation,
            name: project.name.clone(),
            description: project.description.clone(),
        });
        let activity = activity("project.change", "project.changed", "was changed", &project);
        Ok(OwnChange {
            unit,
            activity,
            object_name: project.name.to_string(),
            outcome: project,
            changes_identity: true,
        })
    })
    .await
}

pub async fn delete(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Done<()>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let project = find(app, key).await?;
        intent.check_generation(project.generation)?;
        let unit = Unit::new().op(ProjectDelete { id: project.id });
        let activity = activity("project.delete", "project.deleted", "was deleted", &project);
        Ok(OwnChange { unit, activity, object_name: project.name.to_string(), outcome: (), changes_identity: true })
    })
    .await
}

fn check_description(text: &str) -> Result<(), Problem> {
    if text.len() > limits::DESCRIPTION_BYTES {
        return Err(Problem::invalid("/description", format!("more than {} bytes", limits::DESCRIPTION_BYTES)));
    }
    Ok(())
}

fn activity(action: &'static str, event: &'static str, what: &str, project: &Project) -> Activity {
    let message = format!("project {} {what}", project.name);
    Activity::new("project", project.id, action, event, message).in_project(project.id)
}
