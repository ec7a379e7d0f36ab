//! Who leads the managers' roles is shown to system admins.

use crate::harness::World;
use store::{ManagerRole, ManagerStandbyPut, Unit};

#[tokio::test(flavor = "multi_thread")]
async fn the_managers_are_listed_by_role_the_leader_first() {
    let world = World::start().await;
    let admin = world.admin().await;
    let list = async || {
        let list = admin.get("/v1/managers").await.expect(200);
        let items = list["items"].as_array().expect("a list").clone();
        items
            .into_iter()
            .map(|item| (item["role"].clone(), item["state"].clone(), item["pid"].clone()))
            .collect::<Vec<_>>()
    };
    let leaders: Vec<_> = ManagerRole::ALL
        .into_iter()
        .map(|role| (role.as_str().into(), "leader".into(), std::process::id().into()))
        .collect();
    assert_eq!(list().await, leaders);
    let now = domain::Timestamp::now();
    let standby = |id: &str, renewed_at| ManagerStandbyPut {
        id: id.to_owned(),
        role: ManagerRole::Cluster,
        host: "rack-2".to_owned(),
        pid: 7,
        address: "https://rack-2:7481".to_owned(),
        since: now,
        renewed_at,
    };
    let unit = Unit::new().op(standby("here", now)).op(standby("silent", domain::Timestamp(now.0 - 60_000)));
    world.store.commit(unit).await.expect("commits");
    let standby = ("cluster-manager".into(), "standby".into(), 7.into());
    assert_eq!(list().await, [vec![leaders[0].clone(), standby], leaders[1..].to_vec()].concat());
    let page = admin.get("/v1/managers?limit=1").await.expect(200);
    assert!(page["items"][0]["term"].as_i64().is_some_and(|term| term > 0), "{page}");
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "admin").await;
    ann.get("/v1/managers").await.problem(403, "permission_denied");
}
