//! Seeded runs: random operations on hosts that meet every fault there is, while invariants are checked all the time.

use crate::cloud::{Cloud, each, eventually, restless};
use domain::{
    ErrorKind, InstanceId,
    flavor::Size,
    instance::{InstanceState as S, Power},
};
use proto::cluster::v1::{self as pb, change_instance_request::Change};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use sim::{Fault, FaultPlan, SimConfig, SimHost, invariants::Checker};

/// Refusals that are right answers to a random request.
fn fair(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::InvalidState
        | ErrorKind::NotFound
        | ErrorKind::NoCapacity
        | ErrorKind::StaleGeneration
        | ErrorKind::InvalidArgument
        | ErrorKind::Unavailable => true,
        ErrorKind::KeyReused
        | ErrorKind::Unauthenticated
        | ErrorKind::PermissionDenied
        | ErrorKind::AlreadyExists
        | ErrorKind::PreconditionFailed
        | ErrorKind::PayloadTooLarge
        | ErrorKind::MethodNotAllowed
        | ErrorKind::UnsupportedMediaType
        | ErrorKind::QuotaExceeded
        | ErrorKind::RateLimited
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Internal => false,
    }
}

async fn operate(
    cloud: &Cloud,
    random: &mut StdRng,
    known: &mut Vec<InstanceId>,
    n: usize,
) -> Result<(), domain::Problem> {
    let roll = random.random_range(0..100);
    let Some(&id) = known.choose(random).filter(|_| roll >= 35) else {
        let mut spec = cloud.spec();
        spec.size = Size { vcpus: random.random_range(1..4), memory_mib: 256, disk_gib: random.random_range(1..4) };
        let count = random.random_range(1..4);
        let names: Vec<String> = (0..count).map(|m| format!("i{n}-{m}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let answer = cloud.try_create(&cloud.context(), cloud.request(&names, &spec)).await?;
        known.extend(answer.instances.iter().map(|i| i.id.parse::<InstanceId>().expect("an id")));
        return Ok(());
    };
    match roll {
        35..45 => cloud.power(id, Power::Off).await.map(drop),
        45..55 => cloud.power(id, Power::On).await.map(drop),
        55..60 => cloud.power(id, Power::Paused).await.map(drop),
        60..68 => cloud.change(id, Change::Reboot(pb::Reboot { hard: random.random() })).await.map(drop),
        68..74 => cloud.resize(id, Size { vcpus: 2, memory_mib: 300, disk_gib: 4 }).await.map(drop),
        74..80 => {
            let image_id = cloud.image_id.to_string();
            cloud.change(id, Change::Rebuild(pb::Rebuild { image_id })).await.map(drop)
        }
        _ => {
            let deleted = cloud.try_delete(&cloud.context(), id).await.map(drop);
            if deleted.is_ok() {
                known.retain(|k| *k != id);
            }
            deleted
        }
    }
}

async fn run(cloud: &Cloud, seed: u64) -> Vec<SimHost> {
    println!("seed {seed}{}", if cloud.on_postgres() { " on PostgreSQL" } else { "" });
    let mut random = StdRng::seed_from_u64(seed);
    let mut hosts = Vec::new();
    for n in 0..4 {
        let plan = FaultPlan::seeded(seed * 100 + n, 250, &Fault::ALL);
        hosts.push(cloud.host(SimConfig { plan, ..SimConfig::named(&format!("host-{n}")) }).await);
    }
    let (mut checker, mut known) = (Checker::default(), Vec::new());
    for n in 0..60 {
        if let Err(problem) = operate(cloud, &mut random, &mut known, n).await {
            assert!(fair(problem.kind), "seed {seed}, operation {n}: {problem:?}");
        }
        match random.random_range(0..40) {
            0 => hosts.choose(&mut random).expect("four").end_machine(*known.first().unwrap_or(&InstanceId::new())),
            1 => {
                let host = hosts.choose(&mut random).expect("four");
                host.crash().await;
                host.restart();
            }
            2 => cloud.restart().await,
            _ => {}
        }
        let broken = checker.check(&cloud.store, &cloud.world).await.expect("readable");
        assert_eq!(broken, Vec::<String>::new(), "seed {seed}, after operation {n}");
    }
    for host in &hosts {
        host.set_plan(FaultPlan::none());
        host.restart();
    }
    cloud.converges(&hosts).await;
    let broken = checker.check(&cloud.store, &cloud.world).await.expect("readable");
    assert_eq!(broken, Vec::<String>::new(), "seed {seed}, at rest");
    for id in known {
        eventually("a deletion is accepted", || async {
            match cloud.try_delete(&cloud.context(), id).await {
                Ok(_) => Ok(()),
                Err(p) if p.kind == ErrorKind::NotFound => Ok(()),
                Err(p) => Err(p.detail),
            }
        })
        .await;
    }
    cloud.leaves_nothing().await;
    assert!(hosts.iter().all(|h| h.machines().is_empty()), "seed {seed}");
    assert_eq!(cloud.world.violations(), Vec::<String>::new(), "seed {seed}");
    hosts
}

#[tokio::test(flavor = "multi_thread")]
async fn seeded_faults_break_nothing_and_everything_converges() {
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

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_fault_on_every_command_only_takes_longer() {
    for fault in Fault::ALL {
        let cloud = Cloud::start(restless()).await;
        // Always, and a host would never get anywhere: three of four times.
        let plan = FaultPlan::seeded(7, 750, &[fault]);
        let hosts = vec![cloud.host(SimConfig { plan, ..SimConfig::named("host-1") }).await];
        let id = cloud.create("web").await.id;
        cloud.becomes(id, S::Running).await;
        cloud.power(id, Power::Off).await.expect("accepted");
        cloud.becomes(id, S::Stopped).await;
        cloud.delete(id).await;
        cloud.gone(id).await;
        cloud.leaves_nothing().await;
        assert_eq!(cloud.world.violations(), Vec::<String>::new(), "{fault:?}");
        cloud.stop(hosts).await;
    }
}
