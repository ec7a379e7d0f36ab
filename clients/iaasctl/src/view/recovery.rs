//! Recoveries, and what a host's loss comes to.

use super::{time, time_or_none};
use crate::output::Row;
use client::model::{HostLoss, Recovery};
use domain::Timestamp;

/// "12.3 s" after the loss.
fn after(recovery: &Recovery, at: Option<Timestamp>) -> String {
    at.map_or_else(String::new, |at| format!("{:.1} s", at.millis_since(recovery.lost_at) as f64 / 1000.0))
}

impl Row for Recovery {
    const HEADER: &'static [&'static str] = &["LOST", "INSTANCE", "HOST", "PHASE", "BACK AFTER", "WHY", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            time(self.lost_at),
            self.instance_name.to_string(),
            self.host_name.clone(),
            self.phase.as_str().to_owned(),
            after(self, self.reachable_at),
            self.reason.clone(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("id", self.id.to_string()),
            ("instance", self.instance_name.to_string()),
            ("instance id", self.instance_id.to_string()),
            ("project id", self.project_id.to_string()),
            ("lost host", self.host_name.clone()),
            ("lost host id", self.host_id.to_string()),
            ("new host id", self.to_host_id.map(|id| id.to_string()).unwrap_or_default()),
            ("epoch", self.epoch.to_string()),
            ("on host loss", self.policy.as_str().to_owned()),
            ("wanted back after", format!("{} s", self.rto_seconds)),
            ("phase", self.phase.as_str().to_owned()),
            ("reason", self.reason.clone()),
            ("lost", time(self.lost_at)),
            ("declared lost after", after(self, Some(self.detected_at))),
            ("placed after", after(self, self.placed_at)),
            ("started after", after(self, self.started_at)),
            ("addresses answer after", after(self, self.reachable_at)),
            ("guest up after", after(self, self.verified_at)),
            ("over", time_or_none(self.closed_at)),
        ]
    }
}

impl Row for HostLoss {
    const HEADER: &'static [&'static str] = &["HOST", "RECREATED", "RESTARTED", "WAITING", "DELETED"];

    fn cells(&self) -> Vec<String> {
        let counts = [self.recreated, self.restarted, self.waiting, self.deleted];
        std::iter::once(self.host_name.clone()).chain(counts.map(|count| count.to_string())).collect()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("host", self.host_name.clone()),
            ("host id", self.host_id.to_string()),
            ("recreated elsewhere", self.recreated.to_string()),
            ("restarted elsewhere", self.restarted.to_string()),
            ("waiting", self.waiting.to_string()),
            ("deletions completed", self.deleted.to_string()),
        ]
    }
}
