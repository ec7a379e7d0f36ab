//! What guests are answered.

use super::{port_id, view};
use crate::service::{
    dhcp4, dhcp6,
    dns::{self, Answer},
    metadata, router,
};
use dhcproto::{v4, v6};

#[test]
fn dhcp_gives_the_ports_address_and_refuses_others() {
    let view = view();
    let port = view.in_use().next().expect("a port in use").1.clone();
    assert_eq!(port.id, port_id(5));
    let request = |kind, address: Option<&str>| {
        let mut message = v4::Message::default();
        message.set_chaddr(&port.mac.0).set_xid(7);
        message.opts_mut().insert(v4::DhcpOption::MessageType(kind));
        if let Some(address) = address {
            message.opts_mut().insert(v4::DhcpOption::RequestedIpAddress(address.parse().expect("ip")));
        }
        message
    };
    let kind_of = |message: &v4::Message| match message.opts().get(v4::OptionCode::MessageType) {
        Some(v4::DhcpOption::MessageType(kind)) => *kind,
        other => panic!("{other:?}"),
    };
    let (offer, gateway) =
        dhcp4::answer(&view.network, &port, &request(v4::MessageType::Discover, None)).expect("offer");
    assert_eq!(
        (kind_of(&offer), offer.yiaddr().to_string(), gateway.to_string()),
        (v4::MessageType::Offer, "10.0.0.5".into(), "10.0.0.1".into())
    );
    let (ack, _) =
        dhcp4::answer(&view.network, &port, &request(v4::MessageType::Request, Some("10.0.0.5"))).expect("ack");
    assert_eq!((kind_of(&ack), ack.xid()), (v4::MessageType::Ack, 7));
    let (nak, _) =
        dhcp4::answer(&view.network, &port, &request(v4::MessageType::Request, Some("10.0.0.9"))).expect("nak");
    assert_eq!(kind_of(&nak), v4::MessageType::Nak);
    let mut foreign = request(v4::MessageType::Discover, None);
    foreign.set_chaddr(&[2, 9, 9, 9, 9, 9]);
    assert!(dhcp4::answer(&view.network, &port, &foreign).is_none(), "another MAC behind the port");
}

#[test]
fn dhcp6_gives_the_ports_address_and_ends_what_isnt_its() {
    let view = view();
    let port = view.in_use().next().expect("a port in use").1.clone();
    let mut solicit = v6::Message::new_with_id(v6::MessageType::Solicit, [1, 2, 3]);
    solicit.opts_mut().insert(v6::DhcpOption::ClientId(vec![0, 3, 0, 1, 2, 0, 0, 0, 1, 5]));
    let mut wrong = v6::DhcpOptions::new();
    wrong.insert(v6::DhcpOption::IAAddr(v6::IAAddr {
        addr: "fd00::99".parse().expect("ip"),
        preferred_life: 1,
        valid_life: 1,
        opts: v6::DhcpOptions::new(),
    }));
    solicit.opts_mut().insert(v6::DhcpOption::IANA(v6::IANA { id: 4, t1: 0, t2: 0, opts: wrong }));
    let reply = dhcp6::answer(&view.network, &port, &solicit).expect("an advertisement");
    assert_eq!((reply.msg_type(), reply.xid()), (v6::MessageType::Advertise, [1, 2, 3]));
    let Some(v6::DhcpOption::IANA(iana)) = reply.opts().get(v6::OptionCode::IANA) else { panic!("an address") };
    let mut given: Vec<(String, bool)> = iana
        .opts
        .iter()
        .filter_map(
            |o| if let v6::DhcpOption::IAAddr(a) = o { Some((a.addr.to_string(), a.valid_life > 0)) } else { None },
        )
        .collect();
    given.sort();
    assert_eq!(given, [("fd00::5".to_owned(), true), ("fd00::99".to_owned(), false)]);
}

#[test]
fn an_advertisement_says_router_mtu_and_an_off_link_prefix() {
    let view = view();
    let bytes = router::advertisement(&view.network, None);
    assert_eq!((bytes[0], bytes[5]), (134, 0xc0));
    let prefix = bytes.windows(4).position(|w| w == [3, 4, 64, 0]).expect("a prefix without flags");
    assert_eq!(bytes[prefix + 16..prefix + 20], [0xfd, 0, 0, 0]);
    assert!(bytes.windows(8).any(|w| w == [5, 1, 0, 0, 0, 0, 0x05, 0xaa]), "the MTU is 1450");
}

#[test]
fn own_names_are_answered_and_others_forwarded() {
    let view = view();
    let Answer::Ours(bytes) = dns::answer(&view, &dns::query(1, "VM7.p.internal", 1)) else { panic!("ours") };
    assert!(bytes.ends_with(&[10, 0, 0, 7]), "also of instances elsewhere");
    let Answer::Ours(bytes) = dns::answer(&view, &dns::query(1, "vm7", 16)) else { panic!("ours") };
    assert_eq!((bytes[3] & 15, bytes[7]), (0, 0), "known, but nothing of that type");
    let Answer::Ours(bytes) = dns::answer(&view, &dns::query(1, "vm9.p.internal", 1)) else { panic!("ours") };
    assert_eq!(bytes[3] & 15, 3);
    assert_eq!(dns::answer(&view, &dns::query(1, "example.org", 1)), Answer::Forward);
    assert_eq!(dns::answer(&view, &dns::query(1, "evilp.internal", 1)), Answer::Forward);
    for cut in 0..29 {
        assert_eq!(dns::answer(&view, &dns::query(1, "vm7.p.internal", 1)[..cut]), Answer::Nothing, "{cut}");
    }
}

#[test]
fn metadata_has_the_shapes_that_cloud_init_asks_for() {
    let view = view();
    let port = view.in_use().next().expect("a port in use").1.clone();
    let get =
        |path: &str| metadata::document(&view, &port, path).map(|(body, _)| String::from_utf8(body).expect("text"));
    let id = port.instance().expect("bound").to_string();
    assert_eq!(get("/2009-04-04/meta-data/instance-id"), Some(id.clone()));
    assert_eq!(get("/latest/meta-data/public-ipv4").as_deref(), Some("203.0.113.50"));
    assert_eq!(get("/latest/meta-data/public-keys/"), Some("0=me".into()));
    assert_eq!(get("/latest/user-data"), None, "none was given");
    assert_eq!(get("/nocloud/user-data").as_deref(), Some(""), "NoCloud wants the file");
    let openstack: serde_json::Value =
        serde_json::from_str(&get("/openstack/latest/meta_data.json").expect("there")).expect("JSON");
    assert_eq!(
        (openstack["uuid"].as_str(), openstack["hostname"].as_str()),
        (Some(id.as_str()), Some("vm5.p.internal"))
    );
    assert_eq!(get("/latest/meta-data/nothing"), None);
}
