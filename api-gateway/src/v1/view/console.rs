//! Tickets for consoles.

use domain::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = ConsoleTicket)]
pub struct ConsoleTicketView {
    /// Opens one session.
    pub ticket: String,
    /// The WebSocket's URL, with the ticket in it.
    pub url: String,
    /// After this time it opens nothing.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}
