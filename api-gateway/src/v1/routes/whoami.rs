//! The caller's own account: who they are, their home project, leaving a project, and a new password.

use crate::{
    app::{App, account, intent::Intent},
    auth::caller::Caller,
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        answer,
        view::session::{HomeProject, PasswordChange, Whoami, WhoamiKey, WhoamiProject, WhoamiUser},
    },
};
use axum::extract::State;
use domain::identity::Project;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(change_password))
        .routes(routes!(set_home_project))
        .routes(routes!(leave_project))
}

/// Shows who you are and which projects you are in.
#[utoipa::path(get, path = "/v1/whoami", tag = "auth", responses((status = 200, body = Whoami)))]
async fn show(State(app): State<App>, caller: Caller, _: Query<ProjectParams>) -> ApiResult {
    let identity = &caller.identity;
    let projects = account::projects(&app, &caller).await?;
    let projects =
        projects.into_iter().map(|(Project { id, name, .. }, role)| WhoamiProject { id, name, role: role.into() });
    let view = Whoami {
        user: WhoamiUser {
            id: identity.user_id,
            name: identity.user_name.clone(),
            system_admin: identity.principal.system_admin,
        },
        projects: projects.collect(),
        home_project_id: identity.home_project_id.filter(|id| identity.principal.role_in(*id).is_some()),
        api_key: identity.api_key.as_ref().map(|key| WhoamiKey {
            id: key.id,
            name: key.name.clone(),
            project_id: key.project_id,
            role: key.role.map(Into::into),
            expires_at: key.expires_at,
        }),
    };
    reply::json(StatusCode::OK, &view)
}

/// Sets a new password. All your sessions end with the old one, this one too, and your API keys are revoked unless `keep_api_keys` is set.
#[utoipa::path(put, path = "/v1/whoami/password", tag = "auth", params(MutationParams, MutationHeaders),
    request_body = PasswordChange, responses((status = 204, description = "The new password is valid.")))]
async fn change_password(
    State(app): State<App>,
    caller: Caller,
    _: Query<MutationParams>,
    Change { body, intent }: Change<PasswordChange>,
) -> ApiResult {
    let PasswordChange { current, new, keep_api_keys } = body;
    let request = account::PasswordRequest { current, new, keep_api_keys };
    answer::deleted(account::change_password(&app, &caller, request, &intent).await?)
}

/// Chooses your home project: the one that your requests mean when they name none.
#[utoipa::path(put, path = "/v1/whoami/home-project", tag = "auth", params(MutationParams, MutationHeaders),
    request_body = HomeProject, responses((status = 204, description = "It is your home project.")))]
async fn set_home_project(
    State(app): State<App>,
    caller: Caller,
    _: Query<MutationParams>,
    Change { body, intent }: Change<HomeProject>,
) -> ApiResult {
    answer::deleted(account::set_home_project(&app, &caller, &body.project, &intent).await?)
}

/// Takes you out of a project.
#[utoipa::path(delete, path = "/v1/whoami/projects/{project}", tag = "auth",
    params(("project" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "You are no longer a member.")))]
async fn leave_project(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(account::leave_project(&app, &caller, &key, &intent).await?)
}
