//! From a bearer token to who sends the request and what they may do, without the database in the common case.
//!
//! An access token counts only with its user's present session version: a new password ends those of before.
//!
//! Two caches, both of short life and forgotten on any write of this process that could change them: what a token is (so that a
//! signature is verified once), and who a user is with their roles. A change by another gateway is seen within the lifetime
//! (`identity.principal_cache_ms`).

use crate::{
    auth::{api_key, cache::TtlCache, keyring::Keyring, token},
    failure::ApiError,
};
use domain::{
    ApiKeyId, ErrorKind, Problem, ProjectId, Timestamp, UserId,
    policy::{Principal, Role},
};
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};
use store::{ApiKeyRow, Store};

const TOKENS_MAX: usize = 10_000;
const IDENTITIES_MAX: usize = 10_000;
const PROJECTS_MAX: usize = 10_000;

/// The principal of a request.
#[derive(Debug)]
pub struct Identity {
    pub user_id: UserId,
    pub user_name: String,
    /// Whether the user is a system admin; an API key of theirs may carry less (see `principal`).
    pub system_admin: bool,
    /// What access tokens must carry.
    pub session_version: i64,
    /// The project that requests mean which name none.
    pub home_project_id: Option<ProjectId>,
    /// The principal that the policy decides on.
    pub principal: Principal,
    pub api_key: Option<KeyIdentity>,
    /// `user:<id>` or `api_key:<id>`.
    pub label: String,
    /// The user's name, with the key's behind it: "ann", "ann/ci".
    pub display: String,
}

#[derive(Debug, Clone)]
pub struct KeyIdentity {
    pub id: ApiKeyId,
    pub name: String,
    pub project_id: Option<ProjectId>,
    pub role: Option<Role>,
    pub expires_at: Option<Timestamp>,
}

impl KeyIdentity {
    /// A key that carries less than its user does.
    #[must_use]
    pub fn restricted(&self) -> bool {
        self.project_id.is_some() || self.role.is_some() || self.expires_at.is_some()
    }
}

/// The user and the key that a token stands for.
#[derive(Clone)]
struct Credential {
    user_id: UserId,
    /// What an access token carries; `None`: it is an API key.
    session_version: Option<i64>,
    api_key: Option<Arc<KeyIdentity>>,
    expires_at: Option<Timestamp>,
}

/// An existing project, as requests name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRef {
    pub id: ProjectId,
    pub name: String,
}

pub struct Identities {
    store: Store,
    keyring: Arc<Keyring>,
    tokens: TtlCache<[u8; 32], Credential>,
    identities: TtlCache<(UserId, Option<ApiKeyId>), Arc<Identity>>,
    /// Projects by id and by name.
    projects: TtlCache<String, Arc<ProjectRef>>,
}

impl Identities {
    #[must_use]
    pub fn new(store: Store, keyring: Arc<Keyring>, ttl: Duration) -> Self {
        Self {
            store,
            keyring,
            tokens: TtlCache::new(ttl, TOKENS_MAX),
            identities: TtlCache::new(ttl, IDENTITIES_MAX),
            projects: TtlCache::new(ttl, PROJECTS_MAX),
        }
    }

    /// Drops the caches. It is called after any write of users, roles, keys or projects.
    pub fn invalidate(&self) {
        self.tokens.invalidate();
        self.identities.invalidate();
        self.projects.invalidate();
    }

    /// The identity that a bearer token stands for.
    pub async fn resolve(&self, token: &str) -> Result<Arc<Identity>, ApiError> {
        let credential = self.credential(token).await?;
        if credential.expires_at.is_some_and(|at| at <= Timestamp::now()) {
            return Err(Problem::new(ErrorKind::Unauthenticated, "token_expired", "the API key has expired")
                .with_hint("create a new one: POST /v1/api-keys")
                .into());
        }
        self.identity(&credential).await
    }

    async fn credential(&self, token: &str) -> Result<Credential, ApiError> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&digest) {
            return Ok(known);
        }
        let version = self.tokens.version();
        let (credential, live) = if token.starts_with(api_key::MARK) {
            (self.api_key(token).await?, true)
        } else {
            let claims = token::verify(&self.keyring, &self.store, token).await?;
            // Not kept past its end: the expiry of a JWT is checked by its verification alone.
            let live = Timestamp(claims.exp * 1000) > Timestamp::now().plus_secs(120);
            let session_version = Some(claims.sv);
            (Credential { user_id: claims.sub, session_version, api_key: None, expires_at: None }, live)
        };
        if live {
            self.tokens.put(digest, credential.clone(), version);
        }
        Ok(credential)
    }

    async fn api_key(&self, text: &str) -> Result<Credential, ApiError> {
        let (prefix, secret) = api_key::parse(text).ok_or_else(token::invalid)?;
        let row = self.store.api_key_find_by_prefix(prefix).await?.ok_or_else(token::invalid)?;
        if !api_key::secret_matches(secret, &row.secret_hash) {
            return Err(token::invalid().into());
        }
        Ok(credential_of(row))
    }

    async fn identity(&self, credential: &Credential) -> Result<Arc<Identity>, ApiError> {
        let key = (credential.user_id, credential.api_key.as_ref().map(|k| k.id));
        if let Some(known) = self.identities.get(&key) {
            match credential.session_version {
                Some(version) if version < known.session_version => return Err(token::invalid().into()),
                // A newer one than is known was issued by another gateway.
                Some(version) if version > known.session_version => {}
                Some(_) | None => return Ok(known),
            }
        }
        let version = self.identities.version();
        let user = self.store.user_find(credential.user_id).await?.filter(|u| u.enabled).ok_or_else(token::invalid)?;
        if credential.session_version.is_some_and(|version| version != user.session_version) {
            return Err(token::invalid().into());
        }
        let bindings = self.store.role_binding_list_of_user(user.id).await?;
        let roles: Vec<(ProjectId, Role)> = bindings.into_iter().map(|b| (b.project_id, b.role)).collect();
        let principal = capped(user.id, user.system_admin, roles, credential.api_key.as_deref());
        let name = user.name.to_string();
        let identity = Arc::new(Identity {
            user_id: user.id,
            system_admin: user.system_admin,
            session_version: user.session_version,
            home_project_id: user.home_project_id,
            principal,
            label: match &credential.api_key {
                None => format!("user:{}", user.id),
                Some(key) => format!("api_key:{}", key.id),
            },
            display: match &credential.api_key {
                None => name.clone(),
                Some(key) => format!("{name}/{}", key.name),
            },
            user_name: name,
            api_key: credential.api_key.as_deref().cloned(),
        });
        self.identities.put(key, Arc::clone(&identity), version);
        Ok(identity)
    }

    /// Who they are now, for requests that last; `None` when they no longer have access.
    pub async fn again(&self, before: &Identity) -> Result<Option<Arc<Identity>>, ApiError> {
        self.current(before.user_id, before.session_version, before.api_key.as_ref().map(|key| key.id)).await
    }

    /// Who a user is now, with a login of that session version or with an API key; `None` when they no longer have access.
    pub async fn current(
        &self,
        user_id: UserId,
        session_version: i64,
        key_id: Option<ApiKeyId>,
    ) -> Result<Option<Arc<Identity>>, ApiError> {
        let credential = match key_id {
            None => Credential { user_id, session_version: Some(session_version), api_key: None, expires_at: None },
            Some(id) => {
                let Some(row) = self.store.api_key_list(user_id).await?.into_iter().find(|row| row.id == id) else {
                    return Ok(None);
                };
                if row.expires_at.is_some_and(|at| at <= Timestamp::now()) {
                    return Ok(None);
                }
                credential_of(row)
            }
        };
        match self.identity(&credential).await {
            Ok(identity) => Ok(Some(identity)),
            Err(error) if error.problem().kind == ErrorKind::Unauthenticated => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The project of that id or name, if there is one.
    pub async fn project(&self, key: &str) -> Result<Option<Arc<ProjectRef>>, ApiError> {
        if let Some(known) = self.projects.get(key) {
            return Ok(Some(known));
        }
        let version = self.projects.version();
        let found = match key.parse::<ProjectId>() {
            Ok(id) => self.store.project_find(id).await?,
            Err(_) => self.store.project_find_by_name(key).await?,
        };
        Ok(found.map(|row| {
            let project = Arc::new(ProjectRef { id: row.id, name: row.name.to_string() });
            self.projects.put(key.to_owned(), Arc::clone(&project), version);
            project
        }))
    }
}

fn credential_of(row: ApiKeyRow) -> Credential {
    let key = KeyIdentity {
        id: row.id,
        name: row.name.to_string(),
        project_id: row.project_id,
        role: row.role,
        expires_at: row.expires_at,
    };
    Credential { user_id: row.user_id, session_version: None, expires_at: row.expires_at, api_key: Some(Arc::new(key)) }
}

/// What a key carries of what its user has: never more.
fn capped(
    user_id: UserId,
    system_admin: bool,
    mut roles: Vec<(ProjectId, Role)>,
    key: Option<&KeyIdentity>,
) -> Principal {
    let Some(key) = key.filter(|k| k.project_id.is_some() || k.role.is_some()) else {
        return Principal { user_id, system_admin, roles };
    };
    if let Some(only) = key.project_id {
        roles.retain(|(project, _)| *project == only);
        // A system admin may everything in every project, also without a role there.
        if system_admin && roles.is_empty() {
            roles.push((only, Role::Admin));
        }
        if system_admin {
            roles.iter_mut().for_each(|(_, role)| *role = Role::Admin);
        }
    }
    if let Some(most) = key.role {
        roles.iter_mut().for_each(|(_, role)| *role = (*role).min(most));
    }
    Principal { user_id, system_admin: false, roles }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(project_id: Option<ProjectId>, role: Option<Role>) -> KeyIdentity {
        KeyIdentity { id: ApiKeyId::new(), name: "ci".into(), project_id, role, expires_at: None }
    }

    #[test]
    fn a_key_never_carries_more_than_its_user() {
        let (user, a, b) = (UserId::new(), ProjectId::new(), ProjectId::new());
        let roles = vec![(a, Role::Member), (b, Role::Admin)];
        let with = |key: &KeyIdentity| capped(user, false, roles.clone(), Some(key)).roles;
        assert_eq!(with(&key(None, None)), roles);
        assert_eq!(with(&key(Some(a), Some(Role::Admin))), [(a, Role::Member)]);
        assert_eq!(with(&key(None, Some(Role::Reader))), [(a, Role::Reader), (b, Role::Reader)]);
        assert_eq!(with(&key(Some(ProjectId::new()), None)), []);
    }

    #[test]
    fn a_restricted_key_of_a_system_admin_is_no_system_admin() {
        let (user, a) = (UserId::new(), ProjectId::new());
        let bound = capped(user, true, vec![], Some(&key(Some(a), Some(Role::Reader))));
        assert!(!bound.system_admin);
        assert_eq!(bound.roles, [(a, Role::Reader)]);
        assert!(capped(user, true, vec![], Some(&key(None, None))).system_admin);
        assert!(!capped(user, true, vec![], Some(&key(None, Some(Role::Admin)))).system_admin);
    }
}
