use crate::{
    Client, ClientError, Listing, Mutation,
    http::{Call, segment},
    model::{Flavor, FlavorCreate, Image, ImageCreate, SshKey, SshKeyCreate},
};
use reqwest::Method;

impl Client {
    pub fn flavors(&self) -> Listing<Flavor> {
        Listing::new(self, "/v1/flavors")
    }

    pub async fn flavor(&self, flavor: &str) -> Result<Flavor, ClientError> {
        self.json(&Call::get(format!("/v1/flavors/{}", segment(flavor)), &[])).await
    }

    pub fn flavor_create(&self, request: &FlavorCreate) -> Mutation<Flavor> {
        Mutation::new(self, Method::POST, "/v1/flavors").body(request)
    }

    pub fn flavor_delete(&self, flavor: &str) -> Mutation<()> {
        Mutation::new(self, Method::DELETE, format!("/v1/flavors/{}", segment(flavor)))
    }

    pub fn ssh_keys(&self) -> Listing<SshKey> {
        Listing::new(self, "/v1/ssh-keys")
    }

    pub async fn ssh_key(&self, key: &str) -> Result<SshKey, ClientError> {
        self.json(&Call::get(format!("/v1/ssh-keys/{}", segment(key)), &[])).await
    }

    pub fn ssh_key_create(&self, request: &SshKeyCreate) -> Mutation<SshKey> {
        Mutation::new(self, Method::POST, "/v1/ssh-keys").body(request)
    }

    pub fn ssh_key_delete(&self, key: &str) -> Mutation<()> {
        Mutation::new(self, Method::DELETE, format!("/v1/ssh-keys/{}", segment(key)))
    }

    pub fn images(&self) -> Listing<Image> {
        Listing::new(self, "/v1/images")
    }

    pub async fn image(&self, image: &str) -> Result<Image, ClientError> {
        self.json(&Call::get(format!("/v1/images/{}", segment(image)), &[])).await
    }

    /// The image is queued until its parts are uploaded ([`Client::image_upload`]).
    pub fn image_create(&self, request: &ImageCreate) -> Mutation<Image> {
        Mutation::new(self, Method::POST, "/v1/images").body(request)
    }

    pub fn image_delete(&self, image: &str) -> Mutation<()> {
        Mutation::new(self, Method::DELETE, format!("/v1/images/{}", segment(image)))
    }
}
