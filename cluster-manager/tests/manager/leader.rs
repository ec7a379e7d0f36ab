//! Two cluster-managers over PostgreSQL: one leads, and the other one takes over, whatever the first one meets.

use crate::cloud::{Cloud, Process, eventually, quick};
use domain::instance::InstanceState as S;
use service_kit::{leader::LeaderTarget, transport::GrpcListener};
use std::net::SocketAddr;
use store::{ManagerLease, ManagerRole, testing::TestDatabase};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What one of two processes has between it and the database.
struct Wire {
    /// The database's URL by this wire.
    url: String,
    cut: watch::Sender<bool>,
}

impl Wire {
    async fn to(url: &str) -> Self {
        let (user, rest) = url.split_once('@').expect("a user");
        let (server, database) = rest.split_once('/').expect("a database");
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let url = format!("{user}@{}/{database}", listener.local_addr().expect("an address"));
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (server, mut is_cut) = (server.clone(), is_cut.clone());
                tokio::spawn(async move {
                    if *is_cut.borrow() {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(server).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_cut.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        Self { url, cut }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Killed,
    CutOff,
}

/// Two processes, the first of which leads.
struct Pair {
    cloud: Cloud,
    wire: Wire,
    first: Option<Process>,
    second: Process,
    urls: [String; 2],
}

async fn listener() -> GrpcListener {
    GrpcListener::tcp(SocketAddr::from(([127, 0, 0, 1], 0)), None).await.expect("listens")
}

async fn lease(cloud: &Cloud) -> Option<ManagerLease> {
    cloud.store.manager_lease_find(ManagerRole::Cluster).await.expect("readable")
}

async fn leads(cloud: &Cloud, url: &str) -> ManagerLease {
    eventually("it leads", async || {
        let lease = lease(cloud).await.ok_or("nobody ever did")?;
        if lease.address == url && !lease.resigned { Ok(lease) } else { Err(lease.to_string()) }
    })
    .await
}

impl Pair {
    async fn start() -> Option<Self> {
        let database = TestDatabase::postgres().await?;
        let mut cloud = Cloud::on(database, quick()).await;
        cloud.ends().await;
        let wire = Wire::to(&cloud.database_url()).await;
        let (a, b) = (listener().await, listener().await);
        let urls = [a.address(), b.address()];
        cloud.attach(LeaderTarget { urls: urls.to_vec(), tls: None, lookup: None }.target());
        let first = cloud.process_at(&wire.url, a);
        leads(&cloud, &urls[0]).await;
        let second = cloud.process_at(&cloud.database_url(), b);
        eventually("the second one waits", async || {
            let standbys = cloud.store.manager_standby_list(domain::Timestamp(0)).await.expect("readable");
            if standbys.iter().any(|standby| standby.address == urls[1]) { Ok(()) } else { Err("nobody".to_owned()) }
        })
        .await;
        Some(Self { cloud, wire, first: Some(first), second, urls })
    }

    fn loses_the_first(&mut self, how: Loss) {
        match how {
            Loss::Killed => self.first.take().expect("it runs").kill(),
            Loss::CutOff => drop(self.wire.cut.send_replace(true)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_amid_creates_when_the_leader_is_killed_or_cut_off_from_the_database() {
    for how in [Loss::Killed, Loss::CutOff] {
        let Some(mut pair) = Pair::start().await else { return };
        let hosts = pair.cloud.hosts(4).await;
        let term = lease(&pair.cloud).await.expect("the first one leads").term;
        let requests: Vec<_> = (0..20)
            .map(|n| (pair.cloud.context(), pair.cloud.request(&[&format!("i{n}")], &pair.cloud.spec())))
            .collect();
        let waiting = pair.cloud.clone_client();
        let calls = tokio::spawn(async move {
            let calls = requests.iter().map(|(context, request)| waiting.insist(context, request));
            futures::future::join_all(calls).await
        });
        eventually("some are committed", async || {
            let rows = pair.cloud.used().await.instances;
            if rows > 0 { Ok(()) } else { Err(format!("{rows} rows")) }
        })
        .await;
        pair.loses_the_first(how);
        let answers = calls.await.expect("no panic");
        let mut ids: Vec<domain::InstanceId> =
            answers.iter().map(|a| a.as_ref().expect("answered").instances[0].id.parse().expect("an id")).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), pair.cloud.used().await.instances), (20, 20), "{how:?}: none is lost, none doubled");
        assert!(leads(&pair.cloud, &pair.urls[1]).await.term > term);
        for id in &ids {
            pair.cloud.becomes(*id, S::Running).await;
        }
        assert_eq!(pair.cloud.world.starts_so_far(), 20, "{how:?}: none was started twice");
        // A takeover takes no host for lost.
        for host in &hosts {
            host.connected().await;
            let events = pair.cloud.store.event_of_object(&host.id().to_string(), 0, 100).await.expect("readable");
            let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
            assert!(!kinds.contains(&"host.disconnected"), "{how:?}: {kinds:?}");
        }
        if let Some(first) = pair.first.take() {
            // Healed, it waits, and leads again when the other one resigns.
            pair.wire.cut.send_replace(false);
            pair.second.stop().await;
            leads(&pair.cloud, &pair.urls[0]).await;
            let request = pair.cloud.request(&["last"], &pair.cloud.spec());
            let made = pair.cloud.insist(&pair.cloud.context(), &request).await.expect("created");
            pair.cloud.becomes(made.instances[0].id.parse().expect("an id"), S::Running).await;
            first.stop().await;
        } else {
            pair.second.stop().await;
        }
        assert_eq!(pair.cloud.world.violations(), Vec::<String>::new());
        pair.cloud.stop(hosts).await;
    }
}
