//! Security groups and their rules.
//!
//! The group `default` is every project's: a port that names no group is in it. So it is neither renamed nor deleted, as people know it
//! from other clouds; its rules are the project's to change.

use super::{Decision, Planner, Planning, Verb, planner::in_use};
use crate::network::topology::{DEFAULT, NamedRow as _};
use domain::{
    ErrorKind, Problem, ProjectId, SecurityGroupId, SecurityRuleId,
    network::{
        ChangeOutcome, InvalidRule, NetworkObject, NewSecurityGroup, NoPatch, ObjectKind, Remote, SecurityGroup,
        SecurityGroupPatch, SecurityGroupRule, SecurityRule,
    },
    quota::QuotaAmounts,
};
use std::collections::BTreeSet;
use store::{SecurityGroupChange, SecurityGroupDelete, SecurityGroupInsert, SecurityRuleDelete, SecurityRuleInsert};

fn invalid_rule(violation: &InvalidRule) -> Problem {
    let field = match violation {
        InvalidRule::Ports { .. } | InvalidRule::NoPorts { .. } => "ports",
        InvalidRule::Family { .. } => "remote",
        InvalidRule::NoTypes { .. } | InvalidRule::CodeWithoutType => "icmp_type",
        InvalidRule::Named { .. } => "protocol",
    };
    let detail = violation.to_string();
    Problem::new(ErrorKind::InvalidArgument, "invalid_rule", detail.clone()).with_field(field, detail)
}

fn rule_exists(group: &str) -> Problem {
    Problem::new(ErrorKind::AlreadyExists, "rule_exists", format!("the security group {group} has such a rule already"))
}

fn of_the_project(what: &str) -> Problem {
    Problem::new(
        ErrorKind::InvalidState,
        "default_group",
        format!("the security group `{DEFAULT}` can't be {what}: ports that name no group are in it"),
    )
    .with_hint("change its rules instead, or put the ports into other groups")
}

fn remote_group(rule: &SecurityRule) -> Option<SecurityGroupId> {
    match rule.remote {
        Remote::Group(id) => Some(id),
        Remote::Any | Remote::Cidr(_) => None,
    }
}

fn amount(rules: usize) -> i64 {
    i64::try_from(rules).unwrap_or(i64::MAX)
}

impl Planner<'_> {
    /// A rule that makes sense, and whose remote group is one of the project's.
    fn check_rule(&mut self, own: SecurityGroupId, rule: &SecurityRule) -> Decision<()> {
        rule.validate().map_err(|violation| invalid_rule(&violation))?;
        match remote_group(rule) {
            Some(id) if id != own => self.fetch::<SecurityGroup>(id).map(drop),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn insert_security_group(&mut self, project_id: ProjectId, new: NewSecurityGroup) -> SecurityGroup {
        let NewSecurityGroup { id, name, description, mut rules } = new;
        let created_at = self.context.now;
        rules.sort_by_key(|rule| rule.id);
        let (inserted_name, inserted_description) = (name.clone(), description.clone());
        self.op(SecurityGroupInsert {
            id,
            project_id,
            name: inserted_name,
            description: inserted_description,
            created_at,
        });
        rules.iter().for_each(|rule| self.insert_rule(rule));
        let security_rules = amount(rules.len());
        self.uses(project_id, QuotaAmounts { security_groups: 1, security_rules, ..QuotaAmounts::NONE });
        let object = SecurityGroup { id, project_id, name, description, rules, generation: 1, created_at };
        self.put(object.clone());
        object
    }

    fn insert_rule(&mut self, rule: &SecurityGroupRule) {
        self.op(SecurityRuleInsert {
            id: rule.id,
            security_group_id: rule.security_group_id,
            rule: rule.rule,
            remote_group_id: remote_group(&rule.rule),
            description: rule.description.clone(),
        });
    }

    /// The group's next generation.
    fn change_group(&mut self, object: SecurityGroup) -> SecurityGroup {
        self.op(SecurityGroupChange {
            id: object.id,
            expected_generation: object.generation,
            name: object.name.clone(),
            description: object.description.clone(),
        });
        let object = SecurityGroup { generation: object.generation + 1, ..object };
        self.put(object.clone());
        object
    }

    fn finish_rule(&mut self, verb: Verb, rule: SecurityGroupRule, group: &SecurityGroup) -> ChangeOutcome {
        let (id, project_id) = (rule.id.to_string(), Some(group.project_id));
        self.finish_object(verb, NetworkObject::SecurityRule(rule), &id, &id, project_id, vec![group.describe()])
    }
}

impl Planning for SecurityGroup {
    fn create(planner: &mut Planner<'_>, new: &NewSecurityGroup) -> Decision<ChangeOutcome> {
        let project_id = planner.project()?;
        let mut distinct: BTreeSet<SecurityRule> = BTreeSet::new();
        for SecurityGroupRule { rule, .. } in &new.rules {
            planner.check_rule(new.id, rule)?;
            if !distinct.insert(*rule) {
                return Err(rule_exists(new.name.as_str()));
            }
        }
        planner.takes_name::<Self>(&new.name, new.id, |other| other.project_id == project_id)?;
        let object = planner.insert_security_group(project_id, new.clone());
        Ok(planner.finish(Verb::Create, object, vec![]))
    }

    fn update(planner: &mut Planner<'_>, id: SecurityGroupId, patch: &SecurityGroupPatch) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let SecurityGroupPatch { name, description } = patch.clone();
        let mut object = old.clone();
        if let Some(name) = name.filter(|name| *name != old.name) {
            if old.name.as_str() == DEFAULT {
                return Err(of_the_project("renamed"));
            }
            planner.takes_name::<Self>(&name, id, |other| other.project_id == old.project_id)?;
            object.name = name;
        }
        object.description = description.unwrap_or(object.description);
        let object = planner.change_group(object);
        Ok(planner.finish(Verb::Change, object, vec![]))
    }

    fn delete(planner: &mut Planner<'_>, id: SecurityGroupId) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        if old.name.as_str() == DEFAULT {
            return Err(of_the_project("deleted"));
        }
        let ports = planner.topology.ports_in(id).map(|port| port.describe());
        let names = |group: &&Self| {
            let mut remotes = group.rules.iter().map(|rule| remote_group(&rule.rule));
            group.id != id && remotes.any(|remote| remote == Some(id))
        };
        let groups = planner.topology.security_groups().filter(|group| group.project_id == old.project_id);
        let groups = groups.filter(names).map(|group| format!("a rule of {}", group.describe()));
        let users: Vec<String> = ports.chain(groups).collect();
        if !users.is_empty() {
            return Err(in_use(ObjectKind::SecurityGroup, &old.name, &users, "take these out of it first"));
        }
        planner.op(SecurityGroupDelete { id, expected_generation: old.generation });
        let freed = QuotaAmounts { security_groups: 1, security_rules: amount(old.rules.len()), ..QuotaAmounts::NONE };
        planner.uses(old.project_id, freed.negated());
        planner.gone::<Self>(id);
        Ok(planner.finish(Verb::Delete, old, vec![]))
    }
}

/// A rule is a part of its group: a change of it is the group's next generation.
impl Planning for SecurityGroupRule {
    fn create(planner: &mut Planner<'_>, new: &Self) -> Decision<ChangeOutcome> {
        let group: SecurityGroup = planner.fetch_to_change(new.security_group_id)?;
        planner.check_rule(group.id, &new.rule)?;
        if group.rules.iter().any(|existing| existing.rule == new.rule) {
            return Err(rule_exists(group.name.as_str()));
        }
        planner.insert_rule(new);
        let mut object = group.clone();
        object.rules.push(new.clone());
        object.rules.sort_by_key(|rule| rule.id);
        planner.change_group(object);
        planner.uses(group.project_id, QuotaAmounts { security_rules: 1, ..QuotaAmounts::NONE });
        Ok(planner.finish_rule(Verb::Create, new.clone(), &group))
    }

    fn update(_: &mut Planner<'_>, _: SecurityRuleId, patch: &NoPatch) -> Decision<ChangeOutcome> {
        match *patch {}
    }

    fn delete(planner: &mut Planner<'_>, id: SecurityRuleId) -> Decision<ChangeOutcome> {
        let project_id = planner.project()?;
        let groups = planner.topology.security_groups().filter(|group| group.project_id == project_id);
        let old = groups.flat_map(|group| &group.rules).find(|rule| rule.id == id).cloned();
        let old = old.ok_or_else(|| Problem::not_found(ObjectKind::SecurityRule.label(), id))?;
        let group: SecurityGroup = planner.fetch_to_change(old.security_group_id)?;
        planner.op(SecurityRuleDelete { id, security_group_id: group.id });
        let mut object = group.clone();
        object.rules.retain(|rule| rule.id != id);
        planner.change_group(object);
        planner.uses(group.project_id, QuotaAmounts { security_rules: -1, ..QuotaAmounts::NONE });
        Ok(planner.finish_rule(Verb::Delete, old, &group))
    }
}
