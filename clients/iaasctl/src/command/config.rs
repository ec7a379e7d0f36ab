//! `config`: profiles and their settings.

use crate::{
    config::{self, ConfigFile, Profile},
    context::Context,
    error::CliError,
    output::{Row, print},
};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Key {
    /// The API's address
    Url,
    /// The project that commands are about
    Project,
    /// A CA certificate to trust besides the system's
    CaFile,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Set one setting of the profile in use
    Set { key: Key, value: String },
    /// Print one setting
    Get { key: Key },
    /// Remove one setting
    Unset { key: Key },
    /// List the profiles
    List,
    /// Switch to another profile
    Use { profile: String },
    /// Delete a profile with its session
    Remove { profile: String },
    /// Print the path of the profile file
    Path,
}

#[derive(Serialize)]
struct ProfileLine {
    profile: String,
    in_use: bool,
    url: String,
    user: String,
    project: String,
    logged_in: bool,
}

impl Row for ProfileLine {
    const HEADER: &'static [&'static str] = &["", "PROFILE", "URL", "USER", "PROJECT", "LOGGED IN"];

    fn cells(&self) -> Vec<String> {
        vec![
            if self.in_use { "*" } else { "" }.to_owned(),
            self.profile.clone(),
            self.url.clone(),
            self.user.clone(),
            self.project.clone(),
            if self.logged_in { "yes" } else { "no" }.to_owned(),
        ]
    }
}

pub(super) fn run(context: Context, command: ConfigCommand) -> Result<(), CliError> {
    let path = context.config_path.clone();
    match command {
        ConfigCommand::Set { key, value } => {
            if value.is_empty() {
                return Err(
                    CliError::usage("the value is empty").with_hint("to remove a setting: iaasctl config unset")
                );
            }
            if key == Key::Url {
                client::Client::builder(&value).build()?;
            }
            change(&context, |profile| match key {
                Key::Url => profile.url = Some(value),
                Key::Project => profile.project = Some(value),
                Key::CaFile => profile.ca_file = Some(PathBuf::from(value)),
            })
        }
        ConfigCommand::Unset { key } => change(&context, |profile| match key {
            Key::Url => profile.url = None,
            Key::Project => profile.project = None,
            Key::CaFile => profile.ca_file = None,
        }),
        ConfigCommand::Get { key } => {
            let value = match key {
                Key::Url => Some(context.url.clone()),
                Key::Project => context.project.clone(),
                Key::CaFile => context.profile.ca_file.as_ref().map(|p| p.display().to_string()),
            };
            print(&value.map(|v| v + "\n").unwrap_or_default())
        }
        ConfigCommand::List => {
            let file = config::read(&path)?;
            let lines: Vec<_> = file.profiles.iter().map(|(name, p)| line(&context, name, p)).collect();
            context.out.list(&lines)
        }
        ConfigCommand::Use { profile } => with_profile(&context, &profile, |file| file.current = Some(profile.clone())),
        ConfigCommand::Remove { profile } => with_profile(&context, &profile, |file| {
            file.profiles.remove(&profile);
            if file.current.as_ref() == Some(&profile) {
                file.current = None;
            }
        }),
        ConfigCommand::Path => print(&format!("{}\n", path.display())),
    }
}

fn line(context: &Context, name: &str, profile: &Profile) -> ProfileLine {
    ProfileLine {
        profile: name.to_owned(),
        in_use: *name == context.profile_name,
        url: profile.url.clone().unwrap_or_default(),
        user: profile.user.clone().unwrap_or_default(),
        project: profile.project.clone().unwrap_or_default(),
        logged_in: profile.access_token.is_some(),
    }
}

fn change(context: &Context, change: impl FnOnce(&mut Profile)) -> Result<(), CliError> {
    config::update(&context.config_path, |file| {
        file.current.get_or_insert_with(|| context.profile_name.clone());
        change(file.profiles.entry(context.profile_name.clone()).or_default());
    })
}

fn with_profile(context: &Context, name: &str, change: impl FnOnce(&mut ConfigFile)) -> Result<(), CliError> {
    let found = config::update(&context.config_path, |file| {
        let found = file.profiles.contains_key(name);
        if found {
            change(file);
        }
        found
    })?;
    if found {
        return Ok(());
    }
    Err(CliError::Failed {
        detail: format!("there is no profile `{name}`"),
        hint: Some("iaasctl config list".to_owned()),
        code: crate::exit::NOT_FOUND,
    })
}
