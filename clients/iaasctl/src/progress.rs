//! What is going on, on stderr: a line that renews itself on a terminal, one line per change elsewhere, nothing with `--quiet`.

use crate::size::show_bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use std::{
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

#[derive(Debug)]
enum Show {
    Nothing,
    Lines(Mutex<String>),
    Bar(ProgressBar),
}

/// One thing in progress.
#[derive(Debug)]
pub struct Progress(Show);

impl Progress {
    #[must_use]
    pub fn start(quiet: bool) -> Self {
        if quiet {
            return Self(Show::Nothing);
        }
        if !std::io::stderr().is_terminal() {
            return Self(Show::Lines(Mutex::default()));
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(Show::Bar(bar))
    }

    pub fn say(&self, text: &str) {
        let text = crate::plain::line(text);
        match &self.0 {
            Show::Nothing => {}
            Show::Lines(last) => {
                let mut last = last.lock();
                if *last != text {
                    eprintln!("{text}");
                    last.clone_from(&text);
                }
            }
            Show::Bar(bar) => bar.set_message(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Show::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Bytes on their way, of a known total.
#[derive(Debug)]
pub struct Transfer {
    show: Show,
    label: String,
    total: u64,
    /// The last tenth that was said in lines.
    tenth: AtomicU64,
}

impl Transfer {
    #[must_use]
    pub fn start(quiet: bool, label: &str, total: u64) -> Self {
        let show = if quiet {
            Show::Nothing
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(label.to_owned());
            Show::Bar(bar)
        } else {
            Show::Lines(Mutex::default())
        };
        Self { show, label: label.to_owned(), total, tenth: AtomicU64::new(0) }
    }

    pub fn at(&self, bytes: u64) {
        match &self.show {
            Show::Nothing => {}
            Show::Bar(bar) => bar.set_position(bytes),
            Show::Lines(_) => {
                let tenth = bytes.saturating_mul(10).checked_div(self.total).unwrap_or(10);
                // Small files are said once, large ones in tenths.
                let step = if self.total < 100 << 20 { 10 } else { 1 };
                if tenth >= self.tenth.load(Ordering::Relaxed) + step {
                    self.tenth.store(tenth, Ordering::Relaxed);
                    eprintln!("{}: {} of {}", self.label, show_bytes(bytes), show_bytes(self.total));
                }
            }
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
        }
    }
}
