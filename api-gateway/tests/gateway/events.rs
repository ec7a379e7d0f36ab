//! The event stream: resumable without loss, for those who may see.

use crate::harness::{Person, World, key};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);

struct Stream {
    response: reqwest::Response,
    buffer: String,
    last_id: Option<String>,
}

#[derive(Debug)]
struct Message {
    id: String,
    event: String,
    data: Value,
}

async fn open(person: &Person, query: &str, last_id: Option<&str>) -> Stream {
    let mut request = person.request(Method::GET, &format!("/v1/events{query}"));
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    let response = request.send().await.expect("the stream opens");
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    Stream { response, buffer: String::new(), last_id: None }
}

impl Stream {
    /// The next block with data; blocks with only an id move `last_id`. `None`: the stream ended.
    async fn next(&mut self) -> Option<Message> {
        loop {
            while let Some(end) = self.buffer.find("\n\n") {
                let block: String = self.buffer.drain(..end + 2).collect();
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    block.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
                };
                if let Some(id) = field("id") {
                    self.last_id = Some(id);
                }
                if let Some(data) = field("data") {
                    let data = serde_json::from_str(&data).expect("JSON");
                    return Some(Message {
                        id: field("id").expect("an id"),
                        event: field("event").expect("a kind"),
                        data,
                    });
                }
            }
            let chunk = tokio::time::timeout(TIMEOUT, self.response.chunk()).await.expect("something comes");
            match chunk {
                Ok(Some(bytes)) => self.buffer.push_str(std::str::from_utf8(&bytes).expect("UTF-8")),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Reads until the stream has said from where it starts.
    async fn started(&mut self) -> String {
        while !self.buffer.contains("\n\n") {
            let chunk = tokio::time::timeout(TIMEOUT, self.response.chunk()).await.expect("something comes");
            self.buffer.push_str(std::str::from_utf8(&chunk.expect("a chunk").expect("bytes")).expect("UTF-8"));
        }
        self.buffer.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id").to_owned()
    }
}

async fn make(person: &Person, project: &str, name: &str) {
    let path = format!("/v1/ssh-keys?project={project}");
    person.post(&path, json!({"name": name, "public_key": key(name)})).await.expect(201);
}

fn name_of(message: &Message) -> &str {
    message.data["data"]["name"].as_str().unwrap_or("?")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_back_has_missed_nothing() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let mut stream = open(&admin, "?project=blue", None).await;
    let mut resume = stream.started().await;
    let mut observed: Vec<String> = Vec::new();
    // Writers go on all the time; the reader is cut off again and again, between any two events.
    let writer = tokio::spawn({
        let admin = admin.clone();
        async move {
            for i in 0..60 {
                make(&admin, "blue", &format!("k{i}")).await;
            }
        }
    });
    let mut cut_after = 1;
    'all: loop {
        for _ in 0..cut_after {
            let message = stream.next().await.expect("an event");
            assert_eq!(message.event, "ssh_key.created");
            assert_eq!(message.data["id"].to_string(), message.id);
            resume = message.id.clone();
            observed.push(name_of(&message).to_owned());
            if observed.len() == 60 {
                break 'all;
            }
        }
        cut_after = cut_after % 5 + 1;
        stream = open(&admin, "?project=blue", Some(&resume)).await;
    }
    writer.await.expect("the writer is done");
    let expected: Vec<String> = (0..60).map(|i| format!("k{i}")).collect();
    assert_eq!(observed, expected, "each once, in order");
    // From a number, by the parameter.
    let mut again =
        open(&admin, &format!("?project=blue&after={}", resume.parse::<i64>().expect("a number") - 1), None).await;
    assert_eq!(name_of(&again.next().await.expect("the last one")), "k59");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_server_and_goes_on_with_the_next() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let mut stream = open(&admin, "", None).await;
    make(&admin, "blue", "before").await;
    let first = stream.next().await.expect("an event");
    assert_eq!(name_of(&first), "before");
    make(&admin, "blue", "unseen").await;
    // Draining ends the stream: the stop doesn't wait for it.
    let world = world.restart().await;
    let admin = world.admin().await;
    make(&admin, "blue", "after").await;
    let mut stream = open(&admin, "", Some(&first.id)).await;
    assert_eq!(name_of(&stream.next().await.expect("an event")), "unseen");
    assert_eq!(name_of(&stream.next().await.expect("an event")), "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_id_is_reset() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let mut stream = open(&admin, "?after=999999", None).await;
    let reset = stream.next().await.expect("a message");
    assert_eq!(reset.event, "reset");
    make(&admin, "blue", "next").await;
    assert_eq!(name_of(&stream.next().await.expect("an event")), "next");
    // Past retention.
    let expire = store::EventExpire { before: domain::Timestamp::now().plus_secs(60) };
    world.store.commit(store::Unit::new().op(expire)).await.expect("expired");
    let mut stream = open(&admin, "", Some("1")).await;
    assert_eq!(stream.next().await.expect("a message").event, "reset");
    // The newest id is known although its event is gone: nothing was missed.
    make(&admin, "blue", "newer").await;
    let head = world.store.event_head().await.expect("head").1;
    let mut stream = open(&admin, &format!("?after={}", head - 1), None).await;
    assert_eq!(name_of(&stream.next().await.expect("an event")), "newer");
    admin.get("/v1/events?after=x").await.problem(400, "invalid_argument");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_their_own() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    world.project(&admin, "red").await;
    let ann = world.user(&admin, "ann", "blue", "reader").await;
    let mut hers = open(&ann, "", None).await;
    let mut all = open(&admin, "", None).await;
    make(&admin, "red", "hidden").await;
    admin
        .post("/v1/flavors", json!({"name": "of-the-system", "vcpus": 1, "memory_mib": 128, "disk_gib": 0}))
        .await
        .expect(201);
    make(&admin, "blue", "shown").await;
    assert_eq!(name_of(&hers.next().await.expect("an event")), "shown");
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(name_of(&all.next().await.expect("an event")).to_owned());
    }
    assert_eq!(names, ["hidden", "of-the-system", "shown"]);
    ann.get("/v1/events?project=red").await.problem(404, "project_not_found");
    ann.get("/v1/events?all_projects=true").await.problem(403, "permission_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded() {
    let world = World::start_with(|c| c.api.max_event_streams = 1).await;
    let admin = world.admin().await;
    let mut first = open(&admin, "", None).await;
    first.started().await;
    admin.get("/v1/events").await.problem(429, "too_many_streams");
}
