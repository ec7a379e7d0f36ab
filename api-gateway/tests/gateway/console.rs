//! Consoles: the log, and the live port behind a one-use ticket.

use crate::{
    compute::Cloud,
    harness::{Person, answer},
};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message},
};

/// The ticket's path and query, at the server under test.
pub async fn ticket(cloud: &Cloud, person: &Person) -> String {
    let given = person.post("/v1/instances/web/console-ticket", json!({})).await.expect(201);
    let url = given["url"].as_str().expect("a url");
    assert!(url.starts_with("ws://") && url.ends_with(given["ticket"].as_str().expect("a ticket")), "{given}");
    let path = url.splitn(4, '/').nth(3).expect("a path");
    format!("{}/{path}", cloud.world.base.replace("http://", "ws://"))
}

async fn printed_next(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> String {
    loop {
        match socket.next().await.expect("a message").expect("no error") {
            Message::Binary(bytes) => return String::from_utf8_lossy(&bytes).into_owned(),
            Message::Ping(_) | Message::Pong(_) => {}
            other @ (Message::Text(_) | Message::Close(_) | Message::Frame(_)) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_the_console_once() {
    let cloud = Cloud::start().await;
    let id = cloud.running("web").await["id"].as_str().expect("an id").to_owned();
    let url = ticket(&cloud, &cloud.ann).await;
    let (mut socket, response) = connect_async(&url).await.expect("it opens");
    assert_eq!(response.status().as_u16(), 101);
    let printed = printed_next(&mut socket).await;
    assert_eq!(printed, format!("sim: booting {id}\nsim: up\n"), "what was printed comes first");
    // The simulated guest prints what it is sent.
    socket.send(Message::binary(&b"uname\r"[..])).await.expect("it is sent");
    assert_eq!(printed_next(&mut socket).await, "uname\r");
    // Used up, while the session goes on and after it.
    let refused = connect_async(&url).await.expect_err("used");
    let tungstenite::Error::Http(refused) = refused else { panic!("{refused}") };
    assert_eq!(refused.status().as_u16(), 401);
    socket.close(None).await.expect("it closes");
    while socket.next().await.is_some_and(|m| m.is_ok()) {}
    let path = url.splitn(4, '/').nth(3).expect("a path");
    let over = cloud.world.nobody();
    let again =
        over.http.get(format!("{}/{path}", over.base)).header("connection", "upgrade").header("upgrade", "websocket");
    let again = again.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    answer(again).await.problem(401, "bad_ticket");
    let audit = cloud.admin.get("/v1/audit?limit=1000").await.expect(200);
    assert!(audit.to_string().contains("instance.console"), "who looked is written down");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_one_gateway_opens_one_console_at_any_of_them() {
    let mut cloud = Cloud::start().await;
    cloud.running("web").await;
    let other = cloud.world.another_gateway().await.replace("http://", "ws://");
    let at_other = |url: &str| format!("{other}/{}", url.splitn(4, '/').nth(3).expect("a path"));
    for _ in 0..4 {
        let here = ticket(&cloud, &cloud.ann).await;
        let there = at_other(&here);
        // Both at once, and then each again.
        let (a, b) = tokio::join!(connect_async(&here), connect_async(&there));
        assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
        for used in [&here, &there] {
            let tungstenite::Error::Http(refused) = connect_async(used).await.expect_err("used") else { panic!() };
            assert_eq!(refused.status().as_u16(), 401);
        }
    }
    // An access token is no ticket, and a ticket is no access token. One of an API key ends with the key.
    let base = cloud.world.base.replace("http://", "ws://");
    let url = format!("{base}/v1/console?ticket={}", cloud.ann.token);
    let tungstenite::Error::Http(refused) = connect_async(&url).await.expect_err("no ticket") else { panic!() };
    assert_eq!(refused.status().as_u16(), 401);
    let given = cloud.ann.post("/v1/instances/web/console-ticket", json!({})).await.expect(201);
    let thief = Person { token: given["ticket"].as_str().expect("a ticket").to_owned(), ..cloud.ann.clone() };
    thief.get("/v1/whoami").await.problem(401, "token_invalid");
    let key = cloud.ann.post("/v1/api-keys", json!({"name": "ci", "project": "blue"})).await.expect(201);
    let robot = Person { token: key["secret"].as_str().expect("a secret").to_owned(), ..cloud.ann.clone() };
    let (kept, late) = (ticket(&cloud, &robot).await, ticket(&cloud, &robot).await);
    let (opened, _) = connect_async(at_other(&kept)).await.expect("it opens at the other gateway");
    cloud.ann.delete("/v1/api-keys/ci").await.expect(204);
    connect_async(&late).await.expect_err("the key is gone");
    drop(opened);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_right_can_not_use_the_ticket() {
    let cloud = Cloud::start().await;
    cloud.running("web").await;
    let bo = cloud.world.user(&cloud.admin, "bo", "blue", "member").await;
    let url = ticket(&cloud, &bo).await;
    cloud.admin.put("/v1/projects/blue/members/bo", json!({"role": "reader"})).await.expect(200);
    let refused = connect_async(&url).await.expect_err("no right");
    let tungstenite::Error::Http(refused) = refused else { panic!("{refused}") };
    assert_eq!(refused.status().as_u16(), 401);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_can_not_be_had_is_refused_and_one_that_ends_says_why() {
    let cloud = Cloud::start().await;
    cloud.running("web").await;
    let host = &cloud.hosts[0];
    host.cut().await;
    // There is nobody to ask: an answer with words, and no socket.
    let url = ticket(&cloud, &cloud.ann).await;
    let refused = connect_async(&url).await.expect_err("no host");
    let tungstenite::Error::Http(refused) = refused else { panic!("{refused}") };
    assert_eq!(refused.status().as_u16(), 503);
    cloud.ann.get("/v1/instances/web/console-log").await.problem(503, "host_disconnected");
    host.restart();
    host.connected().await;
    // A stop of the server ends sessions too.
    let url = ticket(&cloud, &cloud.ann).await;
    let (mut socket, _) = connect_async(&url).await.expect("it opens");
    cloud.stop().await;
    let mut last = None;
    while let Some(Ok(message)) = socket.next().await {
        last = Some(message);
    }
    assert!(matches!(last, Some(Message::Close(Some(_)))), "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_on_from_where_it_ended() {
    let cloud = Cloud::start().await;
    let id = cloud.running("web").await["id"].as_str().expect("an id").to_owned();
    let printed = format!("sim: booting {id}\nsim: up\n");
    let log = cloud.ann.get("/v1/instances/web/console-log").await;
    assert_eq!((log.status.as_u16(), log.text.as_str()), (200, printed.as_str()));
    assert!(log.headers["content-type"].to_str().is_ok_and(|t| t.starts_with("text/plain")));
    assert_eq!(log.headers["x-offset"], "0");
    let next = log.headers["x-next-offset"].to_str().expect("digits").to_owned();
    assert_eq!(next, printed.len().to_string());
    let rest = cloud.ann.get("/v1/instances/web/console-log?offset=5").await;
    assert_eq!((rest.text.as_str(), rest.headers["x-offset"].to_str().expect("digits")), (&printed[5..], "5"));
    let nothing = cloud.ann.get(&format!("/v1/instances/web/console-log?offset={next}")).await;
    assert_eq!(
        (nothing.text.as_str(), nothing.headers["x-next-offset"].to_str().expect("digits")),
        ("", next.as_str())
    );
    for query in ["tail_bytes=1&offset=1", "tail_bytes=99999999999", "offset=-1", "follow=maybe"] {
        cloud.ann.get(&format!("/v1/instances/web/console-log?{query}")).await.problem(400, "invalid_argument");
    }
    // Followed, it goes on until the reader hangs up, or the server stops.
    let request = cloud.ann.request(reqwest::Method::GET, "/v1/instances/web/console-log?follow=true&offset=5");
    let mut followed = request.send().await.expect("an answer");
    assert_eq!(followed.headers()["x-offset"], "5");
    assert!(!followed.headers().contains_key("x-next-offset"));
    let chunk = followed.chunk().await.expect("no error").expect("bytes");
    assert_eq!(&chunk[..], &printed.as_bytes()[5..]);
    cloud.stop().await;
    assert!(followed.chunk().await.is_ok_and(|chunk| chunk.is_none()), "a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_right_to_it_also_when_nothing_is_read() {
    let cloud = Cloud::start().await;
    cloud.running("web").await;
    let bo = cloud.world.user(&cloud.admin, "bo", "blue", "member").await;
    let follow = "/v1/instances/web/console-log?follow=true";
    let mut followed = bo.request(reqwest::Method::GET, follow).send().await.expect("an answer");
    let url = ticket(&cloud, &bo).await;
    let (mut reading, _) = connect_async(&url).await.expect("it opens");
    // This one types without reading what comes back, until nothing more is taken.
    let url = ticket(&cloud, &bo).await;
    let (mut stuck, _) = connect_async(&url).await.expect("it opens");
    let flood = async {
        loop {
            stuck.send(Message::binary(vec![b'x'; 64 * 1024])).await.expect("it is sent");
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(3), flood).await.expect_err("it is full");
    // The project's other places are taken by Ann.
    let mut open = Vec::new();
    let refused = loop {
        let response = cloud.ann.request(reqwest::Method::GET, follow).send().await.expect("an answer");
        if response.status() != 200 {
            break response.status().as_u16();
        }
        open.push(response);
    };
    assert_eq!(refused, 429);
    cloud.admin.put("/v1/projects/blue/members/bo", json!({"role": "reader"})).await.expect(200);
    let ended = async {
        while followed.chunk().await.is_ok_and(|chunk| chunk.is_some()) {}
        loop {
            match reading.next().await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    break assert!(frame.reason.contains("no longer allowed"), "{frame}");
                }
                Some(Ok(_)) => {}
                other => panic!("it ended without a reason: {other:?}"),
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ended).await.expect("both end");
    // So does the one that isn't read: all three places are free again.
    crate::harness::eventually("the places of the ended sessions", async || {
        let response = cloud.ann.request(reqwest::Method::GET, follow).send().await.expect("an answer");
        if response.status() == 200 {
            open.push(response);
        }
        (open.len() >= 6).then_some(())
    })
    .await;
    // Neither of them holds up the stop.
    cloud.stop().await;
    drop((stuck, open));
}
