//! The one route set of the kinds of network objects: list, create, show, change, delete. A kind's file says what is its own: its texts, who may, what
//! its bodies mean and how it is shown.

use crate::{
    app::{
        App,
        intent::Intent,
        network::{
            kind::{self, Cloud, NetworkKind, OfNetwork},
            related::Related,
        },
        plan::Done,
    },
    auth::caller::{Caller, SystemRole},
    failure::ApiError,
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::{ListParams, list_params},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        answer,
        describe::{Described, Description},
        scope::{InProject, SystemAdmin},
    },
};
use axum::{
    extract::{FromRequestParts, State},
    routing,
};
use domain::{Problem, ProjectId};
use http::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use utoipa::{IntoParams, ToSchema, openapi::HttpMethod};
use utoipa_axum::router::OpenApiRouter;

/// What the API's description says of a kind.
pub struct Texts {
    /// `/v1/routers`.
    pub path: &'static str,
    pub tag: &'static str,
    /// The path's parameter, and what it may be.
    pub param: &'static str,
    pub key: &'static str,
    pub list: &'static str,
    pub create: &'static str,
    pub show: &'static str,
    /// None: it never changes.
    pub change: Option<&'static str>,
    pub delete: &'static str,
}

/// The caller, and the owner of the objects that are meant.
pub trait Scope<Owner>: FromRequestParts<App, Rejection = ApiError> + Send + 'static {
    fn caller(&self) -> &Caller;
    fn owner(&self) -> Owner;
}

impl<A: Send + 'static> Scope<ProjectId> for InProject<A>
where
    InProject<A>: FromRequestParts<App, Rejection = ApiError>,
{
    fn caller(&self) -> &Caller {
        &self.caller
    }

    fn owner(&self) -> ProjectId {
        self.id()
    }
}

impl Scope<Cloud> for Caller {
    fn caller(&self) -> &Caller {
        self
    }

    fn owner(&self) -> Cloud {
        Cloud
    }
}

impl Scope<Cloud> for SystemAdmin {
    fn caller(&self) -> &Caller {
        &self.0
    }

    fn owner(&self) -> Cloud {
        Cloud
    }
}

/// The query of a list: the page, and what narrows it.
pub trait ListQuery: DeserializeOwned + IntoParams + Send + 'static {
    type Filter;
    fn split(self) -> (ListParams, Self::Filter);
}

impl ListQuery for ListParams {
    type Filter = ();

    fn split(self) -> (ListParams, ()) {
        (self, ())
    }
}

list_params! {
    /// The parameters of a list that can be narrowed to one network.
    OfNetworkParams {
        /// Only of this network: id or name.
        network: Option<String>,
    }
}

impl ListQuery for OfNetworkParams {
    type Filter = OfNetwork;

    fn split(self) -> (ListParams, OfNetwork) {
        (self.common(), OfNetwork(self.network))
    }
}

pub trait KindRoutes: NetworkKind {
    const TEXTS: Texts;
    type Reading: Scope<Self::Owner>;
    type Writing: Scope<Self::Owner>;
    type Query: ListQuery<Filter = Self::Filter>;
    type View: Serialize + ToSchema + Send;
    type CreateBody: DeserializeOwned + ToSchema + Send + 'static;
    type ChangeBody: DeserializeOwned + ToSchema + Send + 'static;

    fn check_create(body: Self::CreateBody) -> Result<Self::Create, Problem>;
    fn check_change(body: Self::ChangeBody) -> Result<Self::Change, Problem>;
    fn view(self, related: &Related, role: SystemRole) -> Self::View;
}

/// The routes of a kind, described.
pub fn routes<N: KindRoutes>() -> OpenApiRouter<App> {
    let Texts { path, tag, param, key, list: lists, create: creates, show: shows, change: changes, delete: deletes } =
        N::TEXTS;
    let listed = Description::new(tag, "list", lists).params::<N::Query>().answers_list::<N::View>();
    let created = Description::new(tag, "create", creates)
        .params::<MutationParams>()
        .params::<MutationHeaders>()
        .body::<N::CreateBody>()
        .answers::<N::View>("201")
        .answers_dry_run();
    let shown =
        Description::new(tag, "show", shows).path_param(param, key).params::<ProjectParams>().answers::<N::View>("200");
    let deleted = Description::new(tag, "delete", deletes)
        .path_param(param, key)
        .params::<MutationParams>()
        .params::<MutationHeaders>()
        .answers_nothing("204", "It is gone.")
        .answers_dry_run();
    let all = Described::at(path).on(HttpMethod::Get, listed, routing::get(list::<N>)).on(
        HttpMethod::Post,
        created,
        routing::post(create::<N>),
    );
    let mut one = Described::at(format!("{path}/{{{param}}}")).on(HttpMethod::Get, shown, routing::get(show::<N>)).on(
        HttpMethod::Delete,
        deleted,
        routing::delete(delete::<N>),
    );
    if let Some(changes) = changes {
        let changed = Description::new(tag, "change", changes)
            .path_param(param, key)
            .params::<MutationParams>()
            .params::<MutationHeaders>()
            .body::<N::ChangeBody>()
            .answers::<N::View>("200");
        one = one.on(HttpMethod::Patch, changed, routing::patch(change::<N>));
    }
    OpenApiRouter::new().routes(all.routes()).routes(one.routes())
}

/// One object with what is related to it, and its generation as the ETag.
async fn shown<N: KindRoutes>(app: &App, caller: &Caller, status: StatusCode, done: Done<N>) -> ApiResult {
    let object = match done {
        Done::Plan(plan) => return answer::planned(plan),
        Done::Change(object) => object,
    };
    let related = N::related(app, std::slice::from_ref(&object)).await?;
    let generation = object.generation();
    reply::object(status, generation, &object.view(&related, caller.system_role()))
}

async fn list<N: KindRoutes>(State(app): State<App>, scope: N::Reading, Query(query): Query<N::Query>) -> ApiResult {
    let (params, filter) = query.split();
    let page = params.page(&format!("{} of {:?} {filter:?}", N::TEXTS.path, scope.owner()))?;
    let rows = N::list(&app, scope.owner(), &filter, page.store_page()).await?;
    let (related, role) = (N::related(&app, &rows).await?, scope.caller().system_role());
    page.reply(rows, |row| row.id().to_string(), |row| row.view(&related, role))
}

async fn create<N: KindRoutes>(
    State(app): State<App>,
    scope: N::Writing,
    _: Query<MutationParams>,
    Change { body, intent }: Change<N::CreateBody>,
) -> ApiResult {
    let request = N::check_create(body)?;
    let done = kind::create::<N>(&app, scope.caller(), scope.owner(), request, &intent).await?;
    shown(&app, scope.caller(), StatusCode::CREATED, done).await
}

async fn show<N: KindRoutes>(
    State(app): State<App>,
    scope: N::Reading,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let object = N::find(&app, scope.owner(), &key).await?;
    shown(&app, scope.caller(), StatusCode::OK, Done::Change(object)).await
}

async fn change<N: KindRoutes>(
    State(app): State<App>,
    scope: N::Writing,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<N::ChangeBody>,
) -> ApiResult {
    let request = N::check_change(body)?;
    let done = kind::change::<N>(&app, scope.caller(), scope.owner(), &key, request, &intent).await?;
    shown(&app, scope.caller(), StatusCode::OK, done).await
}

async fn delete<N: KindRoutes>(
    State(app): State<App>,
    scope: N::Writing,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(kind::delete::<N>(&app, scope.caller(), scope.owner(), &key, &intent).await?)
}
