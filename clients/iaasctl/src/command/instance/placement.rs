//! Options on where a new instance may be.

use crate::{args::one_of, size::parse_tag};
use clap::Args;
use client::model::{InstanceCreate, PlacementRequest};
use domain::instance::{DiskPool, OnHostLoss};

#[derive(Debug, Args)]
pub struct PlacementArgs {
    /// A placement group to join; repeat it for several
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
    /// Only on hosts with this tag; repeat it for several
    #[arg(long = "require-tag", value_parser = parse_tag, value_name = "KEY=VALUE")]
    required_tags: Vec<(String, String)>,
    /// Not on hosts with this tag; repeat it for several
    #[arg(long = "forbid-tag", value_parser = parse_tag, value_name = "KEY=VALUE")]
    forbidden_tags: Vec<(String, String)>,
    /// Only on hosts whose CPU has this feature (`avx2`); repeat it for several
    #[arg(long = "cpu-feature", value_name = "FEATURE")]
    cpu_features: Vec<String>,
    /// Only on hosts dedicated to the project
    #[arg(long)]
    dedicated: bool,
    /// What to do when its host is lost; `restart` reserves capacity for it on another host
    #[arg(long, value_parser = one_of(OnHostLoss::ALL, OnHostLoss::as_str))]
    on_host_loss: Option<OnHostLoss>,
    /// Where its root disk is; one in the `shared` pool outlives its host, which `--on-host-loss restart` needs
    #[arg(long, value_parser = one_of(DiskPool::ALL, DiskPool::as_str))]
    pool: Option<DiskPool>,
    /// It may be preempted when capacity is short; lower classes (0 to 255) first
    #[arg(long = "preemptible", value_name = "CLASS")]
    preemptible_class: Option<u8>,
    /// How soon it should be back after the loss of its host, seconds; the most urgent is recovered first
    #[arg(long = "rto", value_name = "SECONDS")]
    rto_seconds: Option<u32>,
}

impl PlacementArgs {
    pub(super) fn put_into(self, create: &mut InstanceCreate) {
        let Self {
            groups,
            required_tags,
            forbidden_tags,
            cpu_features,
            dedicated,
            on_host_loss,
            pool,
            preemptible_class,
            rto_seconds,
        } = self;
        create.on_host_loss = on_host_loss;
        create.pool = pool;
        create.placement = PlacementRequest {
            groups,
            required_tags: required_tags.into_iter().collect(),
            forbidden_tags: forbidden_tags.into_iter().collect(),
            cpu_features,
            dedicated,
            preemptible_class,
            rto_seconds,
        };
    }
}
