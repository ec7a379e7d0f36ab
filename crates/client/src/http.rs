//! One request, as often as it takes: headers, tokens, retries, and the answer or the problem.

use crate::{
    ClientError, ProblemDocument,
    backoff::Tries,
    model::Login,
    token::{MemoryVault, TokenVault, Tokens},
};
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
};
use serde::de::DeserializeOwned;
use std::{sync::Arc, time::Duration};

/// An answer that needs no waiting on the server's side is given up after this.
pub(crate) const ANSWER: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(5);
/// How long 429, 503 and lost connections are retried.
const RETRY_BUDGET: Duration = Duration::from_secs(30);
/// How long a server that refuses connections is retried: it may just be restarting.
const CONNECT_BUDGET: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(crate) enum Credentials {
    None,
    /// An API key, or an access token that somebody else renews.
    Bearer(String),
    Session(Arc<dyn TokenVault>),
}

/// A handle on one server, as one principal, in one project. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    /// For WebSockets: HTTP/1.1 only.
    pub(crate) http1: reqwest::Client,
    pub(crate) base: Url,
    credentials: Credentials,
    project: Option<String>,
    retry_budget: Duration,
    /// One refresh at a time in this process.
    refreshing: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).field("project", &self.project).finish()
    }
}

pub struct ClientBuilder {
    url: String,
    credentials: Credentials,
    project: Option<String>,
    ca_pem: Option<Vec<u8>>,
    retry_budget: Duration,
    user_agent: String,
}

impl ClientBuilder {
    #[must_use]
    pub fn api_key(mut self, secret: impl Into<String>) -> Self {
        self.credentials = Credentials::Bearer(secret.into());
        self
    }

    /// Tokens of a login, kept (and renewed) in memory.
    #[must_use]
    pub fn tokens(self, tokens: Tokens) -> Self {
        self.vault(Arc::new(MemoryVault::new(tokens)))
    }

    #[must_use]
    pub fn vault(mut self, vault: Arc<dyn TokenVault>) -> Self {
        self.credentials = Credentials::Session(vault);
        self
    }

    /// The project that requests are about, by id or name.
    #[must_use]
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(project.into());
        self
    }

    /// Trusts this CA besides the system's (PEM).
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// How long 429, 503 and lost connections are retried; zero: never.
    #[must_use]
    pub fn retry_budget(mut self, budget: Duration) -> Self {
        self.retry_budget = budget;
        self
    }

    #[must_use]
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.user_agent = name.into();
        self
    }

    pub fn build(self) -> Result<Client, ClientError> {
        let invalid = || ClientError::Url { url: self.url.clone() };
        let mut base = Url::parse(self.url.trim_end_matches('/')).map_err(|_| invalid())?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(invalid());
        }
        base.set_query(None);
        base.set_fragment(None);
        let setup = |source| ClientError::Setup { source };
        let new = || -> Result<reqwest::ClientBuilder, ClientError> {
            let mut builder = reqwest::Client::builder()
                .connect_timeout(CONNECT)
                .tcp_nodelay(true)
                .redirect(reqwest::redirect::Policy::none())
                .user_agent(self.user_agent.clone());
            if let Some(pem) = &self.ca_pem {
                for certificate in reqwest::Certificate::from_pem_bundle(pem).map_err(setup)? {
                    builder = builder.add_root_certificate(certificate);
                }
            }
            Ok(builder)
        };
        Ok(Client {
            http: new()?.build().map_err(setup)?,
            http1: new()?.http1_only().build().map_err(setup)?,
            base,
            credentials: self.credentials,
            project: self.project,
            retry_budget: self.retry_budget,
            refreshing: Arc::default(),
        })
    }
}

/// One request before it is sent; the body can be made again for each try.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: &'a [(String, String)],
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: CallBody<'a>,
    /// Until the answer's head and body are there; `None`: it streams.
    pub(crate) answer_within: Option<Duration>,
    /// Whether a try whose outcome is unknown may be repeated.
    pub(crate) repeatable: bool,
}

pub(crate) enum CallBody<'a> {
    None,
    Json(Vec<u8>),
    Stream(&'a (dyn Fn() -> std::io::Result<Body> + Send + Sync)),
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: impl Into<String>, query: &'a [(String, String)]) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            query,
            headers: Vec::new(),
            body: CallBody::None,
            answer_within: Some(ANSWER),
            repeatable: true,
        }
    }
}

/// A path segment with all that isn't plain escaped.
pub(crate) fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
        out
    })
}

impl Client {
    /// `url`: `http://127.0.0.1:7480`.
    #[must_use]
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            url: url.into(),
            credentials: Credentials::None,
            project: None,
            ca_pem: None,
            retry_budget: RETRY_BUDGET,
            user_agent: concat!("iaas-client/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    #[must_use]
    pub fn base_url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The same client, about another project.
    #[must_use]
    pub fn with_project(&self, project: impl Into<String>) -> Self {
        Self { project: Some(project.into()), ..self.clone() }
    }

    pub(crate) fn url(&self, path: &str) -> Result<Url, ClientError> {
        let text = format!("{}{path}", self.base_url());
        Url::parse(&text).map_err(|_| ClientError::Url { url: text })
    }

    pub(crate) fn lost(&self, source: reqwest::Error) -> ClientError {
        ClientError::Lost { url: self.base_url().to_owned(), source }
    }

    async fn bearer(&self) -> Result<Option<String>, ClientError> {
        match &self.credentials {
            Credentials::None => Ok(None),
            Credentials::Bearer(secret) => Ok(Some(secret.clone())),
            Credentials::Session(vault) => {
                let vault = Arc::clone(vault);
                let tokens = blocking(move || vault.load()).await?.ok_or(ClientError::LoggedOut)?;
                Ok(Some(tokens.access_token))
            }
        }
    }

    /// After a 401: new tokens, unless `stale` isn't the access token any more. False: there is nothing to renew.
    async fn refresh(&self, stale: &str) -> Result<bool, ClientError> {
        let Credentials::Session(vault) = &self.credentials else { return Ok(false) };
        let _one = self.refreshing.lock().await;
        let (locking, loading, saving) = (Arc::clone(vault), Arc::clone(vault), Arc::clone(vault));
        let _guard = blocking(move || locking.lock()).await?;
        let Some(tokens) = blocking(move || loading.load()).await? else { return Err(ClientError::LoggedOut) };
        if tokens.access_token != stale {
            return Ok(true);
        }
        // A session that the server had no room to keep: it lasts as long as its access token.
        if tokens.refresh_token.is_empty() {
            return Err(ClientError::LoggedOut);
        }
        let body = serde_json::json!({ "refresh_token": tokens.refresh_token });
        let call = Call {
            method: Method::POST,
            body: CallBody::Json(body.to_string().into_bytes()),
            // Used twice, a refresh token ends the session: a try whose outcome is unknown is not repeated.
            repeatable: false,
            ..Call::get("/v1/auth/refresh", &[])
        };
        match self.try_all(&call, None).await {
            Ok(answer) => {
                let login: Login = read_json(&call, answer).await?;
                blocking(move || saving.save(&login.tokens())).await?;
                Ok(true)
            }
            Err(ClientError::Problem(problem)) if problem.status == 401 => Err(ClientError::LoggedOut),
            Err(error) => Err(error),
        }
    }

    /// Sends until there is a successful answer or a reason to stop.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Response, ClientError> {
        let bearer = self.bearer().await?;
        match self.try_all(call, bearer.as_deref()).await {
            Err(ClientError::Problem(problem)) if problem.status == 401 => {
                if self.refresh(bearer.as_deref().unwrap_or_default()).await? {
                    let bearer = self.bearer().await?;
                    return self.try_all(call, bearer.as_deref()).await;
                }
                Err(ClientError::Problem(problem))
            }
            other => other,
        }
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, ClientError> {
        let answer = self.send(call).await?;
        read_json(call, answer).await
    }

    /// Without the session's token: for logging in.
    pub(crate) async fn json_anonymous<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, ClientError> {
        let answer = self.try_all(call, None).await?;
        read_json(call, answer).await
    }

    async fn try_all(&self, call: &Call<'_>, bearer: Option<&str>) -> Result<Response, ClientError> {
        let mut tries = Tries::new(self.retry_budget);
        let mut connects = Tries::new(self.retry_budget.min(CONNECT_BUDGET));
        loop {
            let (error, pause) = match self.request(call, bearer)?.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let (status, requested) = (answer.status(), retry_after(&answer));
                    let error = problem(call, answer).await;
                    let again = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
                    (error, if again { tries.pause(requested) } else { None })
                }
                Err(source) => {
                    let url = self.base_url().to_owned();
                    if source.is_timeout() && !source.is_connect() {
                        (ClientError::TimedOut { url, source }, None)
                    } else if source.is_connect() {
                        (ClientError::Unreachable { url, source }, connects.pause(None))
                    } else {
                        let pause = if call.repeatable { tries.pause(None) } else { None };
                        (ClientError::Lost { url, source }, pause)
                    }
                }
            };
            let Some(pause) = pause else { return Err(error) };
            tracing::debug!(%error, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    fn request(&self, call: &Call<'_>, bearer: Option<&str>) -> Result<RequestBuilder, ClientError> {
        let mut headers = HeaderMap::new();
        let given = call.headers.iter().map(|(name, text)| (*name, text.as_str()));
        for (name, text) in given.chain(self.project.iter().map(|p| ("x-iaas-project", p.as_str()))) {
            let value = HeaderValue::from_str(text).map_err(|_| ClientError::Header { text: text.to_owned() })?;
            headers.insert(name, value);
        }
        if let Some(bearer) = bearer {
            let mut value = HeaderValue::from_str(&format!("Bearer {bearer}"))
                .map_err(|_| ClientError::Header { text: "the token".to_owned() })?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let request = self.http.request(call.method.clone(), self.url(&call.path)?).query(call.query).headers(headers);
        let request = match call.answer_within {
            Some(limit) => request.timeout(limit),
            None => request,
        };
        Ok(match &call.body {
            CallBody::None => request,
            CallBody::Json(body) => request.header(header::CONTENT_TYPE, "application/json").body(body.clone()),
            CallBody::Stream(open) => {
                let body = open().map_err(|source| ClientError::File { path: call.path.clone().into(), source })?;
                request.header(header::CONTENT_TYPE, "application/octet-stream").body(body)
            }
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ClientError> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
    done.map_err(|source| ClientError::Vault { source })
}

fn retry_after(answer: &Response) -> Option<Duration> {
    answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// The problem in an answer that is none of success; an answer of something else (a proxy) becomes one too.
pub(crate) async fn problem(call: &Call<'_>, answer: Response) -> ClientError {
    let status = answer.status();
    let request_id = header_text(&answer, "x-request-id");
    let body = answer.bytes().await.unwrap_or_default();
    let parsed = serde_json::from_slice::<ProblemDocument>(&body).ok().filter(|p| !p.code.is_empty());
    ClientError::Problem(Box::new(parsed.unwrap_or_else(|| ProblemDocument {
        title: status.canonical_reason().unwrap_or("error").to_owned(),
        status: status.as_u16(),
        code: "not_a_problem_document".to_owned(),
        detail: format!(
            "{} {} was answered with status {status} by a program that is not this API",
            call.method, call.path
        ),
        hint: Some("check the URL (iaasctl config get url) and any proxies".to_owned()),
        request_id,
        ..ProblemDocument::default()
    })))
}

pub(crate) fn header_text(answer: &Response, name: &str) -> String {
    answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

/// The body as `T`; an empty one (204) is read as `null`.
async fn read_json<T: DeserializeOwned>(call: &Call<'_>, answer: Response) -> Result<T, ClientError> {
    let status = answer.status().as_u16();
    let url = answer.url().to_string();
    let body = answer.bytes().await.map_err(|source| {
        if source.is_timeout() { ClientError::TimedOut { url, source } } else { ClientError::Lost { url, source } }
    })?;
    let text: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(text).map_err(|source| ClientError::Answer {
        method: call.method.to_string(),
        path: call.path.clone(),
        status,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_segments_escaped() {
        for bad in ["", "127.0.0.1:7480", "ftp://x", "http://"] {
            assert!(matches!(Client::builder(bad).build(), Err(ClientError::Url { .. })), "{bad}");
        }
        let client = Client::builder("http://127.0.0.1:7480/").build().expect("valid");
        assert_eq!(client.base_url(), "http://127.0.0.1:7480");
        assert_eq!(segment("a b/../c?x"), "a%20b%2F..%2Fc%3Fx");
        assert_eq!(client.url("/v1/x").expect("valid").as_str(), "http://127.0.0.1:7480/v1/x");
    }
}
