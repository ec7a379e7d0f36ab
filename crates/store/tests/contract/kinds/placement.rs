use crate::fixture::{Lab, T0, first, instance_insert, name};
use domain::{
    HostId, ImageId, InstanceId, PlacementGroupId, ProjectId,
    placement::{GroupPolicy, GroupScope, GroupStrength},
};
use store::*;

fn group(project_id: ProjectId, called: &str, policy: GroupPolicy) -> PlacementGroupInsert {
    PlacementGroupInsert {
        id: PlacementGroupId::new(),
        project_id,
        name: name(called),
        policy,
        scope: GroupScope::Host,
        strength: GroupStrength::Hard,
        created_at: T0,
    }
}

pub async fn walk(lab: &Lab) {
    let project = lab.project("placement").await;
    let (host, image) = (lab.host("placement-host").await, lab.image(project, "placement-image").await);
    let apart = group(project, "apart", GroupPolicy::AntiAffinity);
    lab.all(Unit::new().op(apart.clone()).op(IdentityUsageAdd::placement_groups(project, 1))).await;
    let again = PlacementGroupInsert { id: PlacementGroupId::new(), ..apart.clone() };
    assert_eq!(lab.constraint(again.clone()).await, Constraint::PlacementGroupName);
    let adrift = PlacementGroupInsert { project_id: ProjectId::new(), ..again };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::PlacementGroupProject));
    let row = lab.placement_group_find(project, apart.id).await.unwrap().unwrap();
    assert_eq!((row.policy, row.scope, row.strength), (apart.policy, apart.scope, apart.strength));
    assert_eq!(lab.placement_group_find(ProjectId::new(), apart.id).await.unwrap(), None, "another project's");
    assert_eq!(lab.placement_group_find_by_name(project, "apart").await.unwrap().as_ref(), Some(&row));
    assert_eq!(lab.placement_group_list(project, first(5)).await.unwrap(), [row]);
    anti_affinity(lab, project, host, image, apart.id).await;
    affinity(lab, project, host, image).await;
}

struct Member {
    id: InstanceId,
    unit: Unit,
}

fn member(
    project: ProjectId,
    host: HostId,
    image: ImageId,
    group_id: PlacementGroupId,
    called: &str,
    place: &str,
    exclusive: bool,
) -> Member {
    let insert = InstanceInsert { attached: true, ..instance_insert(project, Some(host), image, called) };
    let id = insert.id;
    let join = PlacementMemberInsert {
        group_id,
        instance_id: id,
        place: place.to_owned(),
        exclusive_place: exclusive.then(|| place.to_owned()),
    };
    Member { id, unit: Unit::new().op(insert).op(crate::fixture::claim(host)).op(join) }
}

fn gone(id: InstanceId, host: HostId) -> Unit {
    Unit::new().op(InstanceDelete { id, epoch: 1 }).op(crate::fixture::release(host))
}

async fn anti_affinity(lab: &Lab, project: ProjectId, host: HostId, image: ImageId, group_id: PlacementGroupId) {
    let of =
        |called: &str, place: &str, exclusive: bool| member(project, host, image, group_id, called, place, exclusive);
    let one = of("apart-1", "h1", true);
    lab.all(one.unit.clone()).await;
    let same = lab.try_commit(of("apart-2", "h1", true).unit).await;
    assert!(matches!(same, Err(CommitError::Constraint(Constraint::PlacementPlace))), "{same:?}");
    let two = of("apart-3", "h2", true);
    lab.all(two.unit).await;
    let (soft, also) = (of("apart-4", "h2", false), of("apart-5", "h2", false));
    lab.all(soft.unit).await;
    lab.all(also.unit).await;
    let mut members = vec![one.id, two.id, soft.id, also.id];
    members.sort_unstable();
    assert_eq!(lab.placement_group_members(group_id, 10).await.unwrap(), members);
    let attached = lab.instance_attached_list(first(100)).await.unwrap();
    assert_eq!(attached.iter().filter(|row| members.contains(&row.id)).count(), 4);
    assert_eq!((attached[0].host_id, attached[0].claim().vcpus), (Some(host), crate::fixture::SIZE.vcpus));
    let move_to = |instance_id, place: &str| PlacementMemberMove {
        group_id,
        instance_id,
        place: place.to_owned(),
        exclusive_place: Some(place.to_owned()),
    };
    assert_eq!(lab.constraint(move_to(two.id, "h1")).await, Constraint::PlacementPlace, "another one is there");
    lab.one(move_to(two.id, "h4")).await;
    lab.one(move_to(two.id, "h2")).await;
    // All at once for one place: one gets it, whatever the batch.
    let many = (0..20).map(|n| of(&format!("race-{n}"), "h3", true).unit);
    let won = futures::future::join_all(many.map(|unit| lab.try_commit(unit))).await;
    assert_eq!(won.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{won:?}");
    assert_eq!(lab.guard(PlacementGroupDelete { id: group_id }).await, Guard::PlacementGroupInUse);
    for id in lab.placement_group_members(group_id, 10).await.unwrap() {
        lab.all(gone(id, host)).await;
    }
    assert!(lab.placement_group_members(group_id, 10).await.unwrap().is_empty(), "they leave with their instances");
    let end = Unit::new().op(PlacementGroupDelete { id: group_id });
    lab.all(end.op(IdentityUsageAdd::placement_groups(project, -1))).await;
    let late = lab.try_commit(of("apart-9", "h9", true).unit).await;
    assert!(
        matches!(late, Err(CommitError::Constraint(Constraint::ForeignKey(ForeignKey::PlacementMemberGroup)))),
        "{late:?}"
    );
}

async fn affinity(lab: &Lab, project: ProjectId, host: HostId, image: ImageId) {
    let together = group(project, "together", GroupPolicy::Affinity);
    let group_id = together.id;
    lab.all(Unit::new().op(together).op(IdentityUsageAdd::placement_groups(project, 1))).await;
    let join = |place: &str| PlacementAnchorJoin { group_id, place: place.to_owned(), members: 1 };
    let of = |called, place: &str| {
        let Member { id, unit } = member(project, host, image, group_id, called, place, false);
        Member { id, unit: unit.op(join(place)) }
    };
    let one = of("together-1", "r1");
    lab.all(one.unit).await;
    let elsewhere = lab.try_commit(of("together-2", "r2").unit).await;
    assert!(matches!(elsewhere, Err(CommitError::Guard(Guard::PlacementAnchor))), "{elsewhere:?}");
    let two = of("together-3", "r1");
    lab.all(two.unit).await;
    let moves =
        |from: &str, to: &str| PlacementAnchorMove { group_id, from_place: from.to_owned(), place: to.to_owned() };
    assert_eq!(lab.guard(moves("r7", "r8")).await, Guard::PlacementAnchor, "it is elsewhere");
    lab.one(moves("r1", "r5")).await;
    lab.one(moves("r1", "r5")).await;
    lab.one(moves("r5", "r1")).await;
    lab.all(gone(one.id, host).op(PlacementAnchorLeave { group_id })).await;
    let early = lab.try_commit(of("together-4", "r2").unit).await;
    assert!(matches!(early, Err(CommitError::Guard(Guard::PlacementAnchor))), "one is still there: {early:?}");
    lab.all(gone(two.id, host).op(PlacementAnchorLeave { group_id })).await;
    let moved = of("together-5", "r2");
    lab.all(moved.unit).await;
    let leaks = |kind: LeakKind| async move {
        let all = lab.leak_report().await.unwrap();
        all.into_iter().filter(|leak| leak.kind == kind).count()
    };
    assert_eq!(leaks(LeakKind::PlacementAnchor).await, 0);
    lab.all(gone(moved.id, host)).await;
    assert_eq!(leaks(LeakKind::PlacementAnchor).await, 1, "its last member didn't say that it left");
    lab.one(PlacementAnchorLeave { group_id }).await;
    assert_eq!(leaks(LeakKind::PlacementAnchor).await, 0);
    let end = Unit::new().op(PlacementGroupDelete { id: group_id });
    lab.all(end.op(IdentityUsageAdd::placement_groups(project, -1))).await;
}
