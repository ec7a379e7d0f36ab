//! What every service of this project needs and none should write again: configuration, logs, metrics, the context of a call, the
//! transport between roles (in process, or TCP with mutual TLS), certificates, who is at the other end of a link, backoff.

pub mod background;
pub mod backoff;
pub mod config;
pub mod context;
mod error_chain;
pub mod fleet;
pub mod host_cert;
pub mod host_streams;
pub mod leader;
pub mod log_file;
mod loopback;
pub mod metrics;
pub mod peer;
pub mod secret_file;
pub mod share;
pub mod telemetry;
pub mod tls;
pub mod transport;

pub use error_chain::error_chain;

/// Chooses the one crypto provider. Call it first in every `main` and test that touches TLS: with two providers compiled in, rustls
/// panics at first use instead of choosing.
pub fn install_crypto() {
    // An error means that it was installed before: the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
