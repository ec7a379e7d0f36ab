use crate::{
    Client, ClientError, Listing, Mutation,
    http::{Call, segment},
    model::{HostLoss, Recovery},
};
use reqwest::Method;

impl Client {
    /// Declares a host lost: its instances are recovered elsewhere.
    pub fn host_declare_dead(&self, host: &str) -> Mutation<HostLoss> {
        Mutation::new(self, Method::POST, format!("/v1/hosts/{}/declare-dead", segment(host)))
    }

    /// Recoveries from the loss of hosts, the oldest first.
    pub fn recoveries(&self) -> Listing<Recovery> {
        Listing::new(self, "/v1/recoveries")
    }

    pub async fn recovery(&self, id: &str) -> Result<Recovery, ClientError> {
        self.json(&Call::get(format!("/v1/recoveries/{}", segment(id)), &[])).await
    }
}
