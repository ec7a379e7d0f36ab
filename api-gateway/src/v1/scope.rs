//! The extractors that every route under `/v1` starts with. Each authenticates, resolves the project and has `domain::policy` decide,
//! before the route's other arguments are read: so a stranger learns nothing from the order of errors, and a route can't be written that
//! forgets to ask.
//!
//! - [`Caller`]: anybody known (own password, own keys, the catalog).
//! - [`InProject<A>`]: the request's project (`?project=`, `X-Iaas-Project`, the key's, the user's home), with the right `A` in it.
//! - [`OfProject<A>`]: the project that the path names.
//! - [`SystemAdmin`]: what only system admins do.
//!
//! They take [`Auth`] from the router's state, whatever else that holds.

use crate::{
    auth::{Auth, caller::Caller, identity::ProjectRef},
    failure::ApiError,
    http::{query, scope::known_caller},
};
use axum::extract::{FromRef, FromRequestParts, RawPathParams};
use domain::{
    ErrorKind, Problem, ProjectId,
    policy::{Action, Resource},
};
use http::{HeaderMap, header, request::Parts};
use std::{marker::PhantomData, sync::Arc};

pub const PROJECT_HEADER: &str = "x-iaas-project";

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Auth: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let named = query::find(parts.uri.query(), "project").map(std::borrow::Cow::into_owned);
        // Checked even when the query names a project: a header that can't be read is never passed over.
        let header = project_header(&parts.headers)?;
        let project_key = named.or(header);
        let token = bearer(&parts.headers)?.to_owned();
        known_caller(parts, &Auth::from_ref(state), &token, project_key).await
    }
}

/// The project that the header names. One that can't be read, or two, would otherwise mean another project than the caller wrote.
fn project_header(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(PROJECT_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refuse = |detail: &str| Problem::invalid("X-Iaas-Project", detail);
    if values.next().is_some() {
        return Err(refuse("the header names a project once"));
    }
    match value.to_str() {
        Ok(text) if !text.trim().is_empty() => Ok(Some(text.trim().to_owned())),
        Ok(_) => Err(refuse("the header is empty: name a project, or leave it out")),
        Err(_) => Err(refuse("the id or name of a project is expected, in ASCII")),
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || {
        Problem::new(
            ErrorKind::Unauthenticated,
            "token_missing",
            "this needs a token in the header Authorization: Bearer <token>",
        )
        .with_hint("log in with iaasctl login, or create an API key")
    };
    let text = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).ok_or_else(missing)?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(missing());
    }
    Ok(token)
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

impl<S, A: Access> FromRequestParts<S> for InProject<A>
where
    S: Send + Sync,
    Auth: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let project = caller.enter(&Auth::from_ref(state), A::ACTION).await?;
        Ok(Self { caller, project, access: PhantomData })
    }
}

/// The project that the path's `{project}` names, with the right `A` in it.
pub struct OfProject<A>(pub InProject<A>);

impl<A> std::ops::Deref for OfProject<A> {
    type Target = InProject<A>;

    fn deref(&self) -> &InProject<A> {
        &self.0
    }
}

impl<S, A: Access> FromRequestParts<S> for OfProject<A>
where
    S: Send + Sync,
    Auth: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let mut caller = Caller::from_request_parts(parts, state).await?;
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|e| Problem::invalid("path", e.body_text()))?;
        let key = params.iter().find(|(name, _)| *name == "project").map(|(_, value)| value.to_owned());
        caller.project_key = Some(key.ok_or_else(|| Problem::invalid("path", "a project is expected"))?);
        let project = caller.enter(&Auth::from_ref(state), A::ACTION).await?;
        Ok(Self(InProject { caller, project, access: PhantomData }))
    }
}

/// A caller who is a system admin.
pub struct SystemAdmin(pub Caller);

impl<S> FromRequestParts<S> for SystemAdmin
where
    S: Send + Sync,
    Auth: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.authorize(&Auth::from_ref(state), Action::SystemManage, Resource::System).await?;
        Ok(Self(caller))
    }
}
