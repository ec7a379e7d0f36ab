//! The first start: when there is no user, `admin` is made, a system admin, with a password that only root can read.

use crate::{
    auth::{Auth, api_key},
    failure::ApiError,
};
use domain::{Name, Timestamp, UserId};
use service_kit::secret_file;
use std::{net::Ipv4Addr, path::Path};
use store::{CommitError, Constraint, Unit, UserInsert};

const ADMIN: &str = "admin";
/// Hex characters of a generated password: 128 bits.
const RANDOM_BYTES: usize = 16;

/// `path`: where the first password is read from, or written to.
pub async fn ensure_admin(auth: &Auth, path: &Path) -> Result<(), ApiError> {
    if auth.store.user_count().await? > 0 {
        return Ok(());
    }
    let file = |e: secret_file::SecretFileError| ApiError::internal("the admin's first password can't be kept", &e);
    let given = secret_file::read(path).map_err(file)?;
    let given = given.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|text| !text.is_empty());
    let password = match given {
        Some(text) => text,
        None => {
            let text = api_key::random_hex::<RANDOM_BYTES>();
            secret_file::write(path, format!("{text}\n").as_bytes()).map_err(file)?;
            text
        }
    };
    let user = UserInsert {
        id: UserId::new(),
        name: ADMIN.parse::<Name>().map_err(|e| ApiError::internal("`admin` is no name", &e))?,
        password_hash: auth.passwords.hash(Ipv4Addr::LOCALHOST.into(), password).await?,
        system_admin: true,
        enabled: true,
        created_at: Timestamp::now(),
    };
    match auth.store.commit(Unit::new().op(user)).await {
        Ok(()) => {
            tracing::info!(file = %path.display(), "the user `admin` was made; its password is in the file");
            Ok(())
        }
        // Another gateway of this installation started at the same moment.
        Err(CommitError::Constraint(Constraint::UserName)) => Ok(()),
        Err(other) => Err(other.into()),
    }
}
