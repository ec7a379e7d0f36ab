use crate::fixture::{Lab, T0, first, name};
use domain::{FlavorId, ProjectId, SshKeyId, flavor::Size};
use store::*;

pub async fn walk(lab: &Lab) {
    let project = lab.project("catalog").await;
    let key = SshKeyInsert {
        id: SshKeyId::new(),
        project_id: project,
        name: name("laptop"),
        public_key: "ssh-ed25519 AAAA".into(),
        fingerprint: "SHA256:x".into(),
        created_at: T0,
    };
    lab.all(Unit::new().op(key.clone()).op(IdentityUsageAdd::ssh_keys(project, 1))).await;
    let again = SshKeyInsert { id: SshKeyId::new(), ..key.clone() };
    assert_eq!(lab.constraint(again.clone()).await, Constraint::SshKeyName);
    let adrift = SshKeyInsert { project_id: ProjectId::new(), ..again };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::SshKeyProject));
    let row = lab.ssh_key_find(project, key.id).await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.generation, row.public_key.as_str()), ("laptop", 1, "ssh-ed25519 AAAA"));
    assert_eq!(lab.ssh_key_find(ProjectId::new(), key.id).await.unwrap(), None, "another project's");
    assert_eq!(lab.ssh_key_find_by_name(project, "laptop").await.unwrap().unwrap(), row);
    assert_eq!(lab.ssh_key_list(project, first(5)).await.unwrap(), [row]);
    lab.all(Unit::new().op(SshKeyDelete { id: key.id }).op(IdentityUsageAdd::ssh_keys(project, -1))).await;
    assert!(lab.ssh_key_list(project, first(5)).await.unwrap().is_empty());

    let flavor = FlavorInsert {
        id: FlavorId::new(),
        name: name("small"),
        vcpus: 1,
        memory_mib: 512,
        disk_gib: 0,
        pinning: domain::flavor::Pinning::Numa,
        description: "the smallest".into(),
        created_at: T0,
    };
    lab.one(flavor.clone()).await;
    let again = FlavorInsert { id: FlavorId::new(), ..flavor.clone() };
    assert_eq!(lab.constraint(again).await, Constraint::FlavorName);
    let same_id = FlavorInsert { name: name("other"), ..flavor.clone() };
    assert_eq!(lab.constraint(same_id).await, Constraint::PrimaryKey(Table::Flavor));
    let row = lab.flavor_find(flavor.id).await.unwrap().unwrap();
    assert_eq!(row.size, Size { vcpus: 1, memory_mib: 512, disk_gib: 0 });
    assert_eq!(lab.flavor_find_by_name("small").await.unwrap().unwrap(), row);
    assert_eq!(lab.flavor_list(first(5)).await.unwrap(), [row]);
    lab.one(FlavorDelete { id: flavor.id }).await;
    assert_eq!(lab.flavor_find(flavor.id).await.unwrap(), None);
}
