//! What every command works with: the settings that options, environment and profile add up to, and the client made of them.

use crate::{
    args::Globals,
    config::{self, ConfigFile, DEFAULT_PROFILE, DEFAULT_URL, Profile, ProfileVault},
    error::CliError,
    output::{Format, Output, Row, print},
    plain,
};
use client::{Client, Mutation, model::Plan};
use serde::de::DeserializeOwned;
use std::{path::PathBuf, sync::Arc};

pub struct Context {
    pub out: Output,
    pub dry_run: bool,
    pub quiet: bool,
    pub config_path: PathBuf,
    pub profile_name: String,
    pub profile: Profile,
    pub url: String,
    pub project: Option<String>,
}

impl Context {
    pub fn new(globals: &Globals) -> Result<Self, CliError> {
        let config_path = config::path()?;
        let file: ConfigFile = config::read(&config_path)?;
        let profile_name =
            globals.profile.clone().or_else(|| file.current.clone()).unwrap_or_else(|| DEFAULT_PROFILE.to_owned());
        let profile = file.profiles.get(&profile_name).cloned().unwrap_or_default();
        Ok(Self {
            out: Output { format: globals.output },
            dry_run: globals.dry_run,
            quiet: globals.quiet,
            config_path,
            url: globals.url.clone().or_else(|| profile.url.clone()).unwrap_or_else(|| DEFAULT_URL.to_owned()),
            project: globals.project.clone().or_else(|| profile.project.clone()),
            profile_name,
            profile,
        })
    }

    /// A token from the environment, which replaces the login.
    pub fn env_token() -> Option<String> {
        std::env::var("IAAS_TOKEN").ok().filter(|t| !t.is_empty())
    }

    /// A client without credentials, for logging in and looking.
    pub fn anonymous(&self) -> Result<Client, CliError> {
        Ok(self.builder()?.build()?)
    }

    pub fn client(&self) -> Result<Client, CliError> {
        let mut builder = self.builder()?;
        if let Some(project) = &self.project {
            builder = builder.project(project);
        }
        builder = match Self::env_token() {
            Some(token) => builder.api_key(token),
            None => builder
                .vault(Arc::new(ProfileVault { path: self.config_path.clone(), profile: self.profile_name.clone() })),
        };
        Ok(builder.build()?)
    }

    fn builder(&self) -> Result<client::ClientBuilder, CliError> {
        let mut builder = Client::builder(&self.url).user_agent(concat!("iaasctl/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &self.profile.ca_file {
            let pem =
                std::fs::read(path).map_err(|source| CliError::File { action: "read", path: path.clone(), source })?;
            builder = builder.ca_pem(pem);
        }
        Ok(builder)
    }

    /// Makes a change, or (with `--dry-run`) prints what it would do and returns `None`.
    pub async fn change<T: DeserializeOwned>(&self, mutation: Mutation<T>) -> Result<Option<T>, CliError> {
        if self.dry_run {
            let plan = mutation.plan().await?;
            self.print_plan(&plan)?;
            return Ok(None);
        }
        Ok(Some(mutation.send().await?))
    }

    /// Makes a change and shows the object; with `--dry-run` the plan.
    pub async fn change_and_show<T: DeserializeOwned + Row>(&self, mutation: Mutation<T>) -> Result<(), CliError> {
        match self.change(mutation).await? {
            Some(object) => self.out.one(&object),
            None => Ok(()),
        }
    }

    /// Says on stderr what was done.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{}", plain::lines(text));
        }
    }

    fn print_plan(&self, plan: &Plan) -> Result<(), CliError> {
        if self.out.format != Format::Table {
            return self.out.value(plan);
        }
        let mut text = format!("dry run: {}\n", plan.summary);
        for affected in &plan.touches {
            text.push_str(&format!("  affects {affected}\n"));
        }
        if let Some(placement) = plan.placement.as_ref().filter(|p| !p.summary.is_empty()) {
            text.push_str(&format!("  placement: {}\n", placement.summary));
        }
        if let Some(left) = plan.quota_left {
            text.push_str(&format!(
                "  quota left: {} instances, {} vCPUs, {} MiB memory, {} GiB disk\n",
                left.instances, left.vcpus, left.memory_mib, left.disk_gib
            ));
        }
        print(&plain::lines(&text))
    }
}
