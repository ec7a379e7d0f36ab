//! What rows refer to. A reference that was read before a commit may be gone at the commit, so each is guarded in the commit itself: by a
//! foreign key, or by a guard that is named here. Both tests enumerate: a new reference fails them until somebody has decided.

use crate::{
    fixture::{
        Lab, T0, disk_insert, external_network_insert, image_insert, instance_insert, name, network_insert,
        port_insert, router_insert, security_group_insert,
    },
    server,
};
use domain::{
    FloatingIpId, HostId, PlacementGroupId, ProjectId,
    network::MacAddr,
    placement::{GroupPolicy, GroupScope, GroupStrength},
};
use std::collections::{BTreeMap, BTreeSet};
use store::{testing::TestDatabase, *};

/// The columns that name a row of another table without a foreign key, and what keeps them true instead.
const WITHOUT_FOREIGN_KEY: &[(&str, &str)] = &[
    ("address.owner_id", "of several tables: the owner's unit takes and releases its addresses"),
    ("address.scope_id", "of two tables: `AddressTake` has the scope's subnet, or its owner has a foreign key"),
    ("address.subnet_id", "`AddressTake` fails for a subnet that is gone, `SubnetDelete` for one with addresses"),
    ("audit.object_id", "history"),
    ("audit.project_id", "history"),
    ("disk.host_id", "`HostDelete` fails while an instance is bound to it"),
    ("disk.instance_id", "a reservation comes before its owner, and expires"),
    ("event.object_id", "history"),
    ("event.project_id", "history"),
    ("host_taken.instance_id", "what a lost host held; the instance may be gone"),
    ("host.found_ledger_id", "a ledger of the host's agent, which no table has"),
    ("host.ledger_id", "a ledger of the host's agent, which no table has"),
    ("host_token.host_id", "the token outlives its host"),
    ("instance.host_id", "`HostClaim` fails for a host that is gone, `HostDelete` for one with claims"),
    ("instance_todo.instance_id", "what is left to do for one that is gone"),
    ("instance.root_disk_id", "reserved before, reserved anew when it expired, confirmed before it is delivered"),
    ("network_host.host_id", "the resource-manager removes it when the host is gone"),
    ("orphan.host_id", "what the host said; it goes with the host"),
    ("orphan.instance_id", "it is an orphan because there is no such row"),
    ("placement_record.instance_id", "history"),
    ("placement_record.project_id", "history"),
    ("port.host_id", "`HostDelete` fails while an instance is bound to it"),
    ("port.instance_id", "a reservation comes before its owner, and expires"),
    ("recovery.host_id", "history"),
    ("recovery.instance_id", "history; an open one ends when its instance is gone"),
    ("recovery.project_id", "history"),
    ("recovery.to_host_id", "history"),
    ("router.project_id", "as its network's, which it goes with"),
    ("peering.project_id", "as its network's, which it goes with"),
    ("subnet.project_id", "as its network's, which it goes with"),
    ("user_account.home_project_id", "it counts only while the user is a member, and membership has a foreign key"),
    ("uplink.host_id", "the resource-manager removes it with the host's last port of the network"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_reference_has_a_foreign_key_or_another_guard() {
    let database = TestDatabase::sqlite();
    database.open().await.close().await;
    let connection = server::sqlite(&database);
    let texts = |sql: &str| -> BTreeSet<String> {
        let mut statement = connection.prepare(sql).expect("prepares");
        let rows = statement.query_map([], |row| row.get(0)).expect("queries");
        rows.map(|row| row.expect("a row")).collect()
    };
    let columns = texts(
        "SELECT m.name || '.' || c.name FROM sqlite_schema AS m JOIN pragma_table_info(m.name) AS c
         WHERE m.type = 'table' AND c.name LIKE '%\\_id' ESCAPE '\\'
         AND c.name NOT IN ('operation_id', 'request_id', 'last_id')",
    );
    let keys = texts(
        "SELECT m.name || '.' || k.\"from\" FROM sqlite_schema AS m JOIN pragma_foreign_key_list(m.name) AS k
         WHERE m.type = 'table'",
    );
    let undecided: BTreeSet<&str> = columns.difference(&keys).map(String::as_str).collect();
    let decided: BTreeSet<&str> = WITHOUT_FOREIGN_KEY.iter().map(|(column, _)| *column).collect();
    assert_eq!(undecided, decided, "a reference without a foreign key needs another guard, named here");
}

/// A row that refers to another, and the deletion of that other one.
struct Reference {
    /// What must be there before.
    there: Unit,
    child: Unit,
    removal: Unit,
}

fn reference(key: ForeignKey, round: usize) -> Option<Reference> {
    let called = format!("{key:?}-{round}").to_lowercase();
    let new_project = || {
        let id = ProjectId::new();
        (
            id,
            ProjectInsert {
                id,
                name: name(&format!("r-{}", id.0.simple())),
                description: String::new(),
                created_at: T0,
            },
        )
    };
    let of_project = |child: &dyn Fn(ProjectId) -> Op| {
        let (id, insert) = new_project();
        Reference {
            there: Unit::new().op(insert),
            child: Unit::new().op(child(id)),
            removal: Unit::new().op(ProjectDelete { id }),
        }
    };
    let image = |project| image_insert(project, &format!("i-{called}"));
    let (project, insert) = new_project();
    let there = Unit::new().op(insert);
    let network = network_insert(project, &format!("n-{called}"));
    let outside = external_network_insert(&format!("o-{called}"));
    let port = PortInsert { expires_at: None, ..port_insert(project, network.id) };
    let delete_outside = Unit::new().op(ExternalNetworkDelete { id: outside.id });
    let floating = FloatingIpInsert {
        id: FloatingIpId::new(),
        project_id: project,
        external_network_id: outside.id,
        address: "203.0.113.10".parse().expect("an address"),
        description: String::new(),
        port_id: None,
        fixed_ip: None,
        created_at: T0,
    };
    Some(match key {
        ForeignKey::InstanceProject => {
            let other = image(project);
            let made = of_project(&|id| instance_insert(id, None, other.id, "vm").into());
            Reference { there: merged(there.op(other.clone()), made.there), ..made }
        }
        ForeignKey::ImageProject => of_project(&|id| image(id).into()),
        ForeignKey::DiskProject => of_project(&|id| disk_insert(id, domain::InstanceId::new()).into()),
        ForeignKey::FloatingIpProject => {
            let made = of_project(&|project_id| FloatingIpInsert { project_id, ..floating.clone() }.into());
            Reference { there: made.there.op(outside), ..made }
        }
        ForeignKey::PortProject => {
            let made = of_project(&|project_id| PortInsert { project_id, ..port.clone() }.into());
            Reference { there: merged(there.op(network.clone()), made.there), ..made }
        }
        ForeignKey::InstanceImage => {
            let image = image(project);
            Reference {
                child: Unit::new().op(instance_insert(project, None, image.id, "vm")),
                removal: Unit::new().op(ImageDelete { id: image.id, reserved_gib: 0 }),
                there: there.op(image),
            }
        }
        ForeignKey::PlacementMemberGroup => {
            let (image, group_id) = (image(project), PlacementGroupId::new());
            let group = PlacementGroupInsert {
                id: group_id,
                project_id: project,
                name: name("group"),
                policy: GroupPolicy::AntiAffinity,
                scope: GroupScope::Host,
                strength: GroupStrength::Hard,
                created_at: T0,
            };
            let instance = instance_insert(project, None, image.id, "vm");
            let join = PlacementMemberInsert {
                group_id,
                instance_id: instance.id,
                place: "h".to_owned(),
                exclusive_place: None,
            };
            Reference {
                there: there.op(image).op(group),
                child: Unit::new().op(instance).op(join),
                removal: Unit::new().op(PlacementGroupDelete { id: group_id }),
            }
        }
        ForeignKey::PortNetwork => Reference {
            child: Unit::new().op(port),
            removal: Unit::new().op(NetworkDelete { id: network.id, expected_generation: 1 }),
            there: there.op(network),
        },
        ForeignKey::PortSecurityGroupGroup => {
            let group = security_group_insert(project, "group");
            let member = PortSecurityGroupPut { port_id: port.id, security_group_id: group.id };
            Reference {
                child: Unit::new().op(port).op(member),
                removal: Unit::new().op(SecurityGroupDelete { id: group.id, expected_generation: 1 }),
                there: there.op(network).op(group),
            }
        }
        ForeignKey::FloatingIpPort => {
            let router = router_insert(project, "way", network.id, outside.id);
            let fixed_ip = Some("10.0.0.5".parse().expect("an address"));
            Reference {
                child: Unit::new().op(FloatingIpInsert { port_id: Some(port.id), fixed_ip, ..floating }),
                removal: Unit::new().op(PortDelete { id: port.id, expected_generation: 1 }),
                there: there.op(network).op(outside).op(router).op(port),
            }
        }
        ForeignKey::FloatingIpExternalNetwork => {
            Reference { child: Unit::new().op(floating), removal: delete_outside, there: there.op(outside) }
        }
        ForeignKey::RouterExternalNetwork => {
            let router = router_insert(project, "way", network.id, outside.id);
            Reference { child: Unit::new().op(router), removal: delete_outside, there: there.op(network).op(outside) }
        }
        ForeignKey::UplinkExternalNetwork => {
            let mac = MacAddr::local(round.to_be_bytes()[3..8].try_into().expect("five bytes"));
            let uplink = UplinkPut {
                network_id: network.id,
                host_id: HostId::new(),
                external_network_id: outside.id,
                addresses: vec![],
                mac,
            };
            Reference { child: Unit::new().op(uplink), removal: delete_outside, there: there.op(network).op(outside) }
        }
        ForeignKey::AddressBlock => {
            let block = ExternalBlockInsert {
                id: external_block_id(outside.id, "203.0.113.0/24".parse().expect("a CIDR")),
                external_network_id: outside.id,
            };
            let take = AddressTake {
                scope_id: outside.id.to_string(),
                address: floating.address,
                subnet_id: None,
                block_id: Some(block.id.clone()),
                owner_kind: AddressOwner::FloatingIp,
                owner_id: floating.id.to_string(),
                at: T0,
            };
            // Of a block that is removed, and of an external network with all of its blocks.
            let removal = if round % 4 < 2 {
                Unit::new().op(ExternalBlockDelete { id: block.id.clone() })
            } else {
                delete_outside
            };
            Reference { child: Unit::new().op(take), removal, there: there.op(outside).op(block) }
        }
        // These go with what they belong to.
        ForeignKey::PlacementGroupProject
        | ForeignKey::PlacementMemberInstance
        | ForeignKey::PlacementAnchorGroup
        | ForeignKey::RoleBindingProject
        | ForeignKey::RoleBindingUser
        | ForeignKey::ApiKeyUser
        | ForeignKey::ApiKeyProject
        | ForeignKey::RefreshTokenUser
        | ForeignKey::SshKeyProject
        | ForeignKey::QuotaLimitProject
        | ForeignKey::HostAdmissionHost
        | ForeignKey::ComputeUsageProject
        | ForeignKey::StorageUsageProject
        | ForeignKey::NetworkProject
        | ForeignKey::ExternalBlockNetwork
        | ForeignKey::SubnetNetwork
        | ForeignKey::RouterNetwork
        | ForeignKey::SecurityGroupProject
        | ForeignKey::SecurityRuleGroup
        | ForeignKey::SecurityRuleRemote
        | ForeignKey::PortSecurityGroupPort
        | ForeignKey::PeeringNetwork
        | ForeignKey::PeeringPeer
        | ForeignKey::UplinkNetwork
        | ForeignKey::ProjectNetworkDefaultProject
        | ForeignKey::ImageObjectImage
        | ForeignKey::IdentityUsageProject
        | ForeignKey::HostVerdictHost
        | ForeignKey::HostTakenHost
        | ForeignKey::NetworkUsageProject => return None,
    })
}

fn merged(mut one: Unit, other: Unit) -> Unit {
    one.extend(other.ops().iter().cloned());
    one
}

/// Whatever commits at the same moment in another process, a row and what it refers to never part: one of the two is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_and_what_it_refers_to_never_part() {
    for lab in Lab::each().await {
        let other = lab.db.database.open().await;
        let mut won: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for named in NAMED_CONSTRAINTS.iter().copied().flatten() {
            let Constraint::ForeignKey(key) = named.constraint else { continue };
            for round in 0..12 {
                let Some(Reference { there, child, removal }) = reference(key, round) else { break };
                lab.all(there).await;
                let (made, removed) = if round % 2 == 0 {
                    tokio::join!(lab.db.store.commit(child.clone()), other.commit(removal.clone()))
                } else {
                    let (removed, made) =
                        tokio::join!(lab.db.store.commit(removal.clone()), other.commit(child.clone()));
                    (made, removed)
                };
                let refusal = match (&made, &removed) {
                    (Ok(()), Err(refusal)) | (Err(refusal), Ok(())) => refusal,
                    (Ok(()), Ok(())) | (Err(_), Err(_)) => panic!("{key:?}, round {round}: {made:?}, {removed:?}"),
                };
                assert!(
                    matches!(refusal, CommitError::Guard(_) | CommitError::Constraint(Constraint::ForeignKey(_))),
                    "{key:?}, round {round}: {refusal:?}"
                );
                let counts = won.entry(format!("{key:?}")).or_default();
                if made.is_ok() {
                    counts.0 += 1;
                } else {
                    counts.1 += 1;
                }
                // One after the other, the same: the second is refused whichever came first.
                let late = if made.is_ok() { removal } else { child };
                assert!(lab.db.store.commit(late).await.is_err(), "{key:?}, round {round}");
            }
        }
        assert_eq!(won.len(), 14, "the references without a cascade: {won:?}");
        other.close().await;
    }
}
