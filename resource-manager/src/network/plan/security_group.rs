//! Security groups and their rules.
//!
//! The group `default` is every project's: a port that names no group is in it. So it is neither renamed nor deleted, as people know it
//! from other clouds; its rules are the project's to change.

use super::{DEFAULT, Decided, Deed, Draft, check_description, in_use, named, words::port_named};
use crate::network::topology::{Key, Learned};
use domain::{
    ErrorKind, Name, Problem, ProjectId, SecurityGroupId, SecurityRuleId,
    network::{
        ChangeOutcome, InvalidRule, NetworkObject, NewSecurityGroup, ObjectKind, Remote, SecurityGroup,
        SecurityGroupPatch, SecurityGroupRule, SecurityRule,
    },
    quota::QuotaAmounts,
};
use std::collections::BTreeSet;
use store::{SecurityGroupChange, SecurityGroupDelete, SecurityGroupInsert, SecurityRuleDelete, SecurityRuleInsert};

fn invalid_rule(wrong: &InvalidRule) -> Problem {
    let field = match wrong {
        InvalidRule::Ports { .. } | InvalidRule::NoPorts { .. } => "ports",
        InvalidRule::Family { .. } => "remote",
        InvalidRule::NoTypes { .. } | InvalidRule::CodeWithoutType => "icmp_type",
        InvalidRule::Named { .. } => "protocol",
    };
    Problem::new(ErrorKind::InvalidArgument, "invalid_rule", wrong.to_string()).with_field(field, wrong.to_string())
}

fn rule_exists(group: &str) -> Problem {
    Problem::new(ErrorKind::AlreadyExists, "rule_exists", format!("the security group {group} has such a rule already"))
}

fn remote_group(rule: &SecurityRule) -> Option<SecurityGroupId> {
    match rule.remote {
        Remote::Group(id) => Some(id),
        Remote::Any | Remote::Cidr(_) => None,
    }
}

fn rules(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Draft<'_> {
    /// A rule that makes sense, and whose group is of the project.
    fn check_rule(&mut self, own: SecurityGroupId, rule: &SecurityRule) -> Decided<()> {
        rule.validate().map_err(|wrong| invalid_rule(&wrong))?;
        match remote_group(rule) {
            Some(id) if id != own => self.security_group(id).map(drop),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn security_group_create(&mut self, new: &NewSecurityGroup) -> Decided<ChangeOutcome> {
        let NewSecurityGroup { id, name, description, rules: new } = new;
        let id = *id;
        let project_id = self.project()?;
        check_description(description)?;
        let mut distinct: BTreeSet<SecurityRule> = BTreeSet::new();
        for SecurityGroupRule { rule, description, .. } in new {
            check_description(description)?;
            self.check_rule(id, rule)?;
            if !distinct.insert(*rule) {
                return Err(rule_exists(name.as_str()));
            }
        }
        let taken = |g: &SecurityGroup| g.project_id == project_id && g.name == *name;
        self.free_name(ObjectKind::SecurityGroup, name, |t| t.security_groups().any(taken))?;
        let object = self.new_security_group(project_id, id, name, description, new);
        Ok(self.done(Deed::Create, NetworkObject::SecurityGroup(object), name, vec![]))
    }

    pub(super) fn new_security_group(
        &mut self,
        project_id: ProjectId,
        id: SecurityGroupId,
        name: &Name,
        description: &str,
        new: &[SecurityGroupRule],
    ) -> SecurityGroup {
        let created_at = self.ask.now;
        self.op(SecurityGroupInsert {
            id,
            project_id,
            name: name.clone(),
            description: description.to_owned(),
            created_at,
        });
        let mut of_group: Vec<SecurityGroupRule> = Vec::new();
        for rule in new {
            let rule = SecurityGroupRule { security_group_id: id, ..rule.clone() };
            self.insert_rule(&rule);
            of_group.push(rule);
        }
        of_group.sort_by_key(|rule| rule.id);
        let object = SecurityGroup {
            id,
            project_id,
            name: name.clone(),
            description: description.to_owned(),
            rules: of_group,
            generation: 1,
            created_at,
        };
        let taken = QuotaAmounts { security_groups: 1, security_rules: rules(new.len()), ..QuotaAmounts::NONE };
        self.uses(project_id, taken);
        self.learn(Learned::SecurityGroup(object.clone()));
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

    pub(super) fn security_group_update(
        &mut self,
        id: SecurityGroupId,
        patch: &SecurityGroupPatch,
    ) -> Decided<ChangeOutcome> {
        let SecurityGroupPatch { name, description } = patch;
        let was = self.security_group(id)?;
        self.fence(ObjectKind::SecurityGroup, &was.name, was.generation)?;
        let mut object = was.clone();
        if let Some(name) = name.as_ref().filter(|name| **name != was.name) {
            if was.name.as_str() == DEFAULT {
                return Err(of_the_project("renamed"));
            }
            let taken = |g: &SecurityGroup| g.project_id == was.project_id && g.name == *name;
            self.free_name(ObjectKind::SecurityGroup, name, |t| t.security_groups().any(taken))?;
            object.name = name.clone();
        }
        if let Some(description) = description {
            check_description(description)?;
            object.description.clone_from(description);
        }
        let object = self.put_group(&was, object);
        let name = object.name.clone();
        Ok(self.done(Deed::Change, NetworkObject::SecurityGroup(object), name, vec![]))
    }

    /// The group's next generation.
    fn put_group(&mut self, was: &SecurityGroup, object: SecurityGroup) -> SecurityGroup {
        self.op(SecurityGroupChange {
            id: was.id,
            expected_generation: was.generation,
            name: object.name.clone(),
            description: object.description.clone(),
        });
        let object = SecurityGroup { generation: was.generation + 1, ..object };
        self.learn(Learned::SecurityGroup(object.clone()));
        object
    }

    pub(super) fn security_group_delete(&mut self, id: SecurityGroupId) -> Decided<ChangeOutcome> {
        let was = self.security_group(id)?;
        self.fence(ObjectKind::SecurityGroup, &was.name, was.generation)?;
        if was.name.as_str() == DEFAULT {
            return Err(of_the_project("deleted"));
        }
        let ports = self.topology.ports_in(id).map(port_named);
        let names = |group: &&SecurityGroup| {
            group.id != id && group.rules.iter().any(|rule| remote_group(&rule.rule) == Some(id))
        };
        let groups = self.topology.security_groups().filter(|group| group.project_id == was.project_id).filter(names);
        let groups =
            groups.map(|group| format!("a rule of {}", named(ObjectKind::SecurityGroup, &group.name, group.id)));
        let users: Vec<String> = ports.chain(groups).collect();
        if !users.is_empty() {
            return Err(in_use(ObjectKind::SecurityGroup, &was.name, &users, "take these out of it first"));
        }
        self.op(SecurityGroupDelete { id, expected_generation: was.generation });
        let given_back =
            QuotaAmounts { security_groups: -1, security_rules: -rules(was.rules.len()), ..QuotaAmounts::NONE };
        self.uses(was.project_id, given_back);
        self.learn(Learned::Gone(Key::SecurityGroup(id)));
        Ok(self.done(Deed::Delete, NetworkObject::SecurityGroup(was.clone()), &was.name, vec![]))
    }

    pub(super) fn security_rule_create(&mut self, new: &SecurityGroupRule) -> Decided<ChangeOutcome> {
        let SecurityGroupRule { id, security_group_id, rule, description } = new;
        let security_group_id = *security_group_id;
        let was = self.security_group(security_group_id)?;
        self.fence(ObjectKind::SecurityGroup, &was.name, was.generation)?;
        check_description(description)?;
        self.check_rule(security_group_id, rule)?;
        if was.rules.iter().any(|there| there.rule == *rule) {
            return Err(rule_exists(was.name.as_str()));
        }
        self.insert_rule(new);
        let mut object = was.clone();
        object.rules.push(new.clone());
        object.rules.sort_by_key(|rule| rule.id);
        self.put_group(&was, object);
        self.uses(was.project_id, QuotaAmounts { security_rules: 1, ..QuotaAmounts::NONE });
        let touches = vec![named(ObjectKind::SecurityGroup, &was.name, was.id)];
        Ok(self.done(Deed::Create, NetworkObject::SecurityRule(new.clone()), id, touches))
    }

    pub(super) fn security_rule_delete(&mut self, id: SecurityRuleId) -> Decided<ChangeOutcome> {
        let mut groups = self.topology.security_groups().filter(|group| Some(group.project_id) == self.ask.project_id);
        let gone = groups.find_map(|group| group.rules.iter().find(|rule| rule.id == id)).cloned();
        let gone = gone.ok_or_else(|| Problem::not_found("security rule", id))?;
        let security_group_id = gone.security_group_id;
        let was = self.security_group(security_group_id)?;
        self.fence(ObjectKind::SecurityGroup, &was.name, was.generation)?;
        self.op(SecurityRuleDelete { id, security_group_id });
        let mut object = was.clone();
        object.rules.retain(|rule| rule.id != id);
        self.put_group(&was, object);
        self.uses(was.project_id, QuotaAmounts { security_rules: -1, ..QuotaAmounts::NONE });
        let touches = vec![named(ObjectKind::SecurityGroup, &was.name, was.id)];
        Ok(self.done(Deed::Delete, NetworkObject::SecurityRule(gone), id, touches))
    }
}

fn of_the_project(what: &str) -> Problem {
    Problem::new(
        ErrorKind::InvalidState,
        "default_group",
        format!("the security group `{DEFAULT}` can't be {what}: ports that name no group are in it"),
    )
    .with_hint("change its rules instead, or put the ports into other groups")
}
