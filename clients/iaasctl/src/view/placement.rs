//! Placement groups and records as rows.

use super::{time, word};
use crate::output::Row;
use client::model::{KeptPlacement, PlacementGroup};
use domain::explain::PlacementRecord;

impl Row for PlacementGroup {
    const HEADER: &'static [&'static str] = &["NAME", "POLICY", "SCOPE", "STRENGTH", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.policy.as_str().to_owned(),
            self.scope.as_str().to_owned(),
            self.strength.as_str().to_owned(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let members = self.instance_ids.as_deref().unwrap_or_default();
        vec![
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("policy", self.policy.as_str().to_owned()),
            ("scope", self.scope.as_str().to_owned()),
            ("strength", self.strength.as_str().to_owned()),
            ("instances", members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            ("created", time(self.created_at)),
        ]
    }
}

/// "3 memory, 2 tags".
fn rejected(record: &PlacementRecord) -> String {
    let counted = record.rejected.iter().map(|r| format!("{} {}", r.hosts, word(&r.filter)));
    counted.collect::<Vec<_>>().join(", ")
}

impl Row for KeptPlacement {
    const HEADER: &'static [&'static str] = &["RECORDED", "INSTANCE", "OUTCOME", "WHY", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            time(self.kept_at),
            self.instance_name.to_string(),
            self.outcome.as_str().to_owned(),
            self.placement.summary.clone(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let record = &self.placement;
        let best: Vec<String> = record.best.iter().map(|c| format!("{}: {}", c.host_id, c.score)).collect();
        let nearest = record.nearest.as_ref().map(|nearest| {
            let host = nearest.host_id.map(|id| format!("host {id} ")).unwrap_or_default();
            let lacks = nearest.lacks;
            format!("{host}lacks {} vCPUs, {} MiB, {} GiB", lacks.vcpus, lacks.memory_mib, lacks.disk_gib)
        });
        let all = [
            ("id", self.id.to_string()),
            ("instance", self.instance_name.to_string()),
            ("instance id", self.instance_id.to_string()),
            ("project id", self.project_id.to_string()),
            ("outcome", self.outcome.as_str().to_owned()),
            ("recorded", time(self.kept_at)),
            ("decided", time(record.at)),
            ("why", record.summary.clone()),
            ("hint", record.hint.clone()),
            ("hosts", record.hosts_considered.to_string()),
            ("rejected", rejected(record)),
            ("nearest", nearest.unwrap_or_default()),
            ("chosen", record.chosen.map(|id| id.to_string()).unwrap_or_default()),
            ("its place", record.score.clone()),
            ("best", best.join("\n")),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }
}
