//! A security rule whose form was checked, before its group is looked up.

use domain::{
    SecurityGroupId,
    network::{Cidr, Direction, Ethertype, Match, Remote, SecurityRule},
};

/// A rule whose group, if it names one, is still to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRequest {
    pub direction: Direction,
    pub ethertype: Ethertype,
    pub matches: Match,
    pub remote: RemoteRequest,
    pub description: String,
}

/// The other side of the traffic that a rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteRequest {
    Any,
    Cidr(Cidr),
    /// A group's id or name.
    Group(String),
}

impl RuleRequest {
    /// The group's key, if the rule names one.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        match &self.remote {
            RemoteRequest::Group(key) => Some(key),
            RemoteRequest::Any | RemoteRequest::Cidr(_) => None,
        }
    }

    /// `group`: what [`Self::group`] means.
    #[must_use]
    pub fn rule(&self, group: Option<SecurityGroupId>) -> SecurityRule {
        let remote = match (&self.remote, group) {
            (RemoteRequest::Cidr(cidr), _) => Remote::Cidr(*cidr),
            (RemoteRequest::Group(_), Some(id)) => Remote::Group(id),
            (RemoteRequest::Group(_) | RemoteRequest::Any, _) => Remote::Any,
        };
        SecurityRule { direction: self.direction, ethertype: self.ethertype, matches: self.matches, remote }
    }
}

/// The rules of a new group when the request gives none: everything may go out.
#[must_use]
pub fn everything_out() -> Vec<RuleRequest> {
    let out = |ethertype| RuleRequest {
        direction: Direction::Egress,
        ethertype,
        matches: Match::Any,
        remote: RemoteRequest::Any,
        description: String::new(),
    };
    Ethertype::ALL.into_iter().map(out).collect()
}
