//! Security groups and their rules.

use super::Bounded;
use crate::{Name, ProjectId, SecurityGroupId, SecurityRuleId, Timestamp, Violations, limits, network::SecurityRule};
use serde::{Deserialize, Serialize};

/// A rule of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    pub id: SecurityRuleId,
    pub security_group_id: SecurityGroupId,
    pub rule: SecurityRule,
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub project_id: ProjectId,
    pub name: Name,
    pub description: String,
    /// They are sorted by id.
    pub rules: Vec<SecurityGroupRule>,
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSecurityGroup {
    pub id: SecurityGroupId,
    pub name: Name,
    pub description: String,
    pub rules: Vec<SecurityGroupRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SecurityGroupPatch {
    pub name: Option<Name>,
    pub description: Option<String>,
}

impl Bounded for NewSecurityGroup {
    fn check(&self, violations: &mut Violations) {
        violations.description("description", &self.description);
        if violations.at_most("rules", self.rules.len(), limits::SECURITY_RULES_PER_REQUEST) {
            for (at, rule) in self.rules.iter().enumerate() {
                violations.description(&format!("rules/{at}/description"), &rule.description);
            }
        }
    }
}

impl Bounded for SecurityGroupPatch {
    fn check(&self, violations: &mut Violations) {
        violations.description("description", self.description.as_deref().unwrap_or_default());
    }
}

impl Bounded for SecurityGroupRule {
    fn check(&self, violations: &mut Violations) {
        violations.description("description", &self.description);
    }
}
