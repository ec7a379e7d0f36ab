//! Who asks, and whether they may.
//!
//! `scope` holds the extractors that every route starts with: they authenticate, resolve the project and ask `domain::policy` before
//! the route (or its body) is looked at. The rest is what they stand on.

pub mod api_key;
pub mod bootstrap;
pub mod cache;
pub mod identity;
pub mod keyring;
pub mod master_key;
pub mod password;
pub mod rate_limit;
pub mod scope;
pub mod session;
pub mod throttle;
pub mod token;

use crate::config::Config;
use std::time::Duration;

/// Failures of hosts to join from one address before the next ones wait.
const JOIN_ATTEMPTS: u32 = 20;
const JOIN_LOCKOUT: Duration = Duration::from_secs(10);

/// The state of authentication in this process.
pub struct Auth {
    pub passwords: password::Passwords,
    pub throttle: throttle::Throttle,
    /// Per address: of hosts that fail to join.
    pub joins: throttle::Throttle,
    pub keyring: keyring::Keyring,
    pub identities: identity::Identities,
    pub limits: rate_limit::RateLimits,
}

impl Auth {
    #[must_use]
    pub fn new(config: &Config, master: std::sync::Arc<master_key::MasterKey>) -> Self {
        let identity = &config.identity;
        Self {
            passwords: password::Passwords::new(identity.password_hashes_at_once),
            throttle: throttle::Throttle::new(
                identity.login_attempts,
                Duration::from_secs(identity.login_lockout_secs),
            ),
            joins: throttle::Throttle::joins(JOIN_ATTEMPTS, JOIN_LOCKOUT),
            keyring: keyring::Keyring::new(master, identity),
            identities: identity::Identities::new(Duration::from_millis(identity.principal_cache_ms)),
            limits: rate_limit::RateLimits::new(config.api.rate_limit_per_principal, config.api.rate_limit_per_project),
        }
    }
}
