//! An instance's serial console: its output as a bounded file ([`log`]), its live traffic ([`hub`]), and the one line in
//! it that says that the guest is up ([`scan`]).
//!
//! QEMU writes the file itself (the chardev's `logfile`), so output is kept while no agent runs. Live output comes from the socket; past
//! output, and output that is followed by offset, comes from the file.

pub mod hub;
pub mod log;
pub mod scan;

pub use hub::{ConsoleHub, Output};
pub use log::ConsoleLog;
pub use scan::GuestUp;
