//! The caller's own account: who they are, and a new password.

use crate::{
    app::{App, account},
    auth::caller::Caller,
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        answer,
        view::session::{PasswordChange, Whoami, WhoamiKey, WhoamiProject, WhoamiUser},
    },
};
use axum::extract::State;
use domain::identity::Project;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(change_password))
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

/// Sets a new password. All your refresh tokens end with the old one.
#[utoipa::path(put, path = "/v1/whoami/password", tag = "auth", params(MutationParams, MutationHeaders),
    request_body = PasswordChange, responses((status = 204, description = "The new password is valid.")))]
async fn change_password(
    State(app): State<App>,
    caller: Caller,
    _: Query<MutationParams>,
    Change { body, intent }: Change<PasswordChange>,
) -> ApiResult {
    answer::deleted(account::change_password(&app, &caller, body.current, body.new, &intent).await?)
}
