//! Consoles: the caller and the agent meet, talk, and part cleanly.

use crate::cloud::{Cloud, quick};
use domain::{ErrorKind, InstanceId, Problem, instance::InstanceState as S};
use proto::{
    cluster::v1::{self as pb, console_input::Input, console_open::What},
    status::from_status,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

struct Console {
    tx: mpsc::Sender<pb::ConsoleInput>,
    out: Streaming<pb::ConsoleOutput>,
}

async fn open(cloud: &Cloud, id: InstanceId, what: What) -> Result<Console, Problem> {
    let (tx, rx) = mpsc::channel(16);
    let project_id = cloud.project_id.to_string();
    let open = pb::ConsoleOpen { project_id, instance_id: id.to_string(), what: Some(what) };
    tx.send(pb::ConsoleInput { input: Some(Input::Open(open)) }).await.expect("the stream is open");
    let out = cloud.client().console(ReceiverStream::new(rx)).await.map_err(|s| from_status(&s))?.into_inner();
    Ok(Console { tx, out })
}

impl Console {
    async fn reads(&mut self, expected: &str) {
        let mut output_so_far = String::new();
        while !output_so_far.contains(expected) {
            let output =
                self.out.message().await.expect("no error").unwrap_or_else(|| panic!("ended at `{output_so_far}`"));
            output_so_far.push_str(&String::from_utf8_lossy(&output.data));
        }
    }
}

fn log(follow: bool) -> What {
    What::Log(pb::ConsoleLog { offset: None, tail_bytes: 1000, follow })
}

const SERIAL: What = What::Serial(pb::SerialConsole { replay_bytes: 1000 });

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_to_its_end_and_a_serial_port_talks_both_ways() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let id = cloud.running("web").await.id;
    let mut reader = open(&cloud, id, log(false)).await.expect("opened");
    reader.reads("sim: up").await;
    assert!(reader.out.message().await.expect("a clean end").is_none());

    let mut serial = open(&cloud, id, SERIAL).await.expect("opened");
    serial.reads("sim: up").await;
    let mut other = open(&cloud, id, SERIAL).await.expect("two at once");
    for word in ["hello", "world"] {
        let data = Input::Data(word.as_bytes().to_vec().into());
        serial.tx.send(pb::ConsoleInput { input: Some(data) }).await.expect("open");
        serial.reads(word).await;
    }
    other.reads("sim: up").await;
    drop(serial);

    // A follower ends when its host goes away.
    let mut follower = open(&cloud, id, log(true)).await.expect("opened");
    follower.reads("sim: up").await;
    cloud.stop(hosts).await;
    assert!(matches!(follower.out.message().await, Ok(None) | Err(_)), "it ends with the service");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_cannot_be_had_says_why() {
    let mut config = quick();
    (config.console_open_timeout_ms, config.console_sessions_max) = (300, 1);
    let cloud = Cloud::start(config).await;
    let hosts = cloud.hosts(1).await;
    let id = cloud.running("web").await.id;
    let unknown = open(&cloud, InstanceId::new(), log(false)).await.err().expect("unknown");
    assert_eq!(unknown.kind, ErrorKind::NotFound);

    let mut held = open(&cloud, id, SERIAL).await.expect("opened");
    held.reads("sim: up").await;
    let full = open(&cloud, id, SERIAL).await.err().expect("one at most");
    assert_eq!(full.code, "too_many_consoles");
    drop(held);

    hosts[0].set_deaf(true);
    let deaf = crate::cloud::eventually("the slot is free again", || async {
        match open(&cloud, id, SERIAL).await.err().expect("nobody answers") {
            problem if problem.code == "too_many_consoles" => Err(problem.detail),
            problem => Ok(problem),
        }
    })
    .await;
    assert_eq!((deaf.kind, deaf.code.as_str()), (ErrorKind::DeadlineExceeded, "console_timeout"));
    hosts[0].cut().await;
    let away = crate::cloud::eventually("the slot is free again", || async {
        match open(&cloud, id, SERIAL).await.err().expect("nobody is there") {
            problem if problem.code == "host_disconnected" => Ok(problem),
            problem => Err(problem.detail),
        }
    })
    .await;
    assert_eq!(away.kind, ErrorKind::Unavailable);
    assert_eq!(cloud.fetch(id).await.status.state, S::Running);
    cloud.stop(hosts).await;
}
