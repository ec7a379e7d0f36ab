//! The one who sent a request, and what they may. How an API finds the token and the project in a request is its own affair.

use crate::{
    auth::{
        Auth,
        identity::{Identity, ProjectRef},
    },
    failure::ApiError,
};
use domain::{
    ErrorKind, OperationId, Problem, ProjectId, Timestamp,
    policy::{self, Action, Decision, Resource},
};
use operation::{Activity, AuditOutcome};
use service_kit::context::CallContext;
use std::{net::IpAddr, sync::Arc};

/// Whose eyes an answer is for. Hosts are the operator's affair: a tenant is shown none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemRole {
    Tenant,
    Admin,
}

/// Somebody known, with what their request says about itself.
#[derive(Clone)]
pub struct Caller {
    pub identity: Arc<Identity>,
    pub request_id: String,
    pub peer: IpAddr,
    /// Method and route of a mutation, for the audit log. None: the request only reads.
    pub mutation: Option<String>,
    /// The project that the request names, as given.
    pub project_key: Option<String>,
}

impl Caller {
    #[must_use]
    pub fn system_admin(&self) -> bool {
        self.identity.principal.system_admin
    }

    #[must_use]
    pub fn system_role(&self) -> SystemRole {
        if self.system_admin() { SystemRole::Admin } else { SystemRole::Tenant }
    }

    /// Whether the request says which project it means.
    #[must_use]
    pub fn names_project(&self) -> bool {
        self.project_key.is_some()
    }

    /// The context that goes with a call to another service.
    #[must_use]
    pub fn context(&self, operation_id: Option<OperationId>, dry_run: bool) -> CallContext {
        CallContext {
            request_id: self.request_id.clone(),
            operation_id,
            principal: self.identity.label.clone(),
            principal_name: self.identity.display.clone(),
            dry_run,
        }
    }

    /// Asks the policy. A denied mutation leaves a line in the audit log.
    pub async fn authorize(&self, auth: &Auth, action: Action, resource: Resource) -> Result<(), ApiError> {
        match policy::decide(&self.identity.principal, action, resource) {
            Decision::Allow => Ok(()),
            Decision::Hidden => Err(project_not_found(self.project_key.as_deref().unwrap_or("that")).into()),
            Decision::Deny => {
                if let Some(mutation) = &self.mutation {
                    self.audit_denied(auth, mutation, action, resource);
                }
                Err(denied(action).into())
            }
        }
    }

    fn audit_denied(&self, auth: &Auth, mutation: &str, action: Action, resource: Resource) {
        let project_id = match resource {
            Resource::Project(id) => Some(id),
            Resource::System => None,
        };
        let route = mutation.split_once(' ').map_or(mutation, |(_, route)| route);
        let activity = Activity::new("route", route, mutation.to_owned(), "", format!("{action:?} is not allowed"))
            .in_project(project_id);
        auth.audit.refused(activity.audit_entry(&self.context(None, false), AuditOutcome::Denied, Timestamp::now()));
    }

    /// The project that the request names, else the one that it means without. Doesn't ask the policy.
    pub async fn project(&self, auth: &Auth) -> Result<Arc<ProjectRef>, ApiError> {
        let key = match &self.project_key {
            Some(key) => key.clone(),
            None => self.default_project()?.to_string(),
        };
        let found = auth.identities.project(&key).await?;
        found.ok_or_else(|| project_not_found(&key).into())
    }

    /// The project that the request means, where the caller may do `action`.
    pub async fn project_for(&self, auth: &Auth, action: Action) -> Result<Arc<ProjectRef>, ApiError> {
        let project = self.project(auth).await?;
        self.authorize(auth, action, Resource::Project(project.id)).await?;
        Ok(project)
    }

    /// Enters a project: the right to do `action` in it, and a place within its rate limit.
    pub async fn enter(&self, auth: &Auth, action: Action) -> Result<Arc<ProjectRef>, ApiError> {
        let project = self.project_for(auth, action).await?;
        if !self.identity.system_admin {
            auth.limits.project(project.id)?;
        }
        Ok(project)
    }

    /// The project to read from; `None`: everything, which a system admin reads when no project is named.
    pub async fn reading_scope(&self, auth: &Auth, all_projects: bool) -> Result<Option<ProjectId>, ApiError> {
        if all_projects || (self.system_admin() && !self.names_project()) {
            self.authorize(auth, Action::SystemManage, Resource::System).await?;
            return Ok(None);
        }
        Ok(Some(self.project_for(auth, Action::ProjectRead).await?.id))
    }

    /// The API key's project, else the user's home. Others can put a user into a project of theirs, but they can't make it what the user's requests
    /// mean; and what a system admin does, who may do everything everywhere, always says where.
    fn default_project(&self) -> Result<ProjectId, Problem> {
        if let Some(project) = self.identity.api_key.as_ref().and_then(|k| k.project_id) {
            return Ok(project);
        }
        let required = |detail: &str| {
            Problem::new(ErrorKind::InvalidArgument, "project_required", detail).with_field("project", "required here")
        };
        if self.identity.principal.system_admin {
            return Err(required("a system administrator's request must name its project")
                .with_hint("add ?project=NAME or the header X-Iaas-Project; GET /v1/projects lists the projects"));
        }
        let home = self.identity.home_project_id;
        let home = home.filter(|id| self.identity.principal.role_in(*id).is_some());
        home.ok_or_else(|| {
            required("the request doesn't name a project, and you have no home project").with_hint(
                "add ?project=NAME or the header X-Iaas-Project, or choose a home project: PUT /v1/whoami/home-project; \
                 GET /v1/whoami lists your projects",
            )
        })
    }
}

fn project_not_found(key: &str) -> Problem {
    let shown: String = key.chars().take(64).collect();
    Problem::not_found("project", shown)
}

fn denied(action: Action) -> Problem {
    let needs = match action {
        Action::ProjectRead => "the role reader in the project",
        Action::ProjectWrite => "the role member in the project",
        Action::ProjectManage => "the role admin in the project",
        Action::SelfService | Action::CatalogRead => "a login",
        Action::SystemManage => "a system administrator",
    };
    Problem::new(ErrorKind::PermissionDenied, "permission_denied", format!("this needs {needs}"))
        .with_hint("an admin of the project or a system administrator can give you the role")
}
