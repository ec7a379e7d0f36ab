use super::*;

fn put(inventory: &mut Inventory, host: u128, vcpus: u32, class: Option<u8>) -> InstanceId {
    let id = InstanceId::new();
    let host_id = HostId(uuid::Uuid::from_u128(host));
    let request = Request { preemptible: class, ..sized(vcpus, 512, 0) };
    let claim = inventory.find(host_id).expect("known").claim_of(request.size);
    inventory.place_tentatively(id, &Placed::of(host_id, claim), &request);
    id
}

#[test]
fn the_lowest_class_and_the_fewest_are_preempted() {
    let mut inventory =
        Inventory::new(&[host(1, size(4, 8192, 0)), host(2, size(4, 8192, 0)), host(3, size(4, 8192, 0))]);
    put(&mut inventory, 1, 4, Some(5));
    let first = put(&mut inventory, 2, 2, Some(1));
    let second = put(&mut inventory, 2, 2, Some(1));
    put(&mut inventory, 3, 4, None);
    let decision = decide(&mut inventory, &sized(2, 512, 0), NOW);
    assert_eq!(decision.placed, None, "only after they are gone");
    let preemption = decision.preemption.expect("class 1 is preempted");
    assert_eq!((preemption.host_id.0.as_u128(), preemption.preempted), (2, vec![second]), "the newest first");
    let all = decide(&mut inventory, &sized(4, 512, 0), NOW).preemption.expect("both");
    assert_eq!(all.preempted, [second, first]);
    let equal = Request { preemptible: Some(1), ..sized(2, 512, 0) };
    assert_eq!(decide(&mut inventory, &equal, NOW).preemption, None, "a class pushes only lower ones");
    let higher = Request { preemptible: Some(2), ..sized(2, 512, 0) };
    assert!(decide(&mut inventory, &higher, NOW).preemption.is_some());
    assert_eq!(decide(&mut inventory, &sized(8, 512, 0), NOW).preemption, None, "it would not help");
}

#[test]
fn nobody_is_preempted_where_there_is_capacity() {
    let mut inventory = Inventory::new(&[host(1, size(4, 8192, 0)), host(2, size(4, 8192, 0))]);
    put(&mut inventory, 1, 4, Some(0));
    let decision = decide(&mut inventory, &sized(4, 512, 0), NOW);
    assert_eq!((decision.placed.map(|p| p.host_id.0.as_u128()), decision.preemption), (Some(2), None));
}

#[test]
fn capacity_that_is_being_freed_is_promised_once() {
    let mut inventory = Inventory::new(&[host(1, size(4, 8192, 0))]);
    let (low, high) = (put(&mut inventory, 1, 2, Some(1)), put(&mut inventory, 1, 2, Some(2)));
    let request = sized(2, 512, 0);
    let first = decide(&mut inventory, &request, NOW).preemption.expect("the lower class is preempted");
    assert_eq!(first.preempted, [low]);
    inventory.set_being_preempted(&first.preempted, true);
    let again = decide(&mut inventory, &request, NOW).preemption.expect("what is being preempted is enough");
    assert_eq!((again.host_id, again.preempted), (first.host_id, vec![]));
    let held = (InstanceId::new(), Placed::of(first.host_id, first.claim));
    inventory.place_tentatively(held.0, &held.1, &request);
    let second = decide(&mut inventory, &request, NOW).preemption.expect("the next one is preempted");
    assert_eq!(second.preempted, [high], "the first one's capacity is taken");
    inventory.set_being_preempted(&second.preempted, true);
    let beyond = (InstanceId::new(), Placed::of(second.host_id, second.claim));
    inventory.place_tentatively(beyond.0, &beyond.1, &request);
    assert_eq!(decide(&mut inventory, &request, NOW).preemption, None, "nobody is left");
    // An instance that is gone frees its capacity for the holder, and for nobody else.
    let gone = inventory.find(first.host_id).expect("known").claim_of(size(2, 512, 0));
    inventory.release_tentative(first.host_id, gone);
    inventory.remove_instance(low);
    assert_eq!(decide(&mut inventory, &request, NOW).placed, None);
    inventory.release_placement(held.0, &held.1);
    assert_eq!(decide(&mut inventory, &request, NOW).placed, None, "what isn't there yet is held as well");
    inventory.release_placement(beyond.0, &beyond.1);
    assert!(decide(&mut inventory, &request, NOW).placed.is_some());
    // An instance whose preemption failed counts as before.
    inventory.place_tentatively(held.0, &held.1, &request);
    inventory.set_being_preempted(&[high], false);
    assert_eq!(decide(&mut inventory, &request, NOW).preemption.map(|p| p.preempted), Some(vec![high]));
}

#[test]
fn nobody_is_preempted_in_vain() {
    // A large instance of the same class makes two small, newer ones needless.
    let mut inventory = Inventory::new(&[host(1, size(10, 32_768, 0))]);
    let large = put(&mut inventory, 1, 8, Some(1));
    put(&mut inventory, 1, 1, Some(1));
    put(&mut inventory, 1, 1, Some(1));
    let preemption = decide(&mut inventory, &sized(8, 512, 0), NOW).preemption.expect("the large one is preempted");
    assert_eq!(preemption.preempted, [large]);
    // A host that shrank under what it holds needs more than what is requested.
    let mut row = host(1, size(8, 32_768, 0));
    let mut inventory = Inventory::new(std::slice::from_ref(&row));
    for _ in 0..4 {
        put(&mut inventory, 1, 2, Some(1));
    }
    row.capacity = size(4, 32_768, 0);
    inventory.put_host(&row);
    let preemption = decide(&mut inventory, &sized(2, 512, 0), NOW).preemption.expect("three of four");
    assert_eq!(preemption.preempted.len(), 3);
    // A request that must survive its host finds no second host.
    let protected = Request { protected: true, ..sized(2, 512, 0) };
    assert_eq!(decide(&mut inventory, &protected, NOW).preemption, None);
    inventory.put_host(&host(2, size(2, 32_768, 0)));
    let preemption = decide(&mut inventory, &protected, NOW).preemption.expect("the second could restart it");
    assert_eq!((preemption.host_id.0.as_u128(), preemption.preempted.len()), (1, 3));
    // A request for threads of its own preempts nobody.
    let pinned = Request { pinned: true, ..sized(3, 512, 0) };
    assert_eq!(decide(&mut inventory, &pinned, NOW).preemption, None);
}

/// In a full cloud every refused create would otherwise look through all hosts again after each claim of another.
#[test]
fn a_refusal_stands_while_hosts_fill_and_falls_when_one_empties() {
    let mut inventory = Inventory::new(&[host(1, size(4, 8192, 0)), host(2, size(2, 8192, 0))]);
    let (request, host_id) = (sized(8, 512, 0), HostId(uuid::Uuid::from_u128(1)));
    assert_eq!(decide(&mut inventory, &request, NOW).placed, None);
    let claim = inventory.find(host_id).expect("known").claim_of(size(1, 256, 0));
    inventory.claim_tentatively(host_id, claim);
    assert!(inventory.known_refusal(&request).is_some(), "a fuller host takes nothing more");
    inventory.confirm(host_id, claim);
    assert!(inventory.known_refusal(&request).is_some());
    inventory.release(host_id, claim);
    assert!(inventory.known_refusal(&request).is_none(), "a host has more room");
    // Whom to preempt is decided anew: those that were chosen may not be enough any more.
    put(&mut inventory, 2, 2, Some(1));
    let small = Request { preemptible: None, ..sized(4, 512, 0) };
    put(&mut inventory, 1, 4, Some(1));
    assert!(decide(&mut inventory, &small, NOW).preemption.is_some());
    inventory.claim_tentatively(host_id, claim);
    assert!(inventory.known_refusal(&small).is_none());
}
