//! Disks: reserved, confirmed, resized, released, forgotten; and the quota that goes with them.

use crate::support::{QUOTA_GIB, World};
use domain::{DiskId, ErrorKind, HostId, InstanceId, Problem, Timestamp};
use futures::future::join_all;
use proto::{status::from_status, storage::v1 as pb};
use storage_manager::reconcile;
use store::DiskState;

#[derive(Clone, Copy)]
struct Ids {
    disk: DiskId,
    instance: InstanceId,
    host: HostId,
}

fn ids() -> Ids {
    Ids { disk: DiskId::new(), instance: InstanceId::new(), host: HostId::new() }
}

impl World {
    fn reservation(&self, ids: Ids, size_gib: u64) -> pb::DiskReservation {
        pb::DiskReservation {
            disk_id: ids.disk.to_string(),
            instance_id: ids.instance.to_string(),
            project_id: self.project_id.to_string(),
            role: "root".into(),
            pool: "local".into(),
            size_gib,
        }
    }

    async fn reserve_all(&self, disks: Vec<pb::DiskReservation>) -> Result<(), Problem> {
        let request = pb::ReserveDisksRequest { disks, ttl_secs: 60 };
        self.client.clone().reserve_disks(request).await.map(drop).map_err(|s| from_status(&s))
    }

    async fn reserve(&self, ids: Ids, size_gib: u64) -> Result<(), Problem> {
        self.reserve_all(vec![self.reservation(ids, size_gib)]).await
    }

    /// The disks whose reservation is gone.
    async fn confirm(&self, disks: &[Ids], epoch: i64) -> Vec<String> {
        let disks = disks.iter().map(|ids| pb::DiskConfirmation {
            disk_id: ids.disk.to_string(),
            instance_id: ids.instance.to_string(),
            host_id: ids.host.to_string(),
            epoch,
        });
        let request = pb::ConfirmDisksRequest { disks: disks.collect() };
        self.client.clone().confirm_disks(request).await.expect("an answer").into_inner().expired_disk_ids
    }

    async fn resize(&self, ids: Ids, size_gib: u64, generation: i64) -> Result<(), Problem> {
        let request = pb::ResizeDiskRequest {
            disk_id: ids.disk.to_string(),
            instance_id: ids.instance.to_string(),
            size_gib,
            generation,
        };
        self.client.clone().resize_disk(request).await.map(drop).map_err(|s| from_status(&s))
    }

    async fn release(&self, ids: Ids) {
        let request = pb::ReleaseDisksRequest { instance_ids: vec![ids.instance.to_string()] };
        self.client.clone().release_disks(request).await.expect("released");
    }

    async fn forget(&self, ids: Ids) {
        let request = pb::RemoveDisksRequest { instance_ids: vec![ids.instance.to_string()] };
        self.client.clone().remove_disks(request).await.expect("forgotten");
    }

    async fn disk(&self, ids: Ids) -> Option<store::DiskRow> {
        self.store.disk_find(ids.disk).await.expect("a read")
    }
}

#[tokio::test]
async fn a_disk_goes_through_its_life_and_every_step_may_be_repeated() {
    for world in World::each().await {
        let it = ids();
        for _ in 0..3 {
            world.reserve(it, 10).await.expect("reserved");
            assert_eq!(world.used_gib().await, 10, "counted once");
        }
        let row = world.disk(it).await.expect("a row");
        assert_eq!((row.state, row.host_id, row.size_gib), (DiskState::Reserved, None, 10));
        assert!(row.expires_at.is_some(), "a reservation expires");
        for _ in 0..2 {
            assert!(world.confirm(&[it], 1).await.is_empty());
        }
        let row = world.disk(it).await.expect("a row");
        assert_eq!((row.state, row.host_id, row.epoch, row.expires_at), (DiskState::Confirmed, Some(it.host), 1, None));
        world.reserve(it, 10).await.expect("a late repeat of the reservation changes nothing");
        assert_eq!(world.disk(it).await.expect("a row").state, DiskState::Confirmed);
        for _ in 0..2 {
            world.resize(it, 25, 5).await.expect("grown");
            assert_eq!(world.used_gib().await, 25);
        }
        assert_eq!(world.resize(it, 30, 4).await.expect_err("an older change").kind, ErrorKind::StaleGeneration);
        world.resize(it, 20, 6).await.expect("shrunk back");
        assert_eq!(world.used_gib().await, 20);
        for _ in 0..2 {
            world.release(it).await;
            assert_eq!(world.used_gib().await, 0, "given back once");
        }
        assert_eq!(world.disk(it).await.expect("it stays until proof").state, DiskState::Releasing);
        assert_eq!(world.confirm(&[it], 2).await, [it.disk.to_string()], "too late");
        assert_eq!(world.resize(it, 1, 9).await.expect_err("too late").kind, ErrorKind::InvalidState);
        for _ in 0..2 {
            world.forget(it).await;
        }
        assert_eq!(world.disk(it).await, None);
        assert_eq!(world.used_gib().await, 0);
        world.end().await;
    }
}

#[tokio::test]
async fn a_disk_forgotten_without_release_gives_its_quota_back() {
    for world in World::each().await {
        let (reserved, confirmed) = (ids(), ids());
        world.reserve(reserved, 3).await.expect("reserved");
        world.reserve(confirmed, 4).await.expect("reserved");
        world.confirm(&[confirmed], 1).await;
        world.forget(reserved).await;
        assert_eq!(world.used_gib().await, 4);
        world.forget(confirmed).await;
        assert_eq!(world.used_gib().await, 0);
        world.end().await;
    }
}

#[tokio::test]
async fn a_confirmation_is_fenced_by_its_epoch() {
    let world = World::one().await;
    let it = ids();
    world.reserve(it, 1).await.expect("reserved");
    world.confirm(&[it], 3).await;
    let moved = Ids { host: HostId::new(), ..it };
    assert!(world.confirm(&[moved], 2).await.is_empty(), "an old message is no news");
    assert_eq!(world.disk(it).await.expect("a row").host_id, Some(it.host), "and changes nothing");
    world.confirm(&[moved], 4).await;
    assert_eq!(world.disk(it).await.expect("a row").host_id, Some(moved.host));
    let foreign = Ids { instance: InstanceId::new(), ..it };
    assert_eq!(world.confirm(&[foreign], 9).await, [it.disk.to_string()], "another instance's disk");
    world.end().await;
}

#[tokio::test]
async fn one_missing_reservation_does_not_hold_up_the_others() {
    for world in World::each().await {
        let disks: Vec<Ids> = (0..10).map(|_| ids()).collect();
        let reserved = disks[..9].iter().map(|ids| world.reservation(*ids, 1)).collect();
        world.reserve_all(reserved).await.expect("reserved");
        assert_eq!(world.confirm(&disks, 1).await, [disks[9].disk.to_string()]);
        for it in &disks[..9] {
            assert_eq!(world.disk(*it).await.expect("a row").state, DiskState::Confirmed);
        }
        world.end().await;
    }
}

#[tokio::test]
async fn the_quota_is_kept_and_the_refusal_has_the_figures() {
    for world in World::each().await {
        world.reserve(ids(), 60).await.expect("reserved");
        let refused = world.reserve(ids(), 50).await.expect_err("over");
        assert_eq!((refused.kind, refused.code.as_str()), (ErrorKind::QuotaExceeded, "quota_exceeded"));
        assert!(refused.detail.contains("disk_gib: 50 requested, 60 used, limit 100"), "{}", refused.detail);
        // All or none.
        let (a, b) = (ids(), ids());
        let both = vec![world.reservation(a, 30), world.reservation(b, 30)];
        assert_eq!(world.reserve_all(both).await.expect_err("over").kind, ErrorKind::QuotaExceeded);
        assert_eq!((world.disk(a).await, world.disk(b).await), (None, None));
        let it = ids();
        world.reserve(it, 40).await.expect("just fits");
        assert_eq!(world.resize(it, 41, 7).await.expect_err("over").kind, ErrorKind::QuotaExceeded);
        assert_eq!(world.disk(it).await.expect("a row").size_gib, 40);
        assert_eq!(world.used_gib().await, QUOTA_GIB);
        world.end().await;
    }
}

#[tokio::test]
async fn concurrent_reservations_never_pass_the_quota() {
    for world in World::each().await {
        let disks: Vec<Ids> = (0..60).map(|_| ids()).collect();
        // Each twice, as after lost answers.
        let calls = disks.iter().chain(&disks).map(|it| world.reserve(*it, 2));
        let answers = join_all(calls).await;
        assert!(answers.iter().all(|a| a.as_ref().is_ok_or_quota()), "{answers:?}");
        assert_eq!(world.used_gib().await, QUOTA_GIB, "full, and no more");
        let mut standing = 0;
        for it in &disks {
            standing += usize::from(world.disk(*it).await.is_some());
        }
        assert_eq!(standing, 50);
        // Everything is released and forgotten at once, repeats included.
        join_all(disks.iter().chain(&disks).map(|it| async {
            world.release(*it).await;
            world.forget(*it).await;
        }))
        .await;
        assert_eq!(world.used_gib().await, 0);
        world.end().await;
    }
}

trait OkOrQuota {
    fn is_ok_or_quota(&self) -> bool;
}

impl OkOrQuota for Result<&(), &Problem> {
    fn is_ok_or_quota(&self) -> bool {
        self.is_ok() || self.is_err_and(|p| p.kind == ErrorKind::QuotaExceeded)
    }
}

#[tokio::test]
async fn concurrent_resizes_count_what_they_change() {
    for world in World::each().await {
        let it = ids();
        world.reserve(it, 1).await.expect("reserved");
        world.confirm(&[it], 1).await;
        let sizes = [5, 9, 2, 30, 7, 12, 1, 3];
        join_all(sizes.iter().zip(2..).map(|(size, generation)| world.resize(it, *size, generation))).await;
        let row = world.disk(it).await.expect("a row");
        assert_eq!((row.generation, row.size_gib), (9, 3), "the last change won");
        assert_eq!(world.used_gib().await, 3);
        world.end().await;
    }
}

#[tokio::test]
async fn a_reservation_is_checked() {
    let world = World::one().await;
    let it = ids();
    let valid = world.reservation(it, 1);
    for (field, reservation) in [
        ("pool", pb::DiskReservation { pool: "tape".into(), ..valid.clone() }),
        ("role", pb::DiskReservation { role: String::new(), ..valid.clone() }),
        ("size_gib", pb::DiskReservation { size_gib: u64::MAX, ..valid.clone() }),
        ("disk_id", pb::DiskReservation { disk_id: "root".into(), ..valid.clone() }),
    ] {
        let problem = world.reserve_all(vec![reservation]).await.expect_err(field);
        assert_eq!((problem.kind, problem.errors[0].field.as_str()), (ErrorKind::InvalidArgument, field));
    }
    world.reserve(it, 1).await.expect("reserved");
    let second_root = Ids { disk: DiskId::new(), ..it };
    assert_eq!(world.reserve(second_root, 1).await.expect_err("a second root").code, "disk_role_taken");
    let other = Ids { instance: InstanceId::new(), ..it };
    assert_eq!(world.reserve(other, 1).await.expect_err("another's disk").kind, ErrorKind::InvalidState);
    assert_eq!(world.reserve(it, 2).await.expect_err("another size").kind, ErrorKind::InvalidState);
    world.end().await;
}

#[tokio::test]
async fn what_nobody_confirms_expires_and_what_is_confirmed_never_does() {
    for world in World::each().await {
        let disks: Vec<Ids> = (0..40).map(|_| ids()).collect();
        let reservations = disks.iter().map(|it| world.reservation(*it, 1)).collect();
        world.reserve_all(reservations).await.expect("reserved");
        let now = Timestamp::now();
        assert_eq!(reconcile::disk::sweep_reservations(&world.store, now).await.expect("swept"), 0, "not yet");
        // At the same moment: half are confirmed while all are swept, by two sweepers.
        let later = now.plus_secs(3600);
        let confirms = join_all(disks[..20].iter().map(|it| async { world.confirm(&[*it], 1).await }));
        let (expired, a, b) = tokio::join!(
            confirms,
            reconcile::disk::sweep_reservations(&world.store, later),
            reconcile::disk::sweep_reservations(&world.store, later),
        );
        let swept = a.expect("swept") + b.expect("swept");
        let mut confirmed = 0;
        for (it, expired) in disks.iter().zip(&expired) {
            match world.disk(*it).await {
                Some(row) => {
                    confirmed += 1;
                    assert_eq!((row.state, expired.is_empty()), (DiskState::Confirmed, true));
                }
                None => assert_eq!(*expired, [it.disk.to_string()], "the caller was told"),
            }
        }
        for it in &disks[20..] {
            assert_eq!(world.disk(*it).await, None, "nobody confirmed it");
        }
        assert_eq!(swept + confirmed, 40);
        assert_eq!(world.used_gib().await, i64::try_from(confirmed).expect("few"));
        assert_eq!(reconcile::disk::sweep_reservations(&world.store, later).await.expect("swept"), 0);
        world.end().await;
    }
}
