//! Tests the hub with a socket that stands in for QEMU's chardev; `tests/vm` tests it with the real one.

use tokio::net::UnixListener;

use super::*;

const SOON: Duration = Duration::from_secs(5);

struct Serial {
    _dir: tempfile::TempDir,
    listener: UnixListener,
    hub: ConsoleHub,
}

fn serial() -> Serial {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("serial");
    let listener = UnixListener::bind(&socket).expect("bound");
    let socket = QemuSocket::new(socket, rustix::process::geteuid().as_raw());
    let hub = ConsoleHub::start(socket, ConsoleLog::new(dir.path().join("log")), 1 << 20);
    Serial { _dir: dir, listener, hub }
}

impl Serial {
    async fn accept(&self) -> UnixStream {
        tokio::time::timeout(SOON, self.listener.accept()).await.expect("in time").expect("accepted").0
    }
}

async fn collect(watcher: &mut Watcher, until: &[u8]) -> (Vec<u8>, u64) {
    let (mut output, mut skipped) = (vec![], 0);
    while !output.ends_with(until) {
        match tokio::time::timeout(SOON, watcher.next()).await.expect("in time").expect("open") {
            Output::Data(bytes) => output.extend_from_slice(&bytes),
            Output::Skipped(pieces) => skipped += pieces,
        }
    }
    (output, skipped)
}

#[tokio::test]
async fn all_watchers_see_all_and_anyone_can_type() {
    let serial = serial();
    let (mut a, mut b) = (serial.hub.watch(), serial.hub.watch());
    let mut guest = serial.accept().await;
    guest.write_all(b"login: ").await.expect("written");
    assert_eq!(collect(&mut a, b": ").await, (b"login: ".to_vec(), 0));
    assert_eq!(collect(&mut b, b": ").await, (b"login: ".to_vec(), 0));
    serial.hub.write(Bytes::from_static(b"root\n")).await.expect("typed");
    let mut typed = [0; 5];
    tokio::time::timeout(SOON, guest.read_exact(&mut typed)).await.expect("in time").expect("read");
    assert_eq!(&typed, b"root\n");
}

#[tokio::test]
async fn a_slow_watcher_is_told_what_it_missed_and_holds_nobody_up() {
    let serial = serial();
    let (mut slow, mut quick) = (serial.hub.watch(), serial.hub.watch());
    let mut guest = serial.accept().await;
    let total = 4 << 20;
    let (sent, (output, skipped)) = tokio::join!(
        async {
            tokio::time::timeout(SOON, async {
                guest.write_all(&vec![b'x'; total]).await?;
                guest.write_all(b"\nend").await
            })
            .await
        },
        collect(&mut quick, b"\nend")
    );
    sent.expect("the guest is never held up").expect("written");
    assert!(output.len() as u64 + skipped * READ_BYTES as u64 >= total as u64);
    let (output, skipped) = collect(&mut slow, b"\nend").await;
    assert!(skipped > 0 && output.len() < total, "{skipped} skipped, {} output", output.len());
}

#[tokio::test]
async fn the_up_line_is_reported_once_per_boot_across_a_lost_connection() {
    let serial = serial();
    let mut up = serial.hub.guest_up();
    let mut guest = serial.accept().await;
    guest.write_all(b"iaas-guest: up a 1.5\r\niaas-guest: up b 2\r\n").await.expect("written");
    let output =
        tokio::time::timeout(SOON, up.wait_for(Option::is_some)).await.expect("in time").expect("open").clone();
    assert_eq!(output, Some(GuestUp { hostname: "a".into(), uptime_seconds: 1.5 }));
    drop(guest);
    serial.hub.rearm();
    let mut guest = serial.accept().await;
    guest.write_all(b"iaas-guest: up c 3\n").await.expect("written");
    let output =
        tokio::time::timeout(SOON, up.wait_for(Option::is_some)).await.expect("in time").expect("open").clone();
    assert_eq!(output.expect("some").hostname, "c");
}

#[tokio::test]
async fn dropping_the_hub_closes_the_connection() {
    let serial = serial();
    let mut guest = serial.accept().await;
    drop(serial.hub);
    let end = tokio::time::timeout(SOON, guest.read(&mut [0; 8])).await.expect("in time");
    assert!(matches!(end, Ok(0) | Err(_)));
}
