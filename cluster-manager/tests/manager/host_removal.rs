//! Hosts that are removed.

use crate::cloud::{Cloud, each, eventually, quick, restless};
use domain::{ErrorKind, HostId, Problem, host::HostState};
use proto::{cluster::v1 as pb, status::from_status};
use service_kit::context::CallContext;

async fn remove(cloud: &Cloud, context: &CallContext, host_id: HostId, generation: i64) -> Result<(), Problem> {
    let request = pb::RemoveHostRequest { host_id: host_id.to_string(), expected_generation: generation };
    let answer = cloud.client().remove_host(context.request(request)).await;
    answer.map(drop).map_err(|status| from_status(&status))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_goes_only_when_it_holds_nothing_and_nothing_of_it_stays() {
    for cloud in each(restless()).await {
        let hosts = cloud.hosts(2).await;
        let (gone, stays) = (hosts[0].id(), hosts[1].id());
        cloud.cordon(stays, true).await;
        let web = cloud.running("web").await.id;
        let context = cloud.context();
        let refused = remove(&cloud, &context, gone, 0).await.expect_err("it holds an instance");
        assert_eq!((refused.kind, refused.code.as_str()), (ErrorKind::InvalidState, "host_in_use"));
        assert!(refused.detail.contains("holds 1 instance"), "{}", refused.detail);
        cloud.delete(web).await;
        cloud.gone(web).await;
        let refused = remove(&cloud, &context, gone, 0).await.expect_err("its agent needs no certificate");
        assert_eq!(refused.code, "host_is_local");
        hosts[0].cut().await;
        eventually("it is shown disconnected", || async {
            let row = cloud.store.host_find(gone).await.expect("readable").expect("registered");
            if row.state == HostState::Disconnected { Ok(()) } else { Err(format!("{:?}", row.state)) }
        })
        .await;
        let generation = cloud.store.host_find(gone).await.expect("readable").expect("registered").generation;
        let stale = remove(&cloud, &context, gone, generation + 1).await.expect_err("another generation");
        assert_eq!(stale.kind, ErrorKind::PreconditionFailed);
        let dry = CallContext { dry_run: true, ..cloud.context() };
        remove(&cloud, &dry, gone, generation).await.expect("a plan");
        assert!(cloud.store.host_find(gone).await.expect("readable").is_some());

        remove(&cloud, &context, gone, generation).await.expect("removed");
        remove(&cloud, &context, gone, generation).await.expect("a repeat gets the first answer");
        let unknown = remove(&cloud, &cloud.context(), gone, 0).await.expect_err("gone");
        assert_eq!(unknown.code, "host_not_found");
        assert_eq!(cloud.store.host_find(gone).await.expect("readable"), None);
        // Nothing is placed on it any more, and the other one goes on.
        let full =
            cloud.try_create(&cloud.context(), cloud.request(&["b"], &cloud.spec())).await.expect_err("cordoned");
        assert_eq!(full.kind, ErrorKind::NoCapacity);
        cloud.cordon(stays, false).await;
        let next = cloud.running("next").await;
        assert_eq!(next.host_id, Some(stays));
        let events = cloud.store.event_of_object(&gone.to_string(), 0, 100).await.expect("readable");
        assert_eq!(events.last().map(|e| e.kind.as_str()), Some("host.remove_accepted"));
        cloud.delete(next.id).await;
        cloud.gone(next.id).await;
        cloud.leaves_nothing().await;
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ca_no_token_is_made() {
    let cloud = Cloud::start(quick()).await;
    let request = pb::CreateHostTokenRequest {
        token_id: domain::HostTokenId::new().to_string(),
        secret_sha256: "00".into(),
        ttl_secs: 60,
        ..Default::default()
    };
    let refused = cloud.client().create_host_token(cloud.context().request(request)).await.expect_err("no CA");
    let problem = from_status(&refused);
    assert_eq!(problem.kind, ErrorKind::InvalidState);
    assert!(problem.detail.contains("no CA"), "{}", problem.detail);
    cloud.stop(vec![]).await;
}
