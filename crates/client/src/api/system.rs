use crate::{
    Client, ClientError, Listing, Mutation,
    http::{Call, segment},
    model::{
        AuditEntry, Backup, Capacity, Host, HostChange, HostToken, HostTokenCreate, HostTokenCreated, ManagerProcess,
        RebalanceGoal, RebalancePlan,
    },
};
use domain::Timestamp;
use reqwest::Method;
use std::time::{Duration, Instant};

/// What a look at the server itself says.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerLook {
    pub status: u16,
    pub took: Duration,
    /// The server's clock (the `Date` header, whole seconds), Unix seconds.
    pub server_clock: Option<i64>,
    pub body: serde_json::Value,
}

impl Client {
    pub fn hosts(&self) -> Listing<Host> {
        Listing::new(self, "/v1/hosts")
    }

    pub async fn host(&self, host: &str) -> Result<Host, ClientError> {
        self.json(&Call::get(format!("/v1/hosts/{}", segment(host)), &[])).await
    }

    pub fn host_change(&self, host: &str, change: &HostChange) -> Mutation<Host> {
        Mutation::new(self, Method::PATCH, format!("/v1/hosts/{}", segment(host))).body(change)
    }

    /// Takes a host that holds nothing out of the fleet.
    pub fn host_remove(&self, host: &str) -> Mutation<()> {
        Mutation::new(self, Method::DELETE, format!("/v1/hosts/{}", segment(host)))
    }

    pub async fn capacity(&self) -> Result<Capacity, ClientError> {
        self.json(&Call::get("/v1/capacity", &[])).await
    }

    /// Moves that would free hosts or even out load; nothing is moved.
    pub async fn rebalance_plan(&self, goal: RebalanceGoal, moves: u32) -> Result<RebalancePlan, ClientError> {
        let (goal, (limit, most)) = match goal {
            RebalanceGoal::FreeHosts { moves_per_host } => ("free_hosts", ("moves_per_host", moves_per_host)),
            RebalanceGoal::EvenLoad { tolerance } => ("even_load", ("tolerance", tolerance)),
        };
        let query = [("goal", goal.to_owned()), ("moves", moves.to_string()), (limit, most.to_string())];
        let query: Vec<(String, String)> = query.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        self.json(&Call::get("/v1/rebalance-plan", &query)).await
    }

    pub fn backups(&self) -> Listing<Backup> {
        Listing::new(self, "/v1/backups")
    }

    pub fn managers(&self) -> Listing<ManagerProcess> {
        Listing::new(self, "/v1/managers")
    }

    /// Copies the database to a file on the API's machine.
    pub fn backup_create(&self) -> Mutation<Backup> {
        Mutation::new(self, Method::POST, "/v1/backups".to_owned())
    }

    pub fn host_tokens(&self) -> Listing<HostToken> {
        Listing::new(self, "/v1/host-tokens")
    }

    pub fn host_token_create(&self, request: &HostTokenCreate) -> Mutation<HostTokenCreated> {
        Mutation::new(self, Method::POST, "/v1/host-tokens").body(request)
    }

    pub fn host_token_delete(&self, id: &str) -> Mutation<()> {
        Mutation::new(self, Method::DELETE, format!("/v1/host-tokens/{}", segment(id)))
    }

    pub fn audit(&self) -> Listing<AuditEntry> {
        Listing::new(self, "/v1/audit")
    }

    /// Asks an unauthenticated path (`/healthz`, `/readyz`) once, whatever the status.
    pub async fn look(&self, path: &str) -> Result<ServerLook, ClientError> {
        let started = Instant::now();
        let unreachable = |source| ClientError::Unreachable { url: self.base_url().to_owned(), source };
        let request = self.http.get(self.url(path)?).timeout(Duration::from_secs(10));
        let answer = request.send().await.map_err(unreachable)?;
        let (status, took) = (answer.status().as_u16(), started.elapsed());
        let server_clock = crate::http::header_text(&answer, "date");
        let text = answer.text().await.map_err(unreachable)?;
        Ok(ServerLook {
            status,
            took,
            server_clock: http_date(&server_clock),
            body: serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
        })
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7) as Unix seconds.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_ascii_whitespace().skip(1);
    let (day, month, year, clock) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|m| *m == month)? + 1;
    let at: Timestamp = format!("{year}-{month:02}-{day:0>2}T{clock}Z").parse().ok()?;
    Some(at.0 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_header_is_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("yesterday"), None);
    }
}
