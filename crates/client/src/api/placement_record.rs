use crate::{
    Client, ClientError, Listing,
    http::{Call, segment},
    model::KeptPlacement,
};

impl Client {
    /// What placement refused, and what it decided of instances that are gone: the oldest first.
    pub fn placement_records(&self) -> Listing<KeptPlacement> {
        Listing::new(self, "/v1/placement-records")
    }

    pub async fn placement_record(&self, id: &str) -> Result<KeptPlacement, ClientError> {
        self.json(&Call::get(format!("/v1/placement-records/{}", segment(id)), &[])).await
    }
}
