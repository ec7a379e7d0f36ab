//! Who: projects, members, users, API keys.

use super::{filled, time, time_or_none, yes};
use crate::output::Row;
use client::model::{ApiKey, Member, Project, User, WhoamiProject};

impl Row for Project {
    const HEADER: &'static [&'static str] = &["NAME", "DESCRIPTION", "CREATED", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_string(), self.description.clone(), time(self.created_at), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("description", self.description.clone()),
            ("created", time(self.created_at)),
        ]
    }
}

impl Row for Member {
    const HEADER: &'static [&'static str] = &["USER", "ROLE", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.user_name.to_string(), self.role.as_str().to_owned(), self.user_id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("user", self.user_name.to_string()),
            ("id", self.user_id.to_string()),
            ("role", self.role.as_str().to_owned()),
        ]
    }
}

impl Row for WhoamiProject {
    const HEADER: &'static [&'static str] = &["PROJECT", "ROLE", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.role.as_str().to_owned(), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("project", self.name.clone()), ("role", self.role.as_str().to_owned()), ("id", self.id.to_string())]
    }
}

impl Row for User {
    const HEADER: &'static [&'static str] = &["NAME", "ENABLED", "SYSTEM ADMIN", "CREATED", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), yes(self.enabled), yes(self.system_admin), time(self.created_at), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("enabled", yes(self.enabled)),
            ("system admin", yes(self.system_admin)),
            ("created", time(self.created_at)),
        ]
    }
}

impl Row for ApiKey {
    const HEADER: &'static [&'static str] = &["NAME", "PREFIX", "ROLE", "EXPIRES", "PROJECT", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.prefix.clone(),
            self.role.map_or(String::new(), |r| r.as_str().to_owned()),
            time_or_none(self.expires_at),
            self.project_id.map_or(String::new(), |p| p.to_string()),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        filled(vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("secret", self.secret.clone().unwrap_or_default()),
            ("prefix", self.prefix.clone()),
            ("role", self.role.map_or(String::new(), |r| r.as_str().to_owned())),
            ("project", self.project_id.map_or(String::new(), |p| p.to_string())),
            ("expires", time_or_none(self.expires_at)),
            ("created", time(self.created_at)),
        ])
    }
}
