//! Decides whether a host that wants to join is admitted, and what that changes. Pure.
//!
//! A token admits the first host that brings it; that host, by id and key, may bring it again. Nobody may take a known host's place with a
//! token that was meant for a new one: a known host's key is changed (or certified for the first time) only by a token that names it.

use crate::agents::register::host_name;
use domain::{ErrorKind, HostId, Name, Problem, Timestamp, host::Host};
use service_kit::peer::NOT_ADMITTED;
use store::{HostAdmissionRow, HostTokenRow};

/// A host that wants to join, as it presents itself.
#[derive(Debug, Clone, Copy)]
pub struct Applicant<'a> {
    pub host_id: HostId,
    /// The SHA-256 of the key that it has proven to have.
    pub key_hash: &'a str,
    pub name: &'a str,
    pub now: Timestamp,
}

/// What the rows say about it.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// `None`: it brought none.
    pub token: Option<&'a HostTokenRow>,
    pub host: Option<&'a Host>,
    pub admission: Option<&'a HostAdmissionRow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    New {
        name: Name,
        /// Empty: the zone that its agent names.
        zone: String,
    },
    /// It was admitted before, with this key.
    Again,
    /// It is known, and gets its first key or another one.
    Key,
}

pub fn plan_entry(applicant: Applicant<'_>, known: Known<'_>) -> Result<Entry, Problem> {
    let admitted = known.admission.is_some_and(|a| a.key_hash == applicant.key_hash);
    let Some(token) = known.token else {
        return if admitted { Ok(Entry::Again) } else { Err(not_admitted(applicant.host_id)) };
    };
    if token.expires_at <= applicant.now {
        return Err(Problem::new(
            ErrorKind::Unauthenticated,
            "host_token_expired",
            format!("the token expired at {}", token.expires_at),
        )
        .with_hint("make another one: `iaasctl host token create`"));
    }
    let bound = token.host_id.is_some();
    if bound && (token.host_id != Some(applicant.host_id) || token.key_hash.as_deref() != Some(applicant.key_hash)) {
        return Err(Problem::new(
            ErrorKind::PermissionDenied,
            "host_token_used",
            "the token has admitted another host (or this one, with a key that it no longer has)",
        )
        .with_hint("a token is for one host: make one for each with `iaasctl host token create`"));
    }
    match known.host {
        None => Ok(Entry::New {
            name: token.host_name.clone().unwrap_or_else(|| host_name(applicant.name, applicant.host_id)),
            zone: token.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        }),
        Some(host) => {
            let named = token.host_name.as_ref().map(Name::as_str);
            if named.is_some_and(|name| name != host.name) {
                return Err(Problem::new(
                    ErrorKind::PermissionDenied,
                    "host_token_for_another",
                    format!("the token is for {}, and this host is {}", named.unwrap_or_default(), host.name),
                )
                .with_hint(format!("make a token for it: `iaasctl host token create --name {}`", host.name)));
            }
            if admitted {
                Ok(Entry::Again)
            } else if named.is_some() {
                Ok(Entry::Key)
            } else {
                Err(Problem::new(
                    ErrorKind::PermissionDenied,
                    "host_known",
                    format!(
                        "host {} is known already, with another key or none: a token for any host can't change that",
                        host.name
                    ),
                )
                .with_hint(format!("make a token that names it: `iaasctl host token create --name {}`", host.name)))
            }
        }
    }
}

#[must_use]
pub fn not_admitted(host_id: HostId) -> Problem {
    Problem::new(
        ErrorKind::PermissionDenied,
        NOT_ADMITTED,
        format!("host {host_id} isn't part of this fleet, or not with this key"),
    )
    .with_hint("make a token (`iaasctl host token create`) and join with it")
}

#[must_use]
pub fn unknown_token() -> Problem {
    Problem::new(
        ErrorKind::Unauthenticated,
        "host_token_invalid",
        "the token is unknown: it was deleted, or never made here",
    )
    .with_hint("make another one: `iaasctl host token create`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::HostTokenId;
    use domain::testing;

    fn token(host_name: Option<&str>) -> HostTokenRow {
        HostTokenRow {
            id: HostTokenId::new(),
            host_name: host_name.map(|n| n.parse().expect("a name")),
            zone: Some("b".parse().expect("a name")),
            created_by: "admin".into(),
            created_at: Timestamp(0),
            expires_at: Timestamp(10),
            host_id: None,
            key_hash: None,
            redeemed_at: None,
        }
    }

    fn code(result: Result<Entry, Problem>) -> String {
        result.expect_err("refused").code
    }

    #[test]
    fn a_token_admits_one_host_and_takes_nobodys_place() {
        let host = testing::host(HostId::new(), "h");
        let applicant = Applicant { host_id: host.id, key_hash: "k", name: "Box.example", now: Timestamp(5) };
        let any = token(None);
        let with = |token: Option<&HostTokenRow>, host: Option<&Host>, key: Option<&str>| {
            let row = key.map(|k| HostAdmissionRow {
                host_id: applicant.host_id,
                key_hash: k.into(),
                admitted_at: Timestamp(0),
            });
            plan_entry(applicant, Known { token, host, admission: row.as_ref() })
        };
        let new = |name: &str| Ok(Entry::New { name: name.parse().expect("a name"), zone: "b".into() });
        assert_eq!(with(Some(&any), None, None), new("box-example"));
        assert_eq!(with(Some(&token(Some("rack-1"))), None, None), new("rack-1"));

        let used =
            |host_id, key: &str| HostTokenRow { host_id: Some(host_id), key_hash: Some(key.into()), ..token(None) };
        assert_eq!(with(Some(&used(host.id, "k")), Some(&host), Some("k")), Ok(Entry::Again), "a repeat");
        assert_eq!(code(with(Some(&used(HostId::new(), "k")), None, None)), "host_token_used");
        assert_eq!(code(with(Some(&used(host.id, "k2")), None, None)), "host_token_used");
        let late = HostTokenRow { expires_at: Timestamp(5), ..used(host.id, "k") };
        assert_eq!(code(with(Some(&late), Some(&host), Some("k"))), "host_token_expired");

        // A known host: only its own key, or a token that names it.
        assert_eq!(code(with(Some(&any), Some(&host), Some("theirs"))), "host_known");
        assert_eq!(code(with(Some(&any), Some(&host), None)), "host_known");
        assert_eq!(with(Some(&token(Some("h"))), Some(&host), Some("theirs")), Ok(Entry::Key));
        assert_eq!(with(Some(&token(Some("h"))), Some(&host), None), Ok(Entry::Key));
        assert_eq!(code(with(Some(&token(Some("other"))), Some(&host), Some("k"))), "host_token_for_another");

        // Without a token the key alone counts.
        assert_eq!(with(None, Some(&host), Some("k")), Ok(Entry::Again));
        assert_eq!(code(with(None, Some(&host), Some("theirs"))), NOT_ADMITTED);
        assert_eq!(code(with(None, None, None)), NOT_ADMITTED);
    }
}
