//! Tests the client with a peer that misbehaves in every way in which QEMU could; `tests/vm` tests it with a real QEMU.

use tokio::io::{AsyncBufReadExt, BufReader, Lines};

use super::*;

const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 10}}, \"capabilities\": []}}\r\n";
const SOON: Duration = Duration::from_secs(5);

struct Peer {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Peer {
    async fn send(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).await.expect("the client listens");
    }

    /// Receives the next command's name and id.
    async fn receive(&mut self) -> (String, u64) {
        let line = self.lines.next_line().await.expect("readable").expect("a command");
        let value: Value = serde_json::from_str(&line).expect("JSON");
        (value["execute"].as_str().expect("a name").into(), value["id"].as_u64().expect("an id"))
    }
}

async fn pair() -> (QmpClient, Peer) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let (read, writer) = theirs.into_split();
    let mut peer = Peer { lines: BufReader::new(read).lines(), writer };
    let (client, ()) = tokio::join!(QmpClient::over(ours, SOON), async {
        peer.send(GREETING).await;
        let (command, id) = peer.receive().await;
        assert_eq!(command, "qmp_capabilities");
        peer.send(&format!("{{\"return\": {{}}, \"id\": {id}}}\n")).await;
    });
    (client.expect("connected"), peer)
}

#[tokio::test]
async fn answers_find_their_commands_out_of_order_and_between_events_and_garbage() {
    let (client, mut peer) = pair().await;
    let mut events = client.events();
    let (first, second, ()) = tokio::join!(
        client.execute("first", Value::Null, SOON),
        client.execute("second", json!({"x": 1}), SOON),
        async {
            let (a, a_id) = peer.receive().await;
            let (b, b_id) = peer.receive().await;
            let ids = if a == "first" { (a_id, b_id) } else { (b_id, a_id) };
            assert!([a.as_str(), b.as_str()].contains(&"second"));
            peer.send("not json\n{\"event\": \"UNKNOWN_TO_US\", \"data\": 3}\n{\"return\": 0, \"id\": 4096}\n").await;
            peer.send(&format!(
                "{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"no\"}}, \"id\": {}}}\n",
                ids.1
            ))
            .await;
            peer.send(&format!("{{\"return\": 42, \"id\": {}}}\n", ids.0)).await;
        }
    );
    assert_eq!(first.expect("answered"), json!(42));
    let error = second.expect_err("refused");
    assert!(error.refused());
    assert_eq!(error.to_string(), "QEMU refused second: no (GenericError)");
    assert_eq!(events.recv().await.expect("an event").name, "UNKNOWN_TO_US");
}

#[tokio::test]
async fn a_late_answer_is_dropped_and_the_connection_goes_on() {
    let (client, mut peer) = pair().await;
    let error = client.execute("slow", Value::Null, Duration::from_millis(1)).await.expect_err("too slow");
    assert!(matches!(error, QmpError::Timeout { .. }));
    let (_, slow) = peer.receive().await;
    let (next, ()) = tokio::join!(client.execute("next", Value::Null, SOON), async {
        let (_, next) = peer.receive().await;
        peer.send(&format!("{{\"return\": \"late\", \"id\": {slow}}}\n{{\"return\": \"mine\", \"id\": {next}}}\n"))
            .await;
    });
    assert_eq!(next.expect("answered"), json!("mine"));
    assert!(client.pending().answers.is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn an_end_in_the_middle_of_a_message_wakes_everyone() {
    let (client, mut peer) = pair().await;
    let (answer, ()) = tokio::join!(client.execute("quit", Value::Null, SOON), async {
        let (_, id) = peer.receive().await;
        peer.send(&format!("{{\"return\": {{}}, \"id\": {id}")).await;
        drop(peer);
    });
    assert!(matches!(answer, Err(QmpError::Closed)));
    tokio::time::timeout(SOON, client.closed()).await.expect("noticed");
    assert!(matches!(client.execute("more", Value::Null, SOON).await, Err(QmpError::Closed)));
}

#[tokio::test]
async fn a_peer_that_is_no_qemu_is_recognized() {
    for (says, closes) in [("SSH-2.0-OpenSSH\r\n", false), ("{\"return\": {}}\n", false), ("", true)] {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(says.as_bytes()).await.expect("said");
        let _open = (!closes).then_some(theirs);
        let error = QmpClient::over(ours, SOON).await.expect_err("no QMP");
        assert!(matches!((closes, error), (true, QmpError::Closed) | (false, QmpError::NotQmp { .. })));
    }
    let (ours, _silent) = UnixStream::pair().expect("a pair");
    let error = QmpClient::over(ours, Duration::from_millis(1)).await.expect_err("silence");
    assert!(matches!(error, QmpError::Timeout { .. }));
}
