//! The extractors that every route under `/v1` starts with. Each authenticates, resolves what is asked of, and has `domain::policy`
//! decide, before the route's other arguments are read: so a stranger learns nothing from the order of errors, and a route can't be
//! written that forgets to ask.
//!
//! - [`Caller`]: anybody known (own password, own keys, the catalog).
//! - [`InProject<A>`]: the request's project (`?project=`, `X-Iaas-Project`, the key's, the only one), with the right `A` in it.
//! - [`OfProject<A>`]: the project that the path names.
//! - [`SystemAdmin`]: what only system admins do.

use crate::{
    app::App,
    auth::identity::{Identity, ProjectRef},
    http::{
        problem::ApiError,
        query,
        scope::{Scope, scope_of},
    },
};
use axum::extract::{FromRequestParts, RawPathParams};
use domain::{
    AuditId, ErrorKind, OperationId, Problem, ProjectId, Timestamp,
    event::AuditEntry,
    policy::{self, Action, Decision, Resource},
};
use http::{HeaderMap, Method, header, request::Parts};
use service_kit::context::CallContext;
use std::{marker::PhantomData, sync::Arc};
use store::{AuditInsert, Unit};

const PROJECT_HEADER: &str = "x-iaas-project";

/// Somebody known.
#[derive(Clone)]
pub struct Caller {
    pub identity: Arc<Identity>,
    pub scope: Scope,
    method: Method,
    /// `?project=`, else the header, as given.
    project_key: Option<String>,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let scope = scope_of(parts);
        let identity = app.auth().identities.resolve(app, bearer(&parts.headers)?).await?;
        scope.principal.get_or_init(|| identity.label.clone());
        if !identity.system_admin
            && let Some(state) = app.auth().limits.principal(&identity.label)?
        {
            scope.rate.get_or_init(|| state);
        }
        let named = query::find(parts.uri.query(), "project").map(std::borrow::Cow::into_owned);
        let header = || parts.headers.get(PROJECT_HEADER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let project_key = named.or_else(header);
        Ok(Self { identity, scope, method: parts.method.clone(), project_key })
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || {
        Problem::new(ErrorKind::Unauthenticated, "token_missing", "this needs a token: Authorization: Bearer <token>")
            .with_hint("log in with iaasctl login, or make an API key")
    };
    let text = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).ok_or_else(missing)?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(missing());
    }
    Ok(token)
}

impl Caller {
    #[must_use]
    pub fn system_admin(&self) -> bool {
        self.identity.principal.system_admin
    }

    /// Whether the request says which project it means.
    #[must_use]
    pub fn names_project(&self) -> bool {
        self.project_key.is_some()
    }

    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.scope.request_id
    }

    /// What goes with a call to another service.
    #[must_use]
    pub fn context(&self, operation_id: Option<OperationId>, dry_run: bool) -> CallContext {
        CallContext {
            request_id: self.scope.request_id.clone(),
            operation_id,
            principal: self.identity.label.clone(),
            principal_name: self.identity.display.clone(),
            dry_run,
        }
    }

    /// Asks the policy. A denied mutation leaves a line in the audit log.
    pub async fn authorize(&self, app: &App, action: Action, resource: Resource) -> Result<(), ApiError> {
        match policy::decide(&self.identity.principal, action, resource) {
            Decision::Allow => Ok(()),
            Decision::Hidden => Err(project_not_found(self.project_key.as_deref().unwrap_or("that")).into()),
            Decision::Deny => {
                if !matches!(self.method, Method::GET | Method::HEAD) {
                    self.audit_denied(app, action, resource).await?;
                }
                Err(denied(action).into())
            }
        }
    }

    async fn audit_denied(&self, app: &App, action: Action, resource: Resource) -> Result<(), ApiError> {
        let project_id = match resource {
            Resource::Project(id) => Some(id),
            Resource::System => None,
        };
        let route = self.scope.route.get().map_or("", |r| r.as_str());
        let entry = AuditEntry {
            id: AuditId::new(),
            at: Timestamp::now(),
            principal: self.identity.label.clone(),
            principal_name: self.identity.display.clone(),
            project_id,
            action: format!("{} {route}", self.method),
            object_kind: "route".to_owned(),
            object_id: route.to_owned(),
            request_id: self.scope.request_id.clone(),
            outcome: "denied".to_owned(),
            detail: format!("{action:?} is not allowed"),
        };
        app.store().commit(Unit::new().op(AuditInsert(entry))).await?;
        Ok(())
    }

    /// The project that the request names, or the one it can only mean. Doesn't ask the policy.
    pub async fn project(&self, app: &App) -> Result<Arc<ProjectRef>, ApiError> {
        let key = match &self.project_key {
            Some(key) => key.clone(),
            None => self.default_project()?.to_string(),
        };
        self.project_named(app, &key).await
    }

    async fn project_named(&self, app: &App, key: &str) -> Result<Arc<ProjectRef>, ApiError> {
        let found = app.auth().identities.project(app, key).await?;
        found.ok_or_else(|| project_not_found(key).into())
    }

    fn default_project(&self) -> Result<ProjectId, Problem> {
        if let Some(project) = self.identity.api_key.as_ref().and_then(|k| k.project_id) {
            return Ok(project);
        }
        match self.identity.principal.roles.as_slice() {
            [(only, _)] => Ok(*only),
            roles => Err(Problem::new(
                ErrorKind::InvalidArgument,
                "project_required",
                format!("you are in {} projects: which one is meant?", roles.len()),
            )
            .with_field("project", "required here")
            .with_hint("add ?project=NAME or the header X-Iaas-Project; GET /v1/whoami lists your projects")),
        }
    }
}

fn project_not_found(key: &str) -> Problem {
    let shown: String = key.chars().take(64).collect();
    Problem::not_found("project", shown)
}

fn denied(action: Action) -> Problem {
    let needs = match action {
        Action::ProjectRead => "the role reader in the project",
        Action::ProjectWrite => "the role member in the project",
        Action::ProjectManage => "the role admin in the project",
        Action::SelfService | Action::CatalogRead => "a login",
        Action::SystemManage => "a system administrator",
    };
    Problem::new(ErrorKind::PermissionDenied, "permission_denied", format!("this needs {needs}"))
        .with_hint("an admin of the project (or a system administrator) can give you the role")
}

/// A right in a project, as a type: [`Read`], [`Write`], [`Manage`].
pub trait Access: Send + Sync + 'static {
    const ACTION: Action;
}

pub struct Read;
pub struct Write;
pub struct Manage;

impl Access for Read {
    const ACTION: Action = Action::ProjectRead;
}
impl Access for Write {
    const ACTION: Action = Action::ProjectWrite;
}
impl Access for Manage {
    const ACTION: Action = Action::ProjectManage;
}

/// The request's project, with the right `A` in it.
pub struct InProject<A> {
    pub caller: Caller,
    pub project: Arc<ProjectRef>,
    access: PhantomData<A>,
}

impl<A> InProject<A> {
    #[must_use]
    pub fn id(&self) -> ProjectId {
        self.project.id
    }
}

async fn enter<A: Access>(app: &App, caller: &Caller, project: &ProjectRef) -> Result<(), ApiError> {
    caller.authorize(app, A::ACTION, Resource::Project(project.id)).await?;
    if !caller.identity.system_admin {
        app.auth().limits.project(project.id)?;
    }
    Ok(())
}

impl<A: Access> FromRequestParts<App> for InProject<A> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let project = caller.project(app).await?;
        enter::<A>(app, &caller, &project).await?;
        Ok(Self { caller, project, access: PhantomData })
    }
}

/// The project that the path's `{project}` names, with the right `A` in it.
pub struct OfProject<A> {
    pub caller: Caller,
    pub project: Arc<ProjectRef>,
    access: PhantomData<A>,
}

impl<A> OfProject<A> {
    #[must_use]
    pub fn id(&self) -> ProjectId {
        self.project.id
    }
}

impl<A: Access> FromRequestParts<App> for OfProject<A> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let mut caller = Caller::from_request_parts(parts, app).await?;
        let params = RawPathParams::from_request_parts(parts, app).await;
        let params = params.map_err(|e| Problem::invalid("path", e.body_text()))?;
        let key = params.iter().find(|(name, _)| *name == "project").map(|(_, value)| value.to_owned());
        let key = key.ok_or_else(|| Problem::invalid("path", "a project is expected"))?;
        caller.project_key = Some(key.clone());
        let project = caller.project_named(app, &key).await?;
        enter::<A>(app, &caller, &project).await?;
        Ok(Self { caller, project, access: PhantomData })
    }
}

/// What only system admins do.
pub struct SystemAdmin(pub Caller);

impl FromRequestParts<App> for SystemAdmin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        caller.authorize(app, Action::SystemManage, Resource::System).await?;
        Ok(Self(caller))
    }
}
