//! Hosts that are lost, and hosts that come back: nothing runs twice, nothing is left behind, whoever dies when.

use crate::cloud::{Cloud, each, eventually, restless};
use domain::{
    ErrorKind, InstanceId,
    explain::Rejection,
    flavor::Size,
    host::{HostState, SharedPoolFacts},
    instance::{DiskPool, Instance, InstanceSpec, InstanceState as S, OnHostLoss, Power},
    placement::PlacementConstraints,
    recovery::{Recovery, RecoveryPhase},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use service_kit::context::CallContext;
use sim::{Fault, FaultPlan, SimConfig, SimHost, invariants::Checker};
use store::RecoveryFilter;

fn spec(cloud: &Cloud, policy: OnHostLoss) -> InstanceSpec {
    InstanceSpec { on_host_loss: policy, ..cloud.spec() }
}

async fn running(cloud: &Cloud, name: &str, policy: OnHostLoss) -> Instance {
    let instance = cloud.create_as(name, &spec(cloud, policy)).await;
    cloud.becomes(instance.id, S::Running).await
}

async fn reports(cloud: &Cloud) -> Vec<Recovery> {
    cloud.store.recovery_list(&RecoveryFilter { limit: 1000, ..RecoveryFilter::default() }).await.expect("readable")
}

async fn shown(cloud: &Cloud, host: &SimHost, state: HostState) {
    eventually(&format!("{} is shown {}", host.name(), state.as_str()), || async {
        let row = cloud.store.host_find(host.id()).await.expect("readable").expect("registered");
        if row.state == state { Ok(()) } else { Err(row.state.as_str().to_owned()) }
    })
    .await;
}

async fn on_another_host(cloud: &Cloud, id: InstanceId, lost: &SimHost) -> Instance {
    eventually("it runs on another host", || async {
        let row = cloud.fetch(id).await;
        let done = row.status.state == S::Running && row.status.observed_generation == row.generation;
        if done && row.host_id != Some(lost.id()) { Ok(row.instance) } else { Err(format!("{:?}", row.instance)) }
    })
    .await
}

/// The hosts, the one first that has the instance.
fn with_first(mut hosts: Vec<SimHost>, instance: &Instance) -> Vec<SimHost> {
    let at = hosts.iter().position(|host| Some(host.id()) == instance.host_id).expect("one of them has it");
    hosts.swap(0, at);
    hosts
}

/// Puts all new instances on this host.
async fn only(cloud: &Cloud, hosts: &[SimHost], host: usize) {
    for (n, other) in hosts.iter().enumerate() {
        cloud.cordon(other.id(), n != host).await;
    }
}

async fn uncordon(cloud: &Cloud, hosts: &[SimHost]) {
    for host in hosts {
        cloud.cordon(host.id(), false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_instance_of_a_lost_host_goes_as_its_owner_wants_and_the_host_comes_back_empty() {
    for cloud in each(restless()).await {
        let hosts = cloud.hosts(2).await;
        only(&cloud, &hosts, 0).await;
        let web = running(&cloud, "web", OnHostLoss::Recreate).await;
        let off = running(&cloud, "off", OnHostLoss::Recreate).await;
        cloud.power(off.id, Power::Off).await.expect("accepted");
        cloud.becomes(off.id, S::Stopped).await;
        let (kept, doomed) =
            (running(&cloud, "kept", OnHostLoss::Wait).await, running(&cloud, "doomed", OnHostLoss::Wait).await);
        uncordon(&cloud, &hosts).await;
        let connected = cloud.try_declare_lost(&cloud.context(), hosts[0].id()).await.expect_err("it is connected");
        assert_eq!((connected.kind, connected.code.as_str()), (ErrorKind::InvalidState, "host_is_connected"));

        hosts[0].lose_power().await;
        shown(&cloud, &hosts[0], HostState::Disconnected).await;
        cloud.delete(doomed.id).await;
        let dry = CallContext { dry_run: true, ..cloud.context() };
        let plan = cloud.try_declare_lost(&dry, hosts[0].id()).await.expect("planned");
        assert_eq!((plan.recreated, plan.waiting, plan.deleted, plan.already), (2, 1, 1, false), "{plan:?}");
        assert!(plan.lines.iter().any(|line| line.contains("web") && line.contains("lost")), "{plan:?}");
        shown(&cloud, &hosts[0], HostState::Disconnected).await;
        assert!(reports(&cloud).await.is_empty(), "a dry run changes nothing");

        assert!(!cloud.declare_lost(hosts[0].id()).await.already);
        assert!(cloud.declare_lost(hosts[0].id()).await.already, "repeating it is harmless");
        let moved = on_another_host(&cloud, web.id, &hosts[0]).await;
        assert_eq!((moved.epoch, moved.spec.nics), (2, web.spec.nics), "the same identity under the next epoch");
        cloud.becomes(off.id, S::Stopped).await;
        assert_eq!(cloud.fetch(off.id).await.host_id, Some(hosts[1].id()), "one that is off is recovered as well");
        cloud.gone(doomed.id).await;
        let waiting = cloud.fetch(kept.id).await;
        assert_eq!((waiting.host_id, waiting.epoch), (Some(hosts[0].id()), 1), "its disk is there");
        // A deletion is accepted and completes, because the verdict is proof.
        let second = running(&cloud, "second", OnHostLoss::Wait).await;
        eventually("both recoveries are over", || async {
            let open: Vec<_> = reports(&cloud).await.into_iter().filter(|r| r.closed_at.is_none()).collect();
            if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
        })
        .await;
        let report = reports(&cloud).await.into_iter().find(|r| r.instance_id == web.id).expect("recorded");
        assert_eq!((report.phase, report.epoch, report.to_host_id), (RecoveryPhase::Verified, 1, Some(hosts[1].id())));
        assert!(report.placed_at >= Some(report.detected_at) && report.reachable_at.is_some(), "{report:?}");
        let events = cloud.store.event_of_object(&web.id.to_string(), 0, 100).await.expect("readable");
        let reported = |kind: &str, text: &str| events.iter().any(|e| e.kind == kind && e.message.contains(text));
        assert!(reported("instance.recovery_placed", "its host was lost"), "{events:?}");
        assert!(reported("instance.recovered", "is back") && reported("instance.recovered", "lost"), "{events:?}");

        // It comes back with everything in its ledger. Only what waited for it starts.
        hosts[0].restart();
        shown(&cloud, &hosts[0], HostState::Up).await;
        cloud.becomes(kept.id, S::Running).await;
        cloud.converges(&hosts).await;
        assert_eq!(hosts[0].machines().keys().copied().collect::<Vec<_>>(), [kept.id]);
        assert!(cloud.store.host_taken_list(hosts[0].id()).await.expect("readable").is_empty());
        for id in [web.id, off.id, kept.id, second.id] {
            cloud.delete(id).await;
            cloud.gone(id).await;
        }
        cloud.leaves_nothing().await;
        assert_eq!(cloud.world.violations(), Vec::<String>::new());
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_in_the_shared_pool_goes_on_at_a_host_of_the_same_pool_and_takes_no_hosts_room() {
    for cloud in each(restless()).await {
        let mut hosts = Vec::new();
        for (n, pool) in [Some("a"), None, Some("b"), Some("a")].into_iter().enumerate() {
            let mut config = SimConfig::named(&format!("host-{n}"));
            config.facts.shared_pool =
                pool.map(|id| SharedPoolFacts { id: id.to_owned(), ..SharedPoolFacts::default() });
            hosts.push(cloud.host(config).await);
        }
        only(&cloud, &hosts, 1).await;
        let shared = |policy| InstanceSpec { pool: DiskPool::Shared, ..spec(&cloud, policy) };
        let waits = shared(OnHostLoss::Wait);
        let problem = cloud.insist(&cloud.context(), &cloud.request(&["none"], &waits)).await.expect_err("no pool");
        let rejected = problem.explain.expect("explained").rejected;
        assert!(rejected.iter().any(|r| (r.filter, r.hosts) == (Rejection::SharedPool, 1)), "{rejected:?}");
        uncordon(&cloud, &hosts).await;
        cloud.cordon(hosts[2].id(), true).await;
        let kept = cloud.create_as("kept", &waits).await;
        cloud.becomes(kept.id, S::Running).await;
        let db = cloud.create_as("db", &shared(OnHostLoss::Restart)).await;
        let db = cloud.becomes(db.id, S::Running).await;
        uncordon(&cloud, &hosts).await;
        assert_eq!(cloud.fetch(db.id).await.claim.disk_gib, 0, "its disk is on no host");
        let at = hosts.iter().position(|host| Some(host.id()) == db.host_id).expect("one of them has it");
        assert!([0, 3].contains(&at), "{at}");
        let before = db.binding.root_used_seq;
        hosts[at].lose_power().await;
        cloud.declare_lost(hosts[at].id()).await;
        let moved = on_another_host(&cloud, db.id, &hosts[at]).await;
        assert_eq!((moved.host_id, moved.epoch), (Some(hosts[3 - at].id()), 2), "the other host of the same pool");
        assert!(moved.binding.root_used_seq >= before, "a disk that it doesn't find there is lost");
        let events = cloud.store.event_of_object(&db.id.to_string(), 0, 100).await.expect("readable");
        assert!(events.iter().any(|e| e.message.contains("its disks are kept")), "{events:?}");
        hosts[at].restart();
        shown(&cloud, &hosts[at], HostState::Up).await;
        cloud.converges(&hosts).await;
        for id in [db.id, kept.id] {
            cloud.delete(id).await;
            cloud.gone(id).await;
        }
        cloud.leaves_nothing().await;
        assert_eq!(cloud.world.violations(), Vec::<String>::new());
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_capacity_the_most_urgent_goes_first_and_the_rest_goes_on_when_there_is_some() {
    for cloud in each(restless()).await {
        let capacity = Size { vcpus: 2, memory_mib: 4096, disk_gib: 40 };
        let mut hosts = Vec::new();
        for name in ["one", "two"] {
            hosts.push(cloud.host(SimConfig { capacity, ..SimConfig::named(name) }).await);
        }
        only(&cloud, &hosts, 0).await;
        let with = |rto_seconds| InstanceSpec {
            placement: PlacementConstraints { rto_seconds, ..Default::default() },
            ..spec(&cloud, OnHostLoss::Recreate)
        };
        let (calm, urgent) =
            (cloud.create_as("calm", &with(None)).await, cloud.create_as("urgent", &with(Some(10))).await);
        for id in [calm.id, urgent.id] {
            cloud.becomes(id, S::Running).await;
        }
        only(&cloud, &hosts, 1).await;
        let filler = running(&cloud, "filler", OnHostLoss::Wait).await;
        uncordon(&cloud, &hosts).await;
        hosts[0].lose_power().await;
        cloud.declare_lost(hosts[0].id()).await;
        on_another_host(&cloud, urgent.id, &hosts[0]).await;
        eventually("the calm one says why it waits", || async {
            let all = reports(&cloud).await;
            let report = all.iter().find(|r| r.instance_id == calm.id).expect("recorded");
            if report.phase == RecoveryPhase::Waiting && !report.reason.is_empty() {
                Ok(())
            } else {
                Err(format!("{report:?}"))
            }
        })
        .await;
        let waiting = cloud.fetch(calm.id).await;
        assert_eq!((waiting.status.state, waiting.epoch), (S::Recovering, 1));
        assert!(!waiting.status.reason.is_empty());
        // Capacity appears: it goes on by itself.
        cloud.delete(filler.id).await;
        on_another_host(&cloud, calm.id, &hosts[0]).await;
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_comes_back_before_there_is_capacity_has_its_instances_again() {
    for cloud in each(restless()).await {
        let hosts = cloud.hosts(1).await;
        let web = running(&cloud, "web", OnHostLoss::Recreate).await;
        hosts[0].lose_power().await;
        cloud.declare_lost(hosts[0].id()).await;
        eventually("it waits", || async {
            let row = cloud.fetch(web.id).await;
            if row.status.state == S::Recovering { Ok(()) } else { Err(format!("{:?}", row.status)) }
        })
        .await;
        hosts[0].restart();
        shown(&cloud, &hosts[0], HostState::Up).await;
        let back = cloud.becomes(web.id, S::Running).await;
        assert_eq!((back.epoch, back.host_id), (1, Some(hosts[0].id())), "nothing was taken from it");
        eventually("its recovery says so", || async {
            let all = reports(&cloud).await;
            if all[0].phase == RecoveryPhase::Returned && all[0].closed_at.is_some() {
                Ok(())
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await;
        cloud.converges(&hosts).await;
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_lost_at_once_and_the_next_one_as_well_lose_no_instance() {
    for cloud in each(restless()).await {
        let hosts = cloud.hosts(4).await;
        let mut ids = Vec::new();
        for n in 0..8 {
            ids.push(running(&cloud, &format!("i{n}"), OnHostLoss::Recreate).await.id);
        }
        for lost in [0, 1] {
            hosts[lost].lose_power().await;
        }
        for lost in [0, 1] {
            cloud.declare_lost(hosts[lost].id()).await;
        }
        hosts[2].lose_power().await;
        cloud.declare_lost(hosts[2].id()).await;
        for id in &ids {
            eventually("it runs on the last host", || async {
                let row = cloud.fetch(*id).await;
                let there = row.host_id == Some(hosts[3].id()) && row.status.state == S::Running;
                if there { Ok(()) } else { Err(format!("{:?} {:?}", row.host_id, row.status)) }
            })
            .await;
        }
        for lost in &hosts[..3] {
            lost.restart();
        }
        for host in &hosts {
            shown(&cloud, host, HostState::Up).await;
        }
        cloud.converges(&hosts).await;
        assert_eq!(hosts[3].machines().len(), ids.len());
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_lost_is_told_what_it_lost_in_whatever_session_and_starts_nothing_before() {
    let cloud = Cloud::start(restless()).await;
    let hosts = with_first(cloud.hosts(2).await, &running(&cloud, "web", OnHostLoss::Recreate).await);
    let web = cloud.store.instance_find_by_name(cloud.project_id, "web").await.expect("readable").expect("there").id;
    hosts[0].lose_power().await;
    cloud.declare_lost(hosts[0].id()).await;
    on_another_host(&cloud, web, &hosts[0]).await;
    // Its commands are lost again and again, and it dies at each point: it is admitted all the same, and only after its proof.
    let faults = [
        Fault::Crash(sim::CrashPoint::BeforeLedger),
        Fault::Crash(sim::CrashPoint::AfterLedger),
        Fault::Crash(sim::CrashPoint::AfterDoing),
        Fault::LoseReply,
    ];
    hosts[0].set_plan(FaultPlan::seeded(11, 700, &faults));
    hosts[0].restart();
    for _ in 0..3 {
        cloud.restart().await;
        hosts[0].connected().await;
    }
    hosts[0].set_plan(FaultPlan::none());
    shown(&cloud, &hosts[0], HostState::Up).await;
    assert!(hosts[0].held().is_empty(), "{:?}", hosts[0].held());
    cloud.converges(&hosts).await;
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_host_with_another_ledger_proves_nothing_until_its_operator_accepts_the_loss() {
    let cloud = Cloud::start(restless()).await;
    let hosts = with_first(cloud.hosts(2).await, &running(&cloud, "web", OnHostLoss::Recreate).await);
    let web = cloud.store.instance_find_by_name(cloud.project_id, "web").await.expect("readable").expect("there").id;
    hosts[0].lose_power().await;
    drop(hosts[0].lose_directory());
    cloud.declare_lost(hosts[0].id()).await;
    on_another_host(&cloud, web, &hosts[0]).await;
    hosts[0].restart();
    hosts[0].connected().await;
    shown(&cloud, &hosts[0], HostState::Lost).await;
    let row = cloud.store.host_find(hosts[0].id()).await.expect("readable").expect("there");
    assert!(row.state_reason().contains("accept-loss"), "{}", row.state_reason());
    let request = proto::cluster::v1::ChangeHostRequest {
        host_id: hosts[0].id().to_string(),
        accept_loss: true,
        ..Default::default()
    };
    cloud.change_host(request).await.expect("accepted");
    shown(&cloud, &hosts[0], HostState::Up).await;
    cloud.stop(hosts).await;
}

/// Losses, returns, kills of the manager and faults of the hosts in any order, while nothing may ever run twice.
async fn run(cloud: &Cloud, seed: u64) -> Vec<SimHost> {
    println!("seed {seed}{}", if cloud.on_postgres() { " on PostgreSQL" } else { "" });
    let mut random = StdRng::seed_from_u64(seed);
    let mut hosts = Vec::new();
    for n in 0..4 {
        let plan = FaultPlan::seeded(seed * 100 + n, 200, &Fault::ALL);
        hosts.push(cloud.host(SimConfig { plan, ..SimConfig::named(&format!("host-{n}")) }).await);
    }
    let mut ids = Vec::new();
    for n in 0..6 {
        let policy = if n % 3 == 2 { OnHostLoss::Wait } else { OnHostLoss::Recreate };
        ids.push(cloud.create_as(&format!("i{n}"), &spec(cloud, policy)).await.id);
    }
    let (mut checker, mut down) = (Checker::default(), [false; 4]);
    for n in 0..25 {
        let at = random.random_range(0..hosts.len());
        match random.random_range(0..6) {
            // One stays, so that there is somewhere to go.
            0 | 1 if !down[at] && down.iter().filter(|down| **down).count() < 3 => {
                hosts[at].lose_power().await;
                down[at] = true;
                cloud.declare_lost(hosts[at].id()).await;
            }
            2 | 3 if down[at] => {
                hosts[at].restart();
                down[at] = false;
            }
            4 => cloud.restart().await,
            _ => tokio::time::sleep(std::time::Duration::from_millis(random.random_range(0..40))).await,
        }
        let broken = checker.check(&cloud.store, &cloud.world).await.expect("readable");
        assert_eq!(broken, Vec::<String>::new(), "seed {seed}, after operation {n}");
    }
    for host in &hosts {
        host.set_plan(FaultPlan::none());
        host.restart();
    }
    for host in &hosts {
        shown(cloud, host, HostState::Up).await;
    }
    cloud.converges(&hosts).await;
    for id in ids {
        cloud.delete(id).await;
        cloud.gone(id).await;
    }
    cloud.leaves_nothing().await;
    assert!(hosts.iter().all(|h| h.machines().is_empty()), "seed {seed}");
    assert_eq!(cloud.world.violations(), Vec::<String>::new(), "seed {seed}");
    hosts
}

#[tokio::test(flavor = "multi_thread")]
async fn seeded_losses_and_returns_run_nothing_twice_and_lose_nothing() {
    // IAAS_TEST_SEED repeats a run.
    let seeds = match std::env::var("IAAS_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => vec![1, 2, rand::rng().random_range(3..1_000_000)],
    };
    for seed in seeds {
        for cloud in each(restless()).await {
            let hosts = run(&cloud, seed).await;
            cloud.stop(hosts).await;
        }
    }
}
