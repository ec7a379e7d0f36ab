//! Oneself: who am I, and a new password.

use crate::{
    app::{
        App,
        mutate::{self, Answer, Deed, OwnChange},
    },
    auth::{password, scope::Caller, token},
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::session::{PasswordChange, Whoami, WhoamiKey, WhoamiProject, WhoamiUser},
};
use axum::extract::State;
use domain::{ErrorKind, Problem, limits};
use http::StatusCode;
use store::{Page, RefreshUserRevoke, Unit, UserUpdate};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(change_password))
}

/// Who you are and which projects you are in.
#[utoipa::path(get, path = "/v1/whoami", tag = "auth", responses((status = 200, body = Whoami)))]
async fn show(State(app): State<App>, caller: Caller, _: Query<ProjectParams>) -> ApiResult {
    let identity = &caller.identity;
    let rows = app.store().project_list_of_user(identity.user_id, Page::first(limits::PAGE_MAX)).await?;
    let role_in = |id| identity.principal.role_in(id);
    let projects = rows.into_iter().filter_map(|row| {
        let role = role_in(row.id)?.into();
        Some(WhoamiProject { id: row.id, name: row.name, role })
    });
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

/// Sets a new password; every refresh token of yours ends with the old one.
#[utoipa::path(put, path = "/v1/whoami/password", tag = "auth", params(MutationParams, MutationHeaders),
    request_body = PasswordChange, responses((status = 204, description = "The new one counts.")))]
async fn change_password(
    State(app): State<App>,
    caller: Caller,
    _: Query<MutationParams>,
    Change { body, intent }: Change<PasswordChange>,
) -> ApiResult {
    mutate::own(&app, &caller, &intent, async || {
        if caller.identity.api_key.is_some() {
            return Err(session_required("a password is changed").into());
        }
        let user = app.store().user_find(caller.identity.user_id).await?.ok_or_else(token::invalid)?;
        password::check_strength("/new", user.name.as_str(), &body.new)?;
        app.auth().throttle.attempt(user.name.as_str(), caller.scope.peer)?;
        if !app.auth().passwords.verify(Some(user.password_hash), body.current).await? {
            return Err(ApiError::from(
                Problem::new(ErrorKind::PermissionDenied, "wrong_password", "the current password is wrong")
                    .with_field("/current", "wrong"),
            ));
        }
        app.auth().throttle.succeeded(user.name.as_str(), caller.scope.peer);
        let unit = Unit::new()
            .op(UserUpdate {
                id: user.id,
                expected_generation: user.generation,
                password_hash: Some(app.auth().passwords.hash(body.new).await?),
                system_admin: None,
                enabled: None,
            })
            .op(RefreshUserRevoke { user_id: user.id });
        let deed = Deed {
            action: "user.change_password",
            event: "user.password_changed",
            object_kind: "user",
            object_id: user.id.to_string(),
            object_name: user.name.to_string(),
            project_id: None,
            message: format!("user {} set a new password", user.name),
        };
        Ok(OwnChange { unit, deed, answer: Answer::none(), touches_identity: true })
    })
    .await
}

/// What an API key can't do: it would outlive its own revocation.
pub fn session_required(what: &str) -> Problem {
    Problem::new(ErrorKind::PermissionDenied, "session_required", format!("{what} with a login, not with an API key"))
        .with_hint("log in: iaasctl login, or POST /v1/auth/login")
}
