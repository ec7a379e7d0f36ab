//! Who may do what: one pure function. The gateway calls it before every route; a test enumerates all routes and fails for a route without an
//! unauthorized case.

use crate::{ProjectId, UserId};

string_enum! {
    /// A user's role in one project; each includes the ones before it.
    pub enum Role {
        /// A reader sees everything of the project but secrets and consoles.
        Reader = "reader",
        /// A member creates, changes and deletes the project's objects.
        Member = "member",
        /// An admin manages the project's members as well.
        Admin = "admin",
    }
}

/// The caller, as far as the policy is interested in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub user_id: UserId,
    pub system_admin: bool,
    /// Roles by project. An API key bound to a project carries only that one.
    pub roles: Vec<(ProjectId, Role)>,
}

impl Principal {
    #[must_use]
    pub fn role_in(&self, project_id: ProjectId) -> Option<Role> {
        self.roles.iter().find(|(p, _)| *p == project_id).map(|(_, r)| *r)
    }
}

/// What a route does. The list is closed: a new route names one of these or adds one, and the table below must then decide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read objects of a project.
    ProjectRead,
    /// Create, change and delete objects of a project, and use consoles.
    ProjectWrite,
    /// Manage the members of a project.
    ProjectManage,
    /// Change one's own password and API keys, and read who one is.
    SelfService,
    /// Read the catalog: flavors, public images.
    CatalogRead,
    /// Manage hosts, users, projects, quota limits, flavors and public images, and read the whole audit log.
    SystemManage,
}

/// The object of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Project(ProjectId),
    System,
}

/// The policy's answer. `Hidden` is a 404: the caller may not know that the object exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny,
    Hidden,
}

#[must_use]
pub fn decide(principal: &Principal, action: Action, resource: Resource) -> Decision {
    if principal.system_admin {
        return Decision::Allow;
    }
    match (action, resource) {
        (Action::SelfService | Action::CatalogRead, _) => Decision::Allow,
        (Action::SystemManage, _) | (_, Resource::System) => Decision::Deny,
        (Action::ProjectRead | Action::ProjectWrite | Action::ProjectManage, Resource::Project(id)) => {
            let needed = match action {
                Action::ProjectRead | Action::SelfService | Action::CatalogRead => Role::Reader,
                Action::ProjectWrite => Role::Member,
                Action::ProjectManage | Action::SystemManage => Role::Admin,
            };
            match principal.role_in(id) {
                None => Decision::Hidden,
                Some(role) if role >= needed => Decision::Allow,
                Some(_) => Decision::Deny,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_include_the_lower_ones_and_strangers_see_nothing() {
        let (mine, other) = (ProjectId::new(), ProjectId::new());
        let who = |role| Principal { user_id: UserId::new(), system_admin: false, roles: vec![(mine, role)] };
        use Action::{ProjectManage, ProjectRead, ProjectWrite, SystemManage};
        for (role, action, expected) in [
            (Role::Reader, ProjectRead, Decision::Allow),
            (Role::Reader, ProjectWrite, Decision::Deny),
            (Role::Member, ProjectWrite, Decision::Allow),
            (Role::Member, ProjectManage, Decision::Deny),
            (Role::Admin, ProjectManage, Decision::Allow),
            (Role::Admin, SystemManage, Decision::Deny),
        ] {
            assert_eq!(decide(&who(role), action, Resource::Project(mine)), expected, "{role:?} {action:?}");
        }
        assert_eq!(decide(&who(Role::Admin), ProjectRead, Resource::Project(other)), Decision::Hidden);
        let root = Principal { user_id: UserId::new(), system_admin: true, roles: vec![] };
        assert_eq!(decide(&root, SystemManage, Resource::System), Decision::Allow);
    }
}
