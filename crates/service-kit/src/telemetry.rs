//! Logs: pretty on a terminal, JSON elsewhere, on stderr.

use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Pretty when stderr is a terminal, else JSON.
    #[default]
    Auto,
    Pretty,
    Json,
}

/// `filter` as in `info,cluster_manager=debug`; the environment's `IAAS_LOG` wins over it. A second call in a process changes nothing.
pub fn init(format: LogFormat, filter: &str) {
    let filter = std::env::var("IAAS_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter: Targets = filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let pretty = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let _ = if pretty {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        registry.with(layer.compact().with_ansi(colour)).try_init()
    } else {
        registry.with(layer.json().flatten_event(true).with_current_span(true).with_span_list(false)).try_init()
    };
}
