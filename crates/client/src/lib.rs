//! The REST API as Rust: typed, thin, and safe to call from scripts.
//!
//! Every mutation carries an idempotency key that is chosen once per call, so that the retries done here (on 429, 503 and lost
//! connections, with backoff and `Retry-After`) never do a thing twice. Access tokens renew themselves. Errors are the server's problem
//! documents, whole.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::ClientError> {
//! let client = client::Client::builder("http://127.0.0.1:7480").api_key("iaas_…").project("demo").build()?;
//! let request = client::model::InstanceCreate::new("hello", "tiny").flavor("small");
//! let instance = client.instance_create(&request).wait("guest", std::time::Duration::from_secs(60)).await?;
//! println!("{} is {}", instance.name, instance.state.as_str());
//! # Ok(())
//! # }
//! ```

mod api;
mod backoff;
pub mod console;
mod error;
pub mod event;
mod http;
mod listing;
pub mod model;
mod mutation;
pub mod token;
pub mod upload;
mod wait;

pub use api::{ConsoleLog, LogFrom, ServerLook};
pub use error::{ClientError, ProblemDocument};
pub use http::{Client, ClientBuilder};
pub use listing::Listing;
pub use mutation::Mutation;
pub use wait::{WAIT_MAX, WaitTarget};
