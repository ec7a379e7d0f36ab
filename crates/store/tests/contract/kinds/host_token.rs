use crate::fixture::{Lab, T0, at, claim, first, host_upsert, name, release};
use domain::{
    HostId, HostTokenId,
    flavor::Size,
    host::{HostFacts, HostState, MemoryOverhead},
};
use store::*;

fn token(secret: &str) -> HostTokenInsert {
    HostTokenInsert {
        id: HostTokenId::new(),
        secret_hash: secret.into(),
        host_name: Some(name("rack-1")),
        zone: None,
        created_by: "admin".into(),
        created_at: T0,
        expires_at: at(10),
    }
}

fn expect(id: HostId, called: &str) -> HostExpect {
    let (facts, overhead) = (HostFacts::default(), MemoryOverhead::default());
    HostExpect { id, name: name(called), zone: String::new(), facts, overhead, at: at(1) }
}

pub async fn walk(lab: &Lab) {
    tokens(lab).await;
    admission_and_removal(lab).await;
}

async fn tokens(lab: &Lab) {
    let (one, two) = (token("s1"), HostTokenInsert { host_name: None, zone: Some(name("b")), ..token("s2") });
    lab.all(Unit::new().op(one.clone()).op(two.clone())).await;
    assert_eq!(lab.constraint(token("s1")).await, Constraint::HostTokenSecret);
    let row = lab.host_token_find_by_secret("s1").await.unwrap().unwrap();
    assert_eq!((row.id, row.host_name, row.zone, row.host_id), (one.id, Some(name("rack-1")), None, None));
    assert_eq!(lab.host_token_find_by_secret("s9").await.unwrap(), None);

    // One host each: the same one may come again, with the same key, in time.
    let (host, other) = (HostId::new(), HostId::new());
    let redeem = |host_id, key: &str, when| HostTokenRedeem { id: one.id, host_id, key_hash: key.into(), at: when };
    assert_eq!(lab.guard(redeem(host, "k", at(10))).await, Guard::HostToken, "expired");
    lab.one(redeem(host, "k", at(2))).await;
    lab.one(redeem(host, "k", at(3))).await;
    for wrong in [redeem(other, "k", at(4)), redeem(host, "k2", at(4)), redeem(host, "k", at(11))] {
        assert_eq!(lab.guard(wrong).await, Guard::HostToken);
    }
    let row = lab.host_token_find(one.id).await.unwrap().unwrap();
    assert_eq!((row.host_id, row.key_hash.as_deref(), row.redeemed_at), (Some(host), Some("k"), Some(at(2))));
    assert_eq!(lab.host_token_list_of_host(host).await.unwrap()[0].id, one.id);
    assert!(lab.host_token_list_of_host(other).await.unwrap().is_empty());

    assert_eq!(lab.host_token_list(first(1)).await.unwrap()[0].id, one.id);
    let page = Page { after: Some(one.id.to_string()), limit: 9 };
    assert_eq!(lab.host_token_list(page).await.unwrap()[0].zone, Some(name("b")));
    lab.one(HostTokenExpire { before: at(10) }).await;
    assert_eq!(lab.host_token_list(first(9)).await.unwrap().len(), 2, "their time comes later");
    lab.all(Unit::new().op(HostTokenDelete { id: one.id }).op(HostTokenDelete { id: two.id })).await;
    assert!(lab.host_token_list(first(9)).await.unwrap().is_empty());
    assert_eq!(lab.guard(redeem(host, "k", at(4))).await, Guard::HostToken, "deleted");
}

async fn admission_and_removal(lab: &Lab) {
    let host_id = HostId::new();
    let admit = |key: &str| HostAdmissionPut { host_id, key_hash: key.into(), at: at(1) };
    assert_eq!(lab.constraint(admit("k1")).await, Constraint::ForeignKey(ForeignKey::HostAdmissionHost));
    lab.all(Unit::new().op(admit("k1")).op(expect(host_id, "joined"))).await;
    let host = lab.host_find(host_id).await.unwrap().unwrap();
    assert_eq!(
        (host.state, host.capacity, host.cpu_overcommit_permille),
        (HostState::Disconnected, Size::default(), 0)
    );
    assert_eq!(lab.constraint(expect(HostId::new(), "joined")).await, Constraint::HostName);
    assert_eq!(lab.guard(claim(host_id)).await, Guard::HostCapacity, "it has no room yet");

    // Its agent says what it is; joining once more changes nothing of that.
    lab.one(HostUpsert { id: host_id, name: name("itself"), ..host_upsert("itself") }).await;
    lab.one(expect(host_id, "again")).await;
    let host = lab.host_find(host_id).await.unwrap().unwrap();
    assert_eq!((host.name.as_str(), host.zone.as_str(), host.cpu_overcommit_permille), ("joined", "a", 4000));
    assert_eq!((host.capacity.vcpus, host.state), (20, HostState::Up));
    lab.one(admit("k2")).await;
    let hold = |key: &str| HostAdmissionHold { host_id, key_hash: key.into() };
    lab.one(hold("k2")).await;
    assert_eq!(lab.guard(hold("k1")).await, Guard::HostAdmission);
    assert_eq!(lab.host_admission_find(host_id).await.unwrap().unwrap().key_hash, "k2");
    assert!(lab.host_admission_list().await.unwrap().iter().any(|row| row.host_id == host_id));

    let remove = HostDelete { id: host_id, expected_generation: host.generation };
    lab.one(claim(host_id)).await;
    assert_eq!(lab.guard(remove.clone()).await, Guard::HostInUse, "something is claimed on it");
    lab.one(release(host_id)).await;
    assert_eq!(lab.guard(HostDelete { expected_generation: 9, ..remove.clone() }).await, Guard::HostInUse);
    let empty = HostId::new();
    lab.all(Unit::new().op(expect(empty, "empty")).op(HostAdmissionPut { host_id: empty, ..admit("k") })).await;
    lab.one(HostDelete { id: empty, expected_generation: 1 }).await;
    assert_eq!(lab.host_find(empty).await.unwrap(), None);
    assert_eq!(lab.host_admission_find(empty).await.unwrap(), None, "it goes with its host");
    assert_eq!(lab.guard(HostDelete { id: empty, expected_generation: 1 }).await, Guard::HostInUse, "gone already");
}
