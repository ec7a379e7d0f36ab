//! The allocator against the plainest one that could be: a set of all addresses.

use super::{Ipam, Pool, Refusal, Use};
use domain::{Timestamp, network::SubnetSpec};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use uuid::Uuid;

const SCOPE: Uuid = Uuid::nil();

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn spec(cidr: &str, gateway: &str, ranges: &[&str]) -> SubnetSpec {
    SubnetSpec {
        cidr: cidr.parse().expect("a CIDR"),
        gateway: ip(gateway),
        dns: vec![],
        allocation: ranges.iter().map(|range| range.parse().expect("a range")).collect(),
        host_routes: vec![],
    }
}

fn at(secs: u64) -> Timestamp {
    Timestamp(0).plus_secs(secs)
}

fn ipam(spec: &SubnetSpec) -> Ipam {
    let mut ipam = Ipam::default();
    ipam.put_pool(SCOPE, None, spec);
    ipam
}

#[test]
fn any_address_is_the_next_one_and_a_used_one_comes_last() {
    let mut ipam = ipam(&spec("10.0.0.0/29", "10.0.0.1", &[]));
    let any = |ipam: &mut Ipam, now| ipam.claim_any(SCOPE, |_| true, now).map(|(_, address)| address);
    assert_eq!(any(&mut ipam, at(0)), Ok(ip("10.0.0.2")));
    assert_eq!(any(&mut ipam, at(0)), Ok(ip("10.0.0.3")));
    ipam.release((SCOPE, ip("10.0.0.2")));
    assert_eq!(any(&mut ipam, at(0)), Ok(ip("10.0.0.4")), "not the one that just came back");
    ipam.hold((SCOPE, ip("10.0.0.3")));
    ipam.quarantine((SCOPE, ip("10.0.0.3")), at(60));
    assert_eq!(any(&mut ipam, at(0)), Ok(ip("10.0.0.5")));
    assert_eq!(any(&mut ipam, at(0)), Ok(ip("10.0.0.6")));
    assert_eq!(any(&mut ipam, at(0)), Ok(ip("10.0.0.2")), "around");
    assert_eq!(any(&mut ipam, at(59)), Err(Refusal::Full { next: Some(at(60)) }));
    assert_eq!(any(&mut ipam, at(60)), Ok(ip("10.0.0.3")));
    assert_eq!(any(&mut ipam, at(99)), Err(Refusal::Full { next: None }));
}

#[test]
fn a_given_address_is_had_or_it_is_said_why_not() {
    let mut ipam = ipam(&spec("10.0.0.0/24", "10.0.0.1", &["10.0.0.10-10.0.0.12"]));
    let mut claim = |address: &str, now| ipam.claim((SCOPE, ip(address)), now);
    assert_eq!(claim("10.0.0.5", at(0)), Ok(None), "outside of the ranges is for those who ask by name");
    assert_eq!(claim("10.0.0.5", at(0)), Err(Refusal::Taken));
    assert_eq!(claim("10.0.0.1", at(0)), Err(Refusal::Gateway));
    assert_eq!(claim("10.0.0.0", at(0)), Err(Refusal::NotForHosts));
    assert_eq!(claim("10.0.0.255", at(0)), Err(Refusal::NotForHosts));
    assert_eq!(claim("10.0.1.5", at(0)), Err(Refusal::Outside));
    assert_eq!(claim("fd00::5", at(0)), Err(Refusal::Outside));
    assert_eq!(claim("10.0.0.11", at(0)), Ok(None));
    ipam.quarantine((SCOPE, ip("10.0.0.5")), at(60));
    assert_eq!(ipam.claim((SCOPE, ip("10.0.0.5")), at(59)), Err(Refusal::Quarantined { until: at(60) }));
    assert_eq!(ipam.claim((SCOPE, ip("10.0.0.5")), at(60)), Ok(None));
    assert_eq!(ipam.pools(SCOPE)[0].free(), 2, "10.0.0.10 and 10.0.0.12");
}

#[test]
fn an_untouched_block_of_ipv6_costs_nothing() {
    let mut ipam = ipam(&spec("fd00::/32", "fd00::1", &[]));
    assert_eq!(ipam.pools(SCOPE)[0].free(), (1 << 96) - 2, "all but the anycast address and the gateway");
    let claimed: BTreeSet<IpAddr> =
        (0..1000).map(|_| ipam.claim_any(SCOPE, |_| true, at(0)).expect("free").1).collect();
    assert_eq!(claimed.len(), 1000);
    assert!(claimed.contains(&ip("fd00::2")) && !claimed.contains(&ip("fd00::1")));
    assert_eq!(ipam.claim((SCOPE, ip("fd00:0:ffff:ffff:ffff:ffff:ffff:ffff")), at(0)), Ok(None), "no broadcast there");
}

#[test]
fn other_ranges_leave_what_is_used() {
    let mut ipam = ipam(&spec("10.0.0.0/24", "10.0.0.1", &["10.0.0.10-10.0.0.19"]));
    for _ in 0..3 {
        let (_, address) = ipam.claim_any(SCOPE, |_| true, at(0)).expect("free");
        ipam.hold((SCOPE, address));
    }
    ipam.put_pool(SCOPE, None, &spec("10.0.0.0/24", "10.0.0.1", &["10.0.0.12-10.0.0.14", "10.0.0.15-10.0.0.16"]));
    let pool = &ipam.pools(SCOPE)[0];
    pool.check();
    assert_eq!(pool.free(), 4);
    assert_eq!(ipam.used((SCOPE, ip("10.0.0.10"))), Some(Use::Held));
    ipam.set((SCOPE, ip("10.0.0.10")), None);
    assert_eq!(ipam.pools(SCOPE)[0].free(), 4, "it is of no range any more");
    assert_eq!(ipam.held(SCOPE).count(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Any,
    Given(u8),
    Hold(u8),
    GiveBack(u8),
    Rest(u8, u8),
    Pass(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Any),
        2 => any::<u8>().prop_map(Step::Given),
        3 => any::<u8>().prop_map(Step::Hold),
        2 => any::<u8>().prop_map(Step::GiveBack),
        3 => (any::<u8>(), 0u8..20).prop_map(|(at, secs)| Step::Rest(at, secs)),
        2 => (0u8..10).prop_map(Step::Pass),
    ]
}

/// Every address, and what it is.
struct Naive {
    usable: BTreeSet<IpAddr>,
    ranges: BTreeSet<IpAddr>,
    used: BTreeMap<IpAddr, Use>,
}

impl Naive {
    fn free(&self, address: IpAddr, now: Timestamp) -> bool {
        match self.used.get(&address) {
            None => true,
            Some(Use::Quarantined(until)) => *until <= now,
            Some(Use::Claimed | Use::Held) => false,
        }
    }
}

fn nth(v4: bool, n: u8) -> IpAddr {
    if v4 { IpAddr::from([10, 0, 0, n]) } else { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)]) }
}

proptest! {
    #[test]
    fn it_gives_what_the_naive_one_would(v4 in any::<bool>(), steps in proptest::collection::vec(step(), 1..400)) {
        // 32 addresses of which ranges hold 18; the gateway is inside one of them.
        let spec = if v4 {
            spec("10.0.0.0/27", "10.0.0.7", &["10.0.0.3-10.0.0.12", "10.0.0.13-10.0.0.15", "10.0.0.20-10.0.0.24"])
        } else {
            spec("fd00::/112", "fd00::7", &["fd00::3-fd00::c", "fd00::d-fd00::f", "fd00::14-fd00::18"])
        };
        let usable: BTreeSet<IpAddr> = (1..31).filter(|n| *n != 7).map(|n| nth(v4, n)).collect();
        let in_ranges = |n: &u8| (3..=15).contains(n) || (20..=24).contains(n);
        let ranges = (1..31).filter(in_ranges).map(|n| nth(v4, n)).filter(|a| usable.contains(a)).collect();
        let mut naive = Naive { usable, ranges, used: BTreeMap::new() };
        let mut ipam = ipam(&spec);
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Any => match ipam.claim_any(SCOPE, |_| true, now) {
                    Ok((_, address)) => {
                        prop_assert!(naive.ranges.contains(&address) && naive.free(address, now), "{address}");
                        naive.used.insert(address, Use::Claimed);
                    }
                    Err(Refusal::Full { .. }) => {
                        prop_assert!(naive.ranges.iter().all(|address| !naive.free(*address, now)));
                    }
                    Err(other) => prop_assert!(false, "{other:?}"),
                },
                Step::Given(n) => {
                    let address = nth(v4, n % 32);
                    let may = naive.usable.contains(&address) && naive.free(address, now);
                    // There is no broadcast address in IPv6, and the naive one knows only 31.
                    if n % 32 != 31 {
                        let claimed = ipam.claim((SCOPE, address), now);
                        prop_assert_eq!(claimed.is_ok(), may, "{}: {:?}", address, claimed);
                        if may {
                            naive.used.insert(address, Use::Claimed);
                        }
                    }
                }
                Step::Hold(n) => {
                    let address = nth(v4, n % 32);
                    if naive.used.get(&address) == Some(&Use::Claimed) {
                        ipam.hold((SCOPE, address));
                        naive.used.insert(address, Use::Held);
                    }
                }
                Step::GiveBack(n) => {
                    let address = nth(v4, n % 32);
                    ipam.release((SCOPE, address));
                    if naive.used.get(&address) == Some(&Use::Claimed) {
                        naive.used.remove(&address);
                    }
                }
                Step::Rest(n, secs) => {
                    let (address, until) = (nth(v4, n % 32), now.plus_secs(u64::from(secs)));
                    if naive.used.get(&address) == Some(&Use::Held) {
                        ipam.quarantine((SCOPE, address), until);
                        naive.used.insert(address, Use::Quarantined(until));
                    }
                }
                Step::Pass(secs) => now = now.plus_secs(u64::from(secs)),
            }
            ipam.pools(SCOPE).iter().for_each(Pool::check);
        }
        let held: BTreeSet<IpAddr> = ipam.held(SCOPE).map(|(_, address)| address).collect();
        let expected = naive.used.iter().filter(|(_, used)| **used == Use::Held).map(|(address, _)| *address);
        prop_assert_eq!(held, expected.collect::<BTreeSet<IpAddr>>());
    }
}
