//! Logging in and out.

use crate::{
    config,
    context::Context,
    error::CliError,
    output::{Format, Row, print, render_fields, render_table},
    prompt,
};
use clap::Args;
use client::{Client, ClientError, model::WhoamiProject};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The user's name; without it, you are asked on the terminal
    #[arg(long, short)]
    pub user: Option<String>,
    /// A file whose first line is the password (`-`: stdin); without it, you are asked on the terminal
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A file with a CA certificate (PEM) to trust in addition to the system's, for an API that uses its built-in CA
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct PasswdArgs {
    /// A file whose first line is the current password
    #[arg(long, value_name = "FILE")]
    pub current_password_file: Option<PathBuf>,
    /// A file whose first line is the new password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Don't revoke your API keys
    #[arg(long)]
    pub keep_api_keys: bool,
}

pub(super) async fn login(mut context: Context, args: LoginArgs) -> Result<(), CliError> {
    if let Some(path) = &args.ca_file {
        let absolute = std::path::absolute(path);
        context.profile.ca_file =
            Some(absolute.map_err(|source| CliError::File { action: "find", path: path.clone(), source })?);
    }
    let user = match args.user.or_else(|| context.profile.user.clone()) {
        Some(user) => user,
        None => prompt::line("user")?,
    };
    let password = prompt::secret(args.password_file.as_deref(), "password")?;
    let anonymous = context.anonymous()?;
    let login = anonymous.login(&user, &password).await?;
    let session = builder_with(&context)?.tokens(login.tokens()).build()?;
    let who = session.whoami().await?;
    let project = only_project(&who.projects);
    let name = context.profile_name.clone();
    let chosen = config::update(&context.config_path, |file| {
        file.current.get_or_insert_with(|| name.clone());
        let profile = file.profiles.entry(name.clone()).or_default();
        profile.url = Some(context.url.clone());
        profile.user = Some(who.user.name.clone());
        profile.ca_file.clone_from(&context.profile.ca_file);
        profile.keep(login.tokens());
        if profile.project.is_none() {
            profile.project = project;
        }
        profile.project.clone()
    })?;
    context.note(&format!("logged in to {} as {} (profile `{name}`)", context.url, who.user.name));
    if login.refresh_token.is_empty() {
        context.note(&format!(
            "this session ends in {} s and can't be renewed: the server has no room to keep sessions; free room on its disk, then log in again",
            login.expires_in
        ));
    }
    match chosen {
        Some(project) => context.note(&format!("project: {project}")),
        None => context.note("no project is chosen: use `iaasctl config set project NAME`"),
    }
    Ok(())
}

fn builder_with(context: &Context) -> Result<client::ClientBuilder, CliError> {
    let mut builder = Client::builder(&context.url);
    if let Some(path) = &context.profile.ca_file {
        let pem =
            std::fs::read(path).map_err(|source| CliError::File { action: "read", path: path.clone(), source })?;
        builder = builder.ca_pem(pem);
    }
    Ok(builder)
}

fn only_project(projects: &[WhoamiProject]) -> Option<String> {
    match projects {
        [one] => Some(one.name.clone()),
        _ => None,
    }
}

pub(super) async fn logout(context: Context) -> Result<(), CliError> {
    if context.profile.access_token.is_none() {
        context.note("you are not logged in");
        return Ok(());
    }
    let ended = match &context.profile.refresh_token {
        Some(refresh_token) => context.anonymous()?.logout(refresh_token).await,
        // The server keeps nothing of a session that can't be renewed; its access token expires by itself.
        None => Ok(()),
    };
    config::update(&context.config_path, |file| {
        if let Some(profile) = file.profiles.get_mut(&context.profile_name) {
            profile.access_token = None;
            profile.refresh_token = None;
        }
    })?;
    match ended {
        Ok(()) => context.note("logged out"),
        // The session is over as far as we go: its tokens are forgotten here.
        Err(ClientError::Problem(problem)) if problem.status == 401 => context.note("the session had already ended"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

pub(super) async fn whoami(context: Context) -> Result<(), CliError> {
    let who = context.client()?.whoami().await?;
    if context.out.format != Format::Table {
        return context.out.value(&who);
    }
    let mut fields = vec![
        ("user", who.user.name.clone()),
        ("id", who.user.id.to_string()),
        ("system admin", if who.user.system_admin { "yes" } else { "no" }.to_owned()),
        ("server", context.url.clone()),
        ("profile", context.profile_name.clone()),
    ];
    let home = who.projects.iter().find(|project| Some(project.id) == who.home_project_id);
    fields.extend(home.map(|project| ("home project", project.name.clone())));
    fields.extend(context.project.clone().map(|project| ("project", project)));
    let rows: Vec<_> = who.projects.iter().map(Row::cells).collect();
    print(&format!("{}\n{}", render_fields(&fields), render_table(WhoamiProject::HEADER, &rows, false)))
}

pub(super) async fn passwd(context: Context, args: PasswdArgs) -> Result<(), CliError> {
    let current = prompt::secret(args.current_password_file.as_deref(), "current password")?;
    let new = prompt::secret(args.password_file.as_deref(), "new password")?;
    if context.change(context.client()?.password_change(&current, &new, args.keep_api_keys)).await?.is_some() {
        let keys = if args.keep_api_keys { "" } else { " and your API keys are revoked" };
        context.note(&format!("the password was changed; your sessions have ended{keys}: log in again"));
    }
    Ok(())
}
