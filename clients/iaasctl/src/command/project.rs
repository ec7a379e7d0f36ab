//! `project`: projects and their members.

use super::change::{create_and_show, delete_each};
use crate::{args::IfNotExists, context::Context, error::CliError};
use clap::{Subcommand, ValueEnum};
use client::model::{ProjectChange, ProjectCreate};
use domain::policy::Role;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// May read everything but secrets and consoles
    Reader,
    /// May also create, change and delete objects
    Member,
    /// May also manage the members
    Admin,
}

impl RoleName {
    #[must_use]
    pub fn role(self) -> Role {
        match self {
            Self::Reader => Role::Reader,
            Self::Member => Role::Member,
            Self::Admin => Role::Admin,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Create a project (system admins)
    Create {
        name: String,
        #[arg(long, default_value = "", hide_default_value = true)]
        description: String,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// List the projects that you may use
    List,
    /// Show a project
    Show { project: String },
    /// Change the name or description of a project
    Set {
        project: String,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete empty projects
    Delete {
        #[arg(required = true)]
        projects: Vec<String>,
    },
    /// Choose your home project: the one that requests mean which name none
    Home { project: String },
    /// Leave a project: you are no longer a member
    Leave { project: String },
    /// Manage the members of a project and their roles
    #[command(subcommand)]
    Member(MemberCommand),
}

#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// List the members of a project
    List { project: String },
    /// Add a user with a role, or change the user's role
    Set {
        project: String,
        user: String,
        #[arg(long, value_enum)]
        role: RoleName,
    },
    /// Remove a user from the project
    Remove { project: String, user: String },
}

pub(super) async fn run(context: Context, command: ProjectCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        ProjectCommand::Create { name, description, exists } => {
            let request = ProjectCreate { name: name.clone(), description };
            let mutation = client.project_create(&request);
            create_and_show(&context, mutation, exists.if_not_exists, client.project(&name)).await
        }
        ProjectCommand::List => context.out.list(&client.projects().all().await?),
        ProjectCommand::Show { project } => context.out.one(&client.project(&project).await?),
        ProjectCommand::Set { project, name, description } => {
            context.change_and_show(client.project_change(&project, &ProjectChange { name, description })).await
        }
        ProjectCommand::Delete { projects } => {
            delete_each(&context, "project", &projects, |name| client.project_delete(name)).await
        }
        ProjectCommand::Home { project } => context.change(client.home_project_set(&project)).await.map(drop),
        ProjectCommand::Leave { project } => context.change(client.project_leave(&project)).await.map(drop),
        ProjectCommand::Member(MemberCommand::List { project }) => {
            context.out.list(&client.project_members(&project).all().await?)
        }
        ProjectCommand::Member(MemberCommand::Set { project, user, role }) => {
            context.change_and_show(client.project_member_put(&project, &user, role.role())).await
        }
        ProjectCommand::Member(MemberCommand::Remove { project, user }) => {
            context.change(client.project_member_delete(&project, &user)).await.map(drop)
        }
    }
}
