use crate::{
    Client, ClientError, Listing, Mutation,
    http::{Call, segment},
    model::{PlacementGroup, PlacementGroupCreate},
};
use reqwest::Method;

impl Client {
    pub fn placement_groups(&self) -> Listing<PlacementGroup> {
        Listing::new(self, "/v1/placement-groups")
    }

    pub async fn placement_group(&self, group: &str) -> Result<PlacementGroup, ClientError> {
        self.json(&Call::get(format!("/v1/placement-groups/{}", segment(group)), &[])).await
    }

    pub fn placement_group_create(&self, request: &PlacementGroupCreate) -> Mutation<PlacementGroup> {
        Mutation::new(self, Method::POST, "/v1/placement-groups").body(request)
    }

    /// One that no instance is in.
    pub fn placement_group_delete(&self, group: &str) -> Mutation<()> {
        Mutation::new(self, Method::DELETE, format!("/v1/placement-groups/{}", segment(group)))
    }
}
