//! To and from the outside: floating IPs that move between hosts, and networks that are peered.

use super::cloud::{Cloud, until};
use crate::support::guests;
use anyhow::ensure;

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_answers_moves_between_hosts_and_peers_talk() -> anyhow::Result<()> {
    let _guests = guests(2).await;
    let Some(cloud) = Cloud::up("floating IPs between hosts")? else { return Ok(()) };
    cloud.ctl("network create blue --subnet 10.81.0.0/24 --external-network public")?;
    cloud.ctl("security-group create web --allow tcp:80 --allow tcp:22 --allow icmp")?;
    cloud.instance("one", "host1", "--network default,security-group=web")?;
    cloud.instance("two", "host2", "--network blue,security-group=web")?;
    let (mut one, floating) = cloud.shell("one")?;
    until("the floating IP answers", || Ok(cloud.fetch(&floating) == "one"))?;
    // Out by it as well.
    one.run("ping -c 1 -W 10 198.51.100.1")?;

    // Networks that aren't peered don't talk, those that are do.
    let two = cloud.address("two", true)?;
    let reach = format!("ping -c 1 -W 2 {two}");
    ensure!(!one.can(&reach)?, "networks talk without a peering");
    cloud.ctl("peering create both default blue")?;
    until("peers talk", || one.can(&reach))?;
    cloud.ctl("peering delete both")?;
    until("the peering has ended", || Ok(!one.can(&reach)?))?;
    drop(one);

    cloud.ctl(&format!("floating-ip associate {floating} --instance two"))?;
    let took = until("the floating IP answers from the other host", || Ok(cloud.fetch(&floating) == "two"))?;
    println!(
        "measured: a floating IP answered from the other host {} ms after the call was answered",
        took.as_millis()
    );
    cloud.ctl(&format!("floating-ip dissociate {floating}"))?;
    until("it answers no more", || Ok(cloud.fetch(&floating).is_empty()))?;
    cloud.ctl(&format!("floating-ip delete {floating}"))?;

    // All of it goes, and the hosts keep nothing of it.
    cloud.ctl("instance delete one two --wait deleted --timeout 90s")?;
    for host in ["host1", "host2"] {
        until("the hosts' namespaces are gone", || {
            Ok(cloud.lab.sh(host, "ip netns list | grep -c iaas- || true")?.trim() == "0")
        })?;
    }
    cloud.lab.down()
}
