use crate::fixture::{Lab, T0, at, disk_insert, first};
use domain::{DiskId, HostId, InstanceId, ProjectId};
use store::*;

pub async fn walk(lab: &Lab) {
    let (project, instance, host) = (lab.project("disk").await, InstanceId::new(), HostId::new());
    let disk = disk_insert(project, instance);
    lab.one(disk.clone()).await;
    assert_eq!(lab.guard(disk.clone()).await, Guard::DiskExists, "a repeat");
    let second_root = DiskInsert { id: DiskId::new(), ..disk.clone() };
    assert_eq!(lab.constraint(second_root.clone()).await, Constraint::DiskRole);
    let adrift = DiskInsert { project_id: ProjectId::new(), instance_id: InstanceId::new(), ..second_root };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::DiskProject));
    let row = lab.disk_find(disk.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.expires_at, row.host_id, row.epoch), (DiskState::Reserved, Some(at(60)), None, 0));
    assert_eq!((row.role.as_str(), row.pool.as_str(), row.size_gib, row.created_at), ("root", "local", 10, T0));

    assert!(lab.disk_expired(at(59), 9).await.unwrap().is_empty());
    assert_eq!(lab.disk_expired(at(60), 9).await.unwrap()[0].id, disk.id);
    assert_eq!(
        lab.guard(DiskExpire { id: disk.id, expected_generation: 1, at: at(59) }).await,
        Guard::DiskState,
        "not yet"
    );
    let confirm = DiskConfirm { id: disk.id, instance_id: instance, host_id: host, epoch: 2 };
    let foreign = DiskConfirm { instance_id: InstanceId::new(), ..confirm.clone() };
    assert_eq!(lab.guard(foreign).await, Guard::DiskState, "another instance's");
    lab.one(confirm.clone()).await;
    lab.one(confirm.clone()).await;
    assert_eq!(lab.guard(DiskConfirm { epoch: 1, ..confirm.clone() }).await, Guard::DiskState, "an older epoch");
    assert_eq!(
        lab.guard(DiskExpire { id: disk.id, expected_generation: 1, at: at(99) }).await,
        Guard::DiskState,
        "it is confirmed"
    );
    assert!(lab.disk_expired(at(99), 9).await.unwrap().is_empty());
    let row = lab.disk_find(disk.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.expires_at, row.host_id, row.epoch), (DiskState::Confirmed, None, Some(host), 2));

    let resize = DiskResize { id: disk.id, expected_generation: 1, size_gib: 20, generation: 4 };
    assert_eq!(lab.guard(DiskResize { generation: 1, ..resize.clone() }).await, Guard::DiskState, "it must rise");
    lab.one(resize.clone()).await;
    assert_eq!(lab.guard(resize.clone()).await, Guard::DiskState, "once per generation");
    let row = lab.disk_find(disk.id).await.unwrap().unwrap();
    assert_eq!((row.size_gib, row.generation), (20, 4));
    let rows = [row];
    assert_eq!(lab.disk_list_of_instance(instance).await.unwrap(), rows);
    assert_eq!(lab.disk_load_many(&[disk.id, DiskId::new()]).await.unwrap(), rows);
    assert_eq!(lab.disk_load_many_of_instances(&[instance, InstanceId::new()]).await.unwrap(), rows);
    assert_eq!(lab.disk_list(project, first(9)).await.unwrap(), rows);
    assert_eq!(lab.instance_gone(&[instance]).await.unwrap(), [instance], "there never was such an instance");

    let release = DiskRelease { id: disk.id, expected_generation: 4 };
    assert_eq!(lab.guard(DiskRelease { expected_generation: 1, ..release.clone() }).await, Guard::DiskState);
    lab.one(release.clone()).await;
    assert_eq!(lab.guard(release).await, Guard::DiskState, "its quota is given back once");
    assert_eq!(lab.guard(confirm).await, Guard::DiskState);
    let later = DiskResize { expected_generation: 4, generation: 5, ..resize };
    assert_eq!(lab.guard(later).await, Guard::DiskState, "it is on its way out");
    assert_eq!(lab.guard(ProjectDelete { id: project }).await, Guard::ProjectInUse);
    let delete_disk = DiskDelete { id: disk.id, expected_state: DiskState::Releasing, expected_generation: 4 };
    let before = DiskDelete { expected_state: DiskState::Confirmed, ..delete_disk.clone() };
    assert_eq!(lab.guard(before).await, Guard::DiskState);
    assert_eq!(lab.guard(DiskDelete { expected_generation: 1, ..delete_disk.clone() }).await, Guard::DiskState);
    lab.one(delete_disk.clone()).await;
    assert_eq!(lab.guard(delete_disk).await, Guard::DiskState);

    let late = disk_insert(project, instance);
    lab.one(late.clone()).await;
    let foreseen = DiskExpire { id: late.id, expected_generation: 2, at: at(60) };
    assert_eq!(lab.guard(foreseen).await, Guard::DiskState, "another generation");
    lab.one(DiskExpire { id: late.id, expected_generation: 1, at: at(60) }).await;
    assert_eq!(lab.disk_find(late.id).await.unwrap(), None);
    let confirm = DiskConfirm { id: late.id, instance_id: instance, host_id: host, epoch: 3 };
    assert_eq!(lab.guard(confirm).await, Guard::DiskState, "confirming an expired one fails");
}
