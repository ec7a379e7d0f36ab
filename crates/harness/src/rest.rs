//! A REST caller that costs little: the load generator shares the cores with what it measures.

use anyhow::{Context, bail};
use reqwest::{Client, ClientBuilder, Method, StatusCode};
use serde_json::{Value, json};

#[derive(Clone)]
pub struct Rest {
    client: Client,
    base: String,
    token: String,
    project: String,
}

impl Rest {
    /// Logs in as `user`; requests carry no project until [`Rest::in_project`].
    pub async fn login(base: &str, user: &str, password: &str) -> anyhow::Result<Self> {
        Self::login_by(Client::builder(), base, user, password).await
    }

    /// As [`Rest::login`], at an API whose certificate is of this CA (PEM).
    pub async fn login_trusting(base: &str, ca_pem: &[u8], user: &str, password: &str) -> anyhow::Result<Self> {
        let ca = reqwest::Certificate::from_pem(ca_pem)?;
        Self::login_by(Client::builder().tls_certs_merge([ca]), base, user, password).await
    }

    async fn login_by(builder: ClientBuilder, base: &str, user: &str, password: &str) -> anyhow::Result<Self> {
        let client = builder.pool_max_idle_per_host(256).tcp_nodelay(true).build()?;
        let mut rest = Self { client, base: base.to_owned(), token: String::new(), project: String::new() };
        let answer =
            rest.call(Method::POST, "/v1/auth/login", Some(&json!({"username": user, "password": password}))).await?;
        rest.token = answer["access_token"].as_str().context("no access_token in the answer")?.to_owned();
        Ok(rest)
    }

    /// With a project of its own, whose quota is out of the way.
    pub async fn in_project(mut self, name: &str) -> anyhow::Result<Self> {
        let project = self.call(Method::POST, "/v1/projects", Some(&json!({"name": name}))).await?;
        let id = project["id"].as_str().context("no id in the answer")?.to_owned();
        let most = json!({"instances": 10_000_000, "vcpus": 10_000_000, "memory_mib": 1_000_000_000_000_i64, "disk_gib": 1_000_000_000});
        self.call(Method::PUT, &format!("/v1/projects/{id}/quota"), Some(&most)).await?;
        self.project = id;
        Ok(self)
    }

    /// Another user's, at the same server.
    pub async fn login_as(&self, user: &str, password: &str) -> anyhow::Result<Self> {
        Self::login(&self.base, user, password).await
    }

    /// The same caller, in a project that exists.
    #[must_use]
    pub fn with_project(mut self, project: &str) -> Self {
        self.project = project.to_owned();
        self
    }

    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, bytes::Bytes)> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        if !self.project.is_empty() {
            request = request.header("x-iaas-project", &self.project);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(serde_json::to_vec(body)?);
        }
        let response = request.send().await?;
        let status = response.status();
        Ok((status, response.bytes().await?))
    }

    /// As [`Rest::answer`], under an idempotency key: repeated until it is answered, it is done once. A connection that breaks is a 503.
    pub async fn answer_once(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        idempotency_key: &str,
    ) -> anyhow::Result<(u16, Value)> {
        let request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .header("x-iaas-project", &self.project)
            .header("idempotency-key", idempotency_key)
            .json(body);
        let Ok(response) = request.send().await else { return Ok((503, Value::Null)) };
        let status = response.status().as_u16();
        Ok((status, response.json().await.unwrap_or(Value::Null)))
    }

    /// The status and the JSON of an answer, whatever it is.
    pub async fn answer(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
        let (status, bytes) = self.send(method, path, body).await?;
        Ok((status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::DELETE, path, None).await
    }

    /// The JSON of a 2xx answer; anything else is an error with the problem's text.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let what = format!("{method} {path}");
        let (status, bytes) = self.send(method, path, body).await.with_context(|| what.clone())?;
        if !status.is_success() {
            bail!("{what}: {status}: {}", String::from_utf8_lossy(&bytes));
        }
        if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes).with_context(|| what) }
    }

    /// Sends the bytes of an image's part.
    pub async fn upload(&self, path: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        let request =
            self.client.put(format!("{}{path}", self.base)).header("authorization", format!("Bearer {}", self.token));
        let request =
            request.header("x-iaas-project", &self.project).header("content-type", "application/octet-stream");
        let response = request.body(bytes).send().await?;
        let status = response.status();
        if !status.is_success() {
            bail!("PUT {path}: {status}: {}", response.text().await.unwrap_or_default());
        }
        Ok(())
    }

    /// A kernel image of the two given parts, public nowhere, ready to boot.
    pub async fn kernel_image(
        &self,
        name: &str,
        kernel: Vec<u8>,
        initrd: Vec<u8>,
        cmdline: &str,
    ) -> anyhow::Result<()> {
        let body = json!({"name": name, "kind": "kernel", "cmdline": cmdline});
        self.call(Method::POST, "/v1/images", Some(&body)).await?;
        self.upload(&format!("/v1/images/{name}/parts/kernel"), kernel).await?;
        self.upload(&format!("/v1/images/{name}/parts/initrd"), initrd).await
    }
}
