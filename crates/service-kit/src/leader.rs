//! Several processes of a manager's role, of which one leads: what those that wait answer, and how a client finds the one that leads.
//!
//! A client has one channel, as to a role of one process. Whenever it has to connect, it asks all addresses that it knows which of them leads
//! (`iaas.leader.v1`), and connects to that one; a process that waits names the leader, so that one address of several is enough. A process that
//! ceases to lead ends its connections, so that its clients look again. Nothing that was sent is repeated by this: a call that was under way fails,
//! and its caller repeats it or not, as with a role of one process.

use crate::{
    tls::ClientTls,
    transport::{self, Find, GrpcListener, GrpcTarget, SharedListener, TransportError},
};
use domain::{ErrorKind, Problem};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hyper_util::rt::TokioIo;
use proto::{
    leader::v1::{
        FindRequest, FindResponse,
        leader_client::LeaderClient,
        leader_server::{Leader, LeaderServer},
    },
    status::to_status,
};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    io,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};

/// The code of what a process answers that doesn't lead.
pub const NOT_LEADER: &str = "not_leader";
/// How long a process may take to say whether it leads.
const ANSWER: Duration = Duration::from_secs(2);

/// What a process is in its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Leads { term: i64 },
    Waits { leader: Option<String> },
}

/// Says what this process is in its role, now.
pub type StandingNow = Arc<dyn Fn() -> Standing + Send + Sync>;

/// Answers who leads.
pub struct LeaderService(pub StandingNow);

#[tonic::async_trait]
impl Leader for LeaderService {
    async fn find(&self, _: Request<FindRequest>) -> Result<Response<FindResponse>, Status> {
        Ok(Response::new(match (self.0)() {
            Standing::Leads { term } => FindResponse { leads: true, term, leader_address: String::new() },
            Standing::Waits { leader } => {
                FindResponse { leads: false, term: 0, leader_address: leader.unwrap_or_default() }
            }
        }))
    }
}

/// The refusal of a process of `role` that doesn't lead.
#[must_use]
pub fn not_leader(role: &str, leader: Option<&str>) -> Problem {
    let is = leader.map_or_else(|| "it isn't known yet which does".to_owned(), |url| format!("the leader is {url}"));
    let mut problem =
        Problem::new(ErrorKind::Unavailable, NOT_LEADER, format!("this {role} doesn't lead its role; {is}"))
            .with_hint("try again in a few seconds");
    problem.retry_after_secs = Some(1);
    problem
}

/// Answers every call with [`not_leader`].
#[derive(Clone)]
struct Refuse {
    role: &'static str,
    standing: StandingNow,
}

impl<B> tower::Service<http::Request<B>> for Refuse {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<B>) -> Self::Future {
        let problem = match (self.standing)() {
            Standing::Waits { leader } => not_leader(self.role, leader.as_deref()),
            Standing::Leads { .. } => not_leader(self.role, None),
        };
        std::future::ready(Ok(to_status(&problem).into_http()))
    }
}

/// Serves as a process of `role` that waits: says who leads, and refuses everything else.
pub async fn serve_waiting(
    role: &'static str,
    standing: StandingNow,
    listener: SharedListener,
    shutdown: CancellationToken,
) -> Result<(), TransportError> {
    let refuse = Refuse { role, standing: Arc::clone(&standing) };
    let mut routes = Routes::new(LeaderServer::new(LeaderService(standing)));
    let router = std::mem::take(routes.axum_router_mut());
    let routes = Routes::from(router.fallback_service(refuse));
    let router = tonic::transport::Server::builder().add_routes(routes);
    transport::serve(router, GrpcListener::Shared(listener), shutdown).await
}

/// Says where the leader is reached, where that can be looked up.
pub type Lookup = Arc<dyn Fn() -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// The addresses at which a role's processes may be, of which one leads.
#[derive(Clone)]
pub struct LeaderTarget {
    pub urls: Vec<String>,
    /// `None`: plain text, for loopback only.
    pub tls: Option<ClientTls>,
    pub lookup: Option<Lookup>,
}

impl LeaderTarget {
    /// Whoever connects to it is connected to the leader, at the first call and again whenever the connection is lost.
    #[must_use]
    pub fn target(self) -> GrpcTarget {
        let tls = self.tls.clone();
        let find: Find = Arc::new(move || {
            let target = self.clone();
            Box::pin(async move { target.find().await })
        });
        GrpcTarget::Leader { find, tls }
    }

    /// Asks all at once; the first that says it leads is it.
    async fn find(&self) -> io::Result<http::Uri> {
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut answers = FuturesUnordered::new();
        let looked_up = match &self.lookup {
            Some(lookup) => lookup().await,
            None => None,
        };
        for url in self.urls.iter().cloned().chain(looked_up) {
            if known.insert(url.clone()) {
                answers.push(self.ask(url));
            }
        }
        let mut why = "no address is configured".to_owned();
        while let Some((url, answer)) = answers.next().await {
            match answer {
                Ok((uri, FindResponse { leads: true, .. })) => return Ok(uri),
                Ok((_, FindResponse { leader_address, .. })) => {
                    why = format!("{url} doesn't lead");
                    if !leader_address.is_empty() && known.insert(leader_address.clone()) {
                        answers.push(self.ask(leader_address));
                    }
                }
                Err(error) => why = format!("{url}: {error}"),
            }
        }
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("no leader was found ({why})")))
    }

    async fn ask(&self, url: String) -> (String, io::Result<(http::Uri, FindResponse)>) {
        let answer = async {
            let uri = self.permitted(&url)?;
            let tls = self.tls.clone();
            let connector = tower::service_fn(move |uri: http::Uri| {
                let tls = tls.clone();
                async move { transport::connect(&uri, tls.as_ref()).await.map(TokioIo::new) }
            });
            let endpoint = transport::endpoint(&url).map_err(io::Error::other)?;
            let channel = endpoint.connect_with_connector(connector).await.map_err(io::Error::other)?;
            let answer = LeaderClient::new(channel).find(FindRequest {}).await.map_err(io::Error::other)?;
            Ok((uri, answer.into_inner()))
        };
        let answer = tokio::time::timeout(ANSWER, answer).await;
        (url, answer.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it doesn't answer"))))
    }

    /// What a process that waits names is spoken to as what is configured: with TLS, or on loopback.
    fn permitted(&self, url: &str) -> io::Result<http::Uri> {
        let uri: http::Uri = url.parse().map_err(io::Error::other)?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match (uri.scheme_str(), &self.tls) {
            (Some("https"), Some(_)) => Ok(uri),
            (Some("http"), None) if loopback => Ok(uri),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it must be https://, or http:// on loopback where there are no certificates",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use tonic::transport::Channel;

    /// A process of a role over TCP whose standing a test sets, and that is served by turns.
    struct Process {
        standing: Arc<Mutex<Standing>>,
        listener: SharedListener,
        url: String,
        serving: Mutex<CancellationToken>,
    }

    impl Process {
        async fn start() -> Self {
            let listener = GrpcListener::tcp(([127, 0, 0, 1], 0).into(), None).await.expect("listens");
            let url = listener.address();
            let listener = listener.shared(&CancellationToken::new());
            let standing = Arc::new(Mutex::new(Standing::Waits { leader: None }));
            let process = Self { standing, listener, url, serving: Mutex::default() };
            process.becomes(Standing::Waits { leader: None });
            process
        }

        /// As in a real process: the one server ends, with its connections, and the next one begins on the same listener.
        fn becomes(&self, standing: Standing) {
            *self.standing.lock() = standing;
            let token = CancellationToken::new();
            std::mem::replace(&mut *self.serving.lock(), token.clone()).cancel();
            let (now, listener) = (Arc::clone(&self.standing), self.listener.clone());
            let standing: StandingNow = Arc::new(move || now.lock().clone());
            tokio::spawn(serve_waiting("cluster-manager", standing, listener, token));
        }
    }

    async fn term_found(client: &mut LeaderClient<Channel>) -> i64 {
        loop {
            match client.find(FindRequest {}).await {
                Ok(answer) if answer.get_ref().leads => return answer.into_inner().term,
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn a_client_finds_the_leader_by_any_address_and_again_when_it_changes() {
        let (a, b) = (Process::start().await, Process::start().await);
        let target = |urls: &[&str], lookup: Option<Lookup>| {
            let urls = urls.iter().map(|url| (*url).to_owned()).collect();
            let target = LeaderTarget { urls, tls: None, lookup }.target();
            LeaderClient::new(target.channel().expect("a channel"))
        };
        let (url, nobody) = (b.url.clone(), "http://127.0.0.1:9");
        let lookup: Lookup = Arc::new(move || Box::pin(std::future::ready(Some(url.clone()))));
        let mut clients =
            [target(&[nobody, &a.url, &b.url], None), target(&[&a.url], None), target(&[], Some(Arc::clone(&lookup)))];
        for client in &mut clients {
            let refused = client.find(FindRequest {}).await.expect_err("nobody leads");
            assert_eq!(refused.code(), tonic::Code::Unavailable);
        }
        b.becomes(Standing::Leads { term: 1 });
        a.becomes(Standing::Waits { leader: Some(b.url.clone()) });
        for client in &mut clients {
            assert_eq!(term_found(client).await, 1);
        }
        b.becomes(Standing::Waits { leader: Some(a.url.clone()) });
        a.becomes(Standing::Leads { term: 2 });
        for client in &mut clients {
            assert_eq!(term_found(client).await, 2);
        }
    }

    #[tokio::test]
    async fn a_process_that_waits_refuses_every_call_and_names_the_leader() {
        let process = Process::start().await;
        process.becomes(Standing::Waits { leader: Some("https://other.example:7481".to_owned()) });
        let channel = GrpcTarget::Tcp { url: process.url.clone(), tls: None }.channel().expect("a channel");
        let mut client = proto::sync::v1::host_sync_client::HostSyncClient::new(channel);
        let refused = loop {
            let refused = client.attach(tokio_stream::empty()).await.expect_err("it doesn't lead");
            let problem = proto::status::from_status(&refused);
            // The server before it may have closed the connection.
            if problem.code == NOT_LEADER {
                break problem;
            }
        };
        assert!(refused.detail.contains("https://other.example:7481"), "{}", refused.detail);
        assert_eq!(refused.kind, ErrorKind::Unavailable);
    }

    #[test]
    fn what_a_waiting_process_names_is_spoken_to_with_certificates_or_on_loopback() {
        let target = LeaderTarget { urls: Vec::new(), tls: None, lookup: None };
        assert!(target.permitted("http://127.0.0.1:7481").is_ok());
        for refused in ["http://10.0.0.1:7481", "https://127.0.0.1:7481", "nonsense//", "ftp://localhost"] {
            assert!(target.permitted(refused).is_err(), "{refused}");
        }
    }
}
