use super::*;

fn put(inventory: &mut Inventory, host: u128, vcpus: u32, class: Option<u8>) -> InstanceId {
    let id = InstanceId::new();
    let host_id = HostId(uuid::Uuid::from_u128(host));
    let request = Request { preemptible: class, ..ask(vcpus, 512, 0) };
    let claim = inventory.find(host_id).expect("known").claim_of(request.size);
    inventory.hold(id, &Placed::of(host_id, claim), &request);
    id
}

#[test]
fn the_lowest_class_and_the_fewest_give_way() {
    let mut inventory =
        Inventory::new(&[host(1, size(4, 8192, 0)), host(2, size(4, 8192, 0)), host(3, size(4, 8192, 0))]);
    put(&mut inventory, 1, 4, Some(5));
    let first = put(&mut inventory, 2, 2, Some(1));
    let second = put(&mut inventory, 2, 2, Some(1));
    put(&mut inventory, 3, 4, None);
    let decision = decide(&mut inventory, &ask(2, 512, 0), NOW);
    assert_eq!(decision.placed, None, "only after they are gone");
    let preemption = decision.preemption.expect("class 1 gives way");
    assert_eq!((preemption.host_id.0.as_u128(), preemption.gives_way), (2, vec![second]), "the newest first");
    let all = decide(&mut inventory, &ask(4, 512, 0), NOW).preemption.expect("both");
    assert_eq!(all.gives_way, [second, first]);
    let equal = Request { preemptible: Some(1), ..ask(2, 512, 0) };
    assert_eq!(decide(&mut inventory, &equal, NOW).preemption, None, "a class pushes only lower ones");
    let higher = Request { preemptible: Some(2), ..ask(2, 512, 0) };
    assert!(decide(&mut inventory, &higher, NOW).preemption.is_some());
    assert_eq!(decide(&mut inventory, &ask(8, 512, 0), NOW).preemption, None, "it would not help");
}

#[test]
fn nobody_gives_way_where_there_is_room() {
    let mut inventory = Inventory::new(&[host(1, size(4, 8192, 0)), host(2, size(4, 8192, 0))]);
    put(&mut inventory, 1, 4, Some(0));
    let decision = decide(&mut inventory, &ask(4, 512, 0), NOW);
    assert_eq!((decision.placed.map(|p| p.host_id.0.as_u128()), decision.preemption), (Some(2), None));
}
