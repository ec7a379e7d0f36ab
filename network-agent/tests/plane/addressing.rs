//! What guests get: DHCP, advertisements, names, metadata.

use crate::rig::{Lab, TestPort, eventually, group, network, open_rules, root};
use domain::{NetworkId, SecurityGroupId};
use network_agent::{model::state::Wiring, service::dns};
use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    time::Duration,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_real_client_gets_its_lease_and_each_instance_sees_its_own_metadata() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5", "fd00::5"], &[sg]);
    let b = TestPort::new(2, &["10.0.0.6"], &[sg]);
    host.send(&[
        network(net, 100, &["10.0.0.0/24", "fd00::/64"], &[], None),
        group(sg, 1, &open_rules()),
        a.local(net),
        b.local(net),
    ])
    .await;
    host.acquire(&a).await;
    host.acquire(&b).await;
    let (ga, gb) = (lab.guest(&host, net, &a), lab.static_guest(&host, net, &b));
    // A script that does nothing but write down what it got.
    let script = lab.dir.path().join("received.sh");
    let received = lab.dir.path().join("received");
    std::fs::write(&script, format!("#!/bin/sh\n[ \"$1\" = bound ] && env > {}\nexit 0\n", received.display()))
        .expect("written");
    std::os::unix::fs::chown(&script, Some(0), Some(0)).expect("owned");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("runnable");
    let client = format!(
        "busybox udhcpc -i eth0 -f -q -n -t 10 -T 1 -O staticroutes -O mtu -O hostname -s {}",
        script.display()
    );
    ga.must(&client);
    let received = std::fs::read_to_string(received).expect("the client got an answer");
    for line in [
        "ip=10.0.0.5",
        "subnet=255.255.255.0",
        "router=10.0.0.1",
        "dns=10.0.0.1",
        "mtu=1450",
        "hostname=vm1",
        "domain=lab.internal",
        "lease=86400",
    ] {
        assert!(received.lines().any(|l| l == line), "{line} in {received}");
    }
    assert!(received.contains("staticroutes=169.254.169.254/32 10.0.0.1 0.0.0.0/0 10.0.0.1"), "{received}");
    ga.must("ip addr add 10.0.0.5/24 dev eth0");
    ga.must("ip route add default via 10.0.0.1");
    ga.reaches("10.0.0.6");
    // The advertisement makes a default route by the router's link-local address.
    eventually("an advertisement is heeded", || {
        ga.exec("ip -6 route show default").1.contains("via fe80::5eff:fe00:1 dev eth0 proto ra")
    });
    let routes = ga.exec("ip -6 route").1;
    assert!(!routes.contains("fd00::/64"), "the prefix is not on-link: {routes}");
    let ask = |guest: &crate::rig::Guest, request: String| {
        let exchange = move || -> std::io::Result<String> {
            let mut stream = TcpStream::connect("169.254.169.254:80")?;
            stream.write_all(request.as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        crate::rig::inside(&guest.ns, exchange).join().expect("thread").unwrap_or_default()
    };
    let get = |guest: &crate::rig::Guest, path: &str| {
        let text = ask(guest, format!("GET {path} HTTP/1.1\r\nHost: metadata\r\n\r\n"));
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    };
    eventually("the metadata service answers", || !get(&ga, "/").is_empty());
    assert_eq!(get(&ga, "/latest/meta-data/instance-id"), a.instance.to_string());
    assert_eq!(get(&gb, "/latest/meta-data/instance-id"), b.instance.to_string());
    assert_eq!(get(&ga, "/latest/meta-data/public-keys/0/openssh-key"), "ssh-ed25519 vm1");
    assert!(get(&gb, "/openstack/latest/meta_data.json").contains("vm2.lab.internal"));
    assert!(get(&ga, "/nocloud/meta-data").contains("vm1"));
    assert_eq!(get(&gb, "/latest/user-data"), "#!/bin/sh\necho vm2\n");
    // The token-protected form: another's token is no good.
    let token = |guest| {
        let request = "PUT /latest/api/token HTTP/1.1\r\nHost: m\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";
        ask(guest, request.into()).split_once("\r\n\r\n").expect("a token").1.to_owned()
    };
    let with = |token: &str| {
        format!("GET /latest/meta-data/hostname HTTP/1.1\r\nHost: m\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n")
    };
    assert!(ask(&ga, with(&token(&ga))).ends_with("vm1.lab.internal"));
    assert!(ask(&ga, with(&token(&gb))).starts_with("HTTP/1.1 401"));
    let names = crate::rig::inside(&gb.ns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        let ask = |name: &str, kind| {
            socket.send_to(&dns::query(7, name, kind), "10.0.0.1:53").expect("sent");
            let mut buffer = [0; 512];
            let n = socket.recv(&mut buffer).expect("answered");
            buffer[..n].to_vec()
        };
        (ask("vm1.lab.internal", 1), ask("VM1", 28), ask("nobody.lab.internal", 1))
    })
    .join()
    .expect("thread");
    assert!(names.0.ends_with(&[10, 0, 0, 5]) && names.0[3] & 15 == 0, "{:?}", names.0);
    assert!(names.1.ends_with(&"fd00::5".parse::<std::net::Ipv6Addr>().expect("ip").octets()), "{:?}", names.1);
    assert_eq!(names.2[3] & 15, 3, "a name that nobody has");
}
