//! Placement groups as rows.

use super::time;
use crate::output::Row;
use client::model::PlacementGroup;

impl Row for PlacementGroup {
    const HEADER: &'static [&'static str] = &["NAME", "POLICY", "SCOPE", "STRENGTH", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.policy.as_str().to_owned(),
            self.scope.as_str().to_owned(),
            self.strength.as_str().to_owned(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let members = self.instance_ids.as_deref().unwrap_or_default();
        vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("policy", self.policy.as_str().to_owned()),
            ("scope", self.scope.as_str().to_owned()),
            ("strength", self.strength.as_str().to_owned()),
            ("instances", members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            ("created", time(self.created_at)),
        ]
    }
}
