//! Authentication and authorization: who sends a request, and whether they may.
//!
//! It knows neither the API's dialects nor the rest of the gateway: `caller` is what a dialect's extractors make of a request.

pub mod api_key;
pub mod audit_fold;
pub mod bootstrap;
pub mod cache;
pub mod caller;
pub mod identity;
pub mod keyring;
pub mod master_key;
pub mod name_search;
pub mod password;
pub mod peer;
pub mod rate_limit;
pub(crate) mod recent;
pub mod session;
pub mod throttle;
pub mod token;

use crate::config::Config;
use std::{sync::Arc, time::Duration};
use store::Store;

/// Failures of hosts to join from one address before the next ones wait.
const JOIN_ATTEMPTS: u32 = 20;
const JOIN_LOCKOUT: Duration = Duration::from_secs(10);

/// How long tokens are valid.
pub struct Lifetimes {
    pub access_token_secs: u64,
    pub refresh_token_hours: u64,
}

/// A cheap handle on the state of authentication in this process. Routers give it to their extractors (`FromRef`).
#[derive(Clone)]
pub struct Auth(Arc<State>);

pub struct State {
    pub store: Store,
    pub passwords: password::Passwords,
    pub throttle: throttle::Throttle,
    /// Lines of the audit log that may come by the thousand.
    pub audit: audit_fold::AuditFold,
    /// Per address: hosts that fail to join.
    pub joins: throttle::Throttle,
    pub keyring: Arc<keyring::Keyring>,
    pub identities: identity::Identities,
    pub limits: rate_limit::RateLimits,
    /// Of users, by admins of projects.
    pub name_searches: name_search::NameSearches,
    pub lifetimes: Lifetimes,
    /// How many API keys a user may have.
    pub api_keys_max: u32,
}

impl std::ops::Deref for Auth {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl Auth {
    #[must_use]
    pub fn new(config: &Config, store: Store, master: Arc<master_key::MasterKey>) -> Self {
        let identity = &config.identity;
        let keyring = Arc::new(keyring::Keyring::new(master, identity));
        let cached = Duration::from_millis(identity.principal_cache_ms);
        Self(Arc::new(State {
            passwords: password::Passwords::new(identity.password_hashes_at_once),
            throttle: throttle::Throttle::new(throttle::Limits {
                per_user: identity.login_attempts,
                per_network: identity.login_attempts_per_address,
                lockout: Duration::from_secs(identity.login_lockout_secs),
            }),
            audit: audit_fold::AuditFold::new(store.clone()),
            joins: throttle::Throttle::joins(JOIN_ATTEMPTS, JOIN_LOCKOUT),
            identities: identity::Identities::new(store.clone(), Arc::clone(&keyring), cached),
            keyring,
            limits: rate_limit::RateLimits::new(
                config.api.rate_limit_per_principal,
                config.api.rate_limit_per_project,
                config.api.rate_limit_per_peer,
            ),
            name_searches: name_search::NameSearches::default(),
            lifetimes: Lifetimes {
                access_token_secs: identity.access_token_secs,
                refresh_token_hours: identity.refresh_token_hours,
            },
            api_keys_max: identity.api_keys_max,
            store,
        }))
    }
}
