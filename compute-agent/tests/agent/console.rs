//! Tests of console sessions: the agent calls back, and bytes go both ways.

use crate::rig::{Host, TestInstance};
use proto::cluster::v1::{ConsoleLog, InstanceState as S, Power, SerialConsole, console_open::What};

fn log(offset: Option<u64>, tail_bytes: u64, follow: bool) -> What {
    What::Log(ConsoleLog { offset, tail_bytes, follow })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_serial_port_is_live_both_ways_and_the_log_is_kept_and_followed() {
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "talks");
    host.reach(&instance, S::Running).await;
    host.guest_up(&instance, 0).await;

    let mut serial = host.manager.console(&instance.id(), What::Serial(SerialConsole { replay_bytes: 4096 })).await;
    serial.until_output("iaas-guest: up talks").await;
    let mut follower = host.manager.console(&instance.id(), log(Some(0), 0, true)).await;
    follower.until_output("iaas-guest: up talks").await;
    serial.type_in("echo it-is-$((6*7))\n").await;
    serial.until_output("it-is-42").await;
    follower.until_output("it-is-42").await;
    let offsets: Vec<u64> = follower.outputs.iter().map(|o| o.next_offset).collect();
    assert!(offsets.is_sorted() && follower.outputs.iter().all(|o| !o.truncated), "{offsets:?}");
    let sum: usize = follower.outputs.iter().map(|o| o.data.len()).sum();
    assert_eq!(offsets.last().copied(), Some(sum as u64), "offsets count from the first byte");

    let mut tail = host.manager.console(&instance.id(), log(None, 64, false)).await;
    while tail.next().await.expect("no error").is_some() {}
    let tailed = String::from_utf8_lossy(&tail.output).into_owned();
    assert!(tail.output.len() <= 64 && !tail.output.is_empty(), "{tailed:?} {:?}", tail.outputs);
    let from = offsets[0];
    let mut rest = host.manager.console(&instance.id(), log(Some(from), 0, false)).await;
    while rest.next().await.expect("no error").is_some() {}
    assert!(rest.output.starts_with(&follower.output[from as usize..]));

    // Down, its log is still there; its serial port isn't.
    instance.spec().stop_timeout_secs = 0;
    host.reach(instance.power(Power::Off), S::Stopped).await;
    let mut kept = host.manager.console(&instance.id(), log(Some(0), 0, false)).await;
    while kept.next().await.expect("no error").is_some() {}
    assert!(kept.output.starts_with(&follower.output));
    assert!(kept.output.windows(tail.output.len()).any(|part| part == tail.output));
    let mut refused = host.manager.console(&instance.id(), What::Serial(SerialConsole { replay_bytes: 0 })).await;
    assert!(refused.next().await.expect_err("refused").contains("not running"));
    let mut unknown = host.manager.console(&uuid::Uuid::now_v7().to_string(), log(None, 0, false)).await;
    assert!(unknown.next().await.expect_err("refused").contains("not on this host"));
}
