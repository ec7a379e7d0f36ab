//! Logs: pretty on a terminal, JSON elsewhere, on stderr or in a file of bounded size.

use crate::log_file::LogFile;
use serde::{Deserialize, Serialize};
use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};
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

/// To stderr. `filter` as in `info,cluster_manager=debug`; the environment's `IAAS_LOG` wins over it. A second call in a process changes nothing.
pub fn init(format: LogFormat, filter: &str) {
    start(format, filter, None);
}

/// As [`init`], into `file` if there is one, which becomes `file_mib` MiB large at most; the environment's `IAAS_LOG_FILE` wins over it. A
/// file that can't be opened doesn't stop the process: its log goes to stderr then.
pub fn init_to(format: LogFormat, filter: &str, file: Option<&Path>, file_mib: u64) {
    let given = std::env::var_os("IAAS_LOG_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let file = given.as_deref().or(file).and_then(|path| {
        let opened = LogFile::open(path, file_mib << 20);
        opened.inspect_err(|error| eprintln!("the log {} can't be opened: {error}", path.display())).ok()
    });
    start(format, filter, file);
}

fn start(format: LogFormat, filter: &str, file: Option<LogFile>) {
    let filter = std::env::var("IAAS_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter: Targets = filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let pretty = match format {
        LogFormat::Auto => file.is_none() && std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let colour = file.is_none() && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let writer = move || -> Box<dyn io::Write> {
        match &file {
            Some(file) => Box::new(file.clone()),
            None => Box::new(io::stderr()),
        }
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let _ = if pretty {
        registry.with(layer.compact().with_ansi(colour)).try_init()
    } else {
        registry.with(layer.json().flatten_event(true).with_current_span(true).with_span_list(false)).try_init()
    };
}
