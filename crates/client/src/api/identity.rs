use crate::{
    Client, ClientError, Listing, Mutation,
    http::{Call, CallBody, segment},
    model::{ApiKey, ApiKeyCreate, Login, Member, MemberPut, Quota, QuotaChange, Whoami},
};
use domain::policy::Role;
use reqwest::Method;

impl Client {
    /// Tokens for a password. They are returned, not kept: build the next client with them.
    pub async fn login(&self, username: &str, password: &str) -> Result<Login, ClientError> {
        let body = serde_json::json!({ "username": username, "password": password });
        let call = Call {
            method: Method::POST,
            body: CallBody::Json(body.to_string().into_bytes()),
            ..Call::get("/v1/auth/login", &[])
        };
        self.json_anonymous(&call).await
    }

    /// Ends the session that a refresh token belongs to.
    pub async fn logout(&self, refresh_token: &str) -> Result<(), ClientError> {
        let body = serde_json::json!({ "refresh_token": refresh_token });
        let call = Call {
            method: Method::POST,
            body: CallBody::Json(body.to_string().into_bytes()),
            ..Call::get("/v1/auth/logout", &[])
        };
        self.json_anonymous::<Option<serde_json::Value>>(&call).await.map(drop)
    }

    pub async fn whoami(&self) -> Result<Whoami, ClientError> {
        self.json(&Call::get("/v1/whoami", &[])).await
    }

    /// `keep_api_keys`: otherwise they are revoked.
    pub fn password_change(
        &self,
        current: &str,
        new: &str,
        keep_api_keys: bool,
    ) -> Mutation<Option<serde_json::Value>> {
        let body = serde_json::json!({ "current": current, "new": new, "keep_api_keys": keep_api_keys });
        Mutation::new(self, Method::PUT, "/v1/whoami/password").body(&body)
    }

    pub fn project_members(&self, project: &str) -> Listing<Member> {
        Listing::new(self, format!("/v1/projects/{}/members", segment(project)))
    }

    pub fn project_member_put(&self, project: &str, user: &str, role: Role) -> Mutation<Member> {
        let path = format!("/v1/projects/{}/members/{}", segment(project), segment(user));
        Mutation::new(self, Method::PUT, path).body(&MemberPut { role })
    }

    pub fn project_member_delete(&self, project: &str, user: &str) -> Mutation<()> {
        let path = format!("/v1/projects/{}/members/{}", segment(project), segment(user));
        Mutation::new(self, Method::DELETE, path)
    }

    pub async fn quota(&self, project: &str) -> Result<Quota, ClientError> {
        self.json(&Call::get(format!("/v1/projects/{}/quota", segment(project)), &[])).await
    }

    pub fn quota_set(&self, project: &str, change: &QuotaChange) -> Mutation<Quota> {
        Mutation::new(self, Method::PUT, format!("/v1/projects/{}/quota", segment(project))).body(change)
    }

    pub fn user_api_keys(&self, user: &str) -> Listing<ApiKey> {
        Listing::new(self, format!("/v1/users/{}/api-keys", segment(user)))
    }

    pub fn user_api_key_delete(&self, user: &str, key: &str) -> Mutation<()> {
        Mutation::new(self, Method::DELETE, format!("/v1/users/{}/api-keys/{}", segment(user), segment(key)))
    }

    /// Chooses the project that requests mean which name none.
    pub fn home_project_set(&self, project: &str) -> Mutation<()> {
        Mutation::new(self, Method::PUT, "/v1/whoami/home-project").body(&serde_json::json!({ "project": project }))
    }

    pub fn project_leave(&self, project: &str) -> Mutation<()> {
        Mutation::new(self, Method::DELETE, format!("/v1/whoami/projects/{}", segment(project)))
    }

    pub fn api_keys(&self) -> Listing<ApiKey> {
        Listing::new(self, "/v1/api-keys")
    }

    pub fn api_key_create(&self, request: &ApiKeyCreate) -> Mutation<ApiKey> {
        Mutation::new(self, Method::POST, "/v1/api-keys").body(request)
    }

    pub fn api_key_delete(&self, key: &str) -> Mutation<()> {
        Mutation::new(self, Method::DELETE, format!("/v1/api-keys/{}", segment(key)))
    }
}
