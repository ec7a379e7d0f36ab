//! What all kinds of network objects have in common, so that each is listed, found, created, changed and deleted by the same five functions.
//!
//! A kind says how it is found and listed, what a create and a change of it are made of, and which [`Change`] they become. The functions
//! at the end do the rest: the idempotency record, the call of the resource-manager, the dry run.

use super::{Call, find, related::Related};
use crate::{
    app::{App, intent::Intent, plan::Done},
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{
    NetworkId, Problem, ProjectId,
    network::{Change, Resource},
};
use store::{Page, ReadError};
use uuid::Uuid;

/// The owner of what belongs to no project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cloud;

impl From<Cloud> for Option<ProjectId> {
    fn from(_: Cloud) -> Self {
        None
    }
}

pub trait NetworkKind: Resource {
    /// A [`ProjectId`], or [`Cloud`].
    type Owner: Copy + std::fmt::Debug + Into<Option<ProjectId>> + Send + Sync + 'static;
    /// The filter of a list.
    type Filter: Default + std::fmt::Debug + Send + Sync;
    /// A create whose form was checked; keys in it (ids or names of other objects) are still to be looked up.
    type Create: Send + Sync;
    /// A change, likewise.
    type Change: Send + Sync;

    fn generation(&self) -> i64;

    /// The object behind an id or a name. One of another owner doesn't exist.
    fn find(app: &App, owner: Self::Owner, key: &str) -> impl Future<Output = Result<Self, ApiError>> + Send;

    fn list(
        app: &App,
        owner: Self::Owner,
        filter: &Self::Filter,
        page: Page,
    ) -> impl Future<Output = Result<Vec<Self>, ApiError>> + Send;

    /// Reads what views show beside these objects.
    fn related(app: &App, objects: &[Self]) -> impl Future<Output = Result<Related, ReadError>> + Send;

    /// How many ids a create needs: the object's own comes first.
    fn new_ids(_: &Self::Create) -> usize {
        1
    }

    /// With what this caller may ask for and not everybody: the manager judges it.
    fn create_as(_caller: &Caller, request: Self::Create) -> Self::Create {
        request
    }

    fn change_as(_caller: &Caller, request: Self::Change) -> Self::Change {
        request
    }

    fn create(
        app: &App,
        owner: Self::Owner,
        ids: &[Uuid],
        request: Self::Create,
    ) -> impl Future<Output = Result<Change, ApiError>> + Send;

    fn change(
        app: &App,
        owner: Self::Owner,
        id: Uuid,
        request: Self::Change,
    ) -> impl Future<Output = Result<Change, ApiError>> + Send;
}

/// The network, by id or name, that a list is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct OfNetwork(pub Option<String>);

impl OfNetwork {
    pub(super) async fn id(&self, app: &App, project_id: ProjectId) -> Result<Option<NetworkId>, ApiError> {
        match &self.0 {
            Some(key) => Ok(Some(find::network(app, project_id, key).await?.id)),
            None => Ok(None),
        }
    }
}

/// The items of a short list, ordered by id, that are on the page.
pub(super) fn on_page<N: NetworkKind>(rows: Vec<N>, page: &Page) -> Vec<N> {
    let after = page.after.as_deref().unwrap_or_default();
    rows.into_iter().filter(|row| row.id().to_string().as_str() > after).take(page.limit as usize).collect()
}

/// The id of the object itself among those that a request minted.
pub(super) fn own_id(ids: &[Uuid]) -> Result<Uuid, Problem> {
    ids.first().copied().ok_or_else(Problem::internal)
}

/// The functions that every kind has in the same words.
macro_rules! common {
    ($related:ident) => {
        fn generation(&self) -> i64 {
            self.generation
        }

        async fn related(
            app: &crate::app::App,
            objects: &[Self],
        ) -> Result<crate::app::network::related::Related, store::ReadError> {
            crate::app::network::related::$related(app, objects).await
        }
    };
}
pub(super) use common;

pub async fn create<N: NetworkKind>(
    app: &App,
    caller: &Caller,
    owner: N::Owner,
    request: N::Create,
    intent: &Intent,
) -> Result<Done<N>, ApiError> {
    let new = N::new_ids(&request);
    let call = Call::open(app, caller, owner.into(), intent, new, async { Ok(vec![]) }).await?;
    call.apply(N::create(app, owner, call.ids(), N::create_as(caller, request))).await
}

pub async fn change<N: NetworkKind>(
    app: &App,
    caller: &Caller,
    owner: N::Owner,
    key: &str,
    request: N::Change,
    intent: &Intent,
) -> Result<Done<N>, ApiError> {
    let call = Call::open(app, caller, owner.into(), intent, 0, found::<N>(app, owner, key)).await?;
    let id = call.id()?;
    call.apply(N::change(app, owner, id, N::change_as(caller, request))).await
}

pub async fn delete<N: NetworkKind>(
    app: &App,
    caller: &Caller,
    owner: N::Owner,
    key: &str,
    intent: &Intent,
) -> Result<Done<()>, ApiError> {
    let call = Call::open(app, caller, owner.into(), intent, 0, found::<N>(app, owner, key)).await?;
    let id = call.id()?;
    call.apply_deletion(async { Ok(Change::delete::<N>(id.into())) }).await
}

async fn found<N: NetworkKind>(app: &App, owner: N::Owner, key: &str) -> Result<Vec<Uuid>, ApiError> {
    Ok(vec![N::find(app, owner, key).await?.id().into()])
}
