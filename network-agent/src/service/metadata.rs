//! The metadata service, in the shapes that stock cloud-init asks for: EC2's (with or without a token), OpenStack's and NoCloud's.
//!
//! The source address says who sends the request, which the guard rules let only its own port send from. So an instance sees itself and
//! nobody else, with no secret in between.

use super::{budget::Budget, view::View};
use crate::model::object::{Binding, Metadata, Port};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};

const TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const TOKEN_SECS_MAX: u64 = 21_600;
const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// Makes and knows tokens without keeping any: an expiry and a keyed hash of it and the instance.
struct Tokens {
    secret: [u8; 32],
}

impl Tokens {
    fn new() -> Self {
        let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        let mut secret = [0; 32];
        secret[..16].copy_from_slice(a.as_bytes());
        secret[16..].copy_from_slice(b.as_bytes());
        Self { secret }
    }

    fn sign(&self, instance: &str, expires_ms: i64) -> String {
        // Keyed on both sides: no extension of the message fits.
        let hash = Sha256::new()
            .chain_update(self.secret)
            .chain_update(instance)
            .chain_update(expires_ms.to_be_bytes())
            .chain_update(self.secret)
            .finalize();
        format!("{expires_ms:x}-{}", hex::encode(hash))
    }

    fn good(&self, instance: &str, token: &str, now_ms: i64) -> bool {
        let expires = token.split('-').next().and_then(|text| i64::from_str_radix(text, 16).ok());
        expires.is_some_and(|expires| expires > now_ms && self.sign(instance, expires) == token)
    }
}

pub async fn serve(listener: TcpListener, view: watch::Receiver<Arc<View>>, budget: Arc<Budget>) {
    let tokens = Arc::new(Tokens::new());
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // The process has no descriptor left, which passes.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let permit = {
            let view = view.borrow();
            budget.take(&view.network.project_id, view.network.id, peer.ip())
        };
        let Some(permit) = permit else { continue };
        let (view, tokens) = (view.clone(), Arc::clone(&tokens));
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request: Request<Incoming>| {
                let view = Arc::clone(&view.borrow());
                let response = respond(&view, &tokens, peer.ip(), &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(TIMEOUT, connection).await;
        });
    }
}

fn respond<B>(view: &View, tokens: &Tokens, peer: IpAddr, request: &Request<B>) -> Response<Full<Bytes>> {
    let text = |status: StatusCode, text: &str| plain(status, text.as_bytes().to_vec(), "text/plain");
    let Some(port) = view.by_address(peer) else {
        return text(StatusCode::NOT_FOUND, "this address belongs to no instance\n");
    };
    let Some(instance_id) = port.instance() else { return text(StatusCode::NOT_FOUND, "no instance\n") };
    let instance = instance_id.to_string();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let now = domain::Timestamp::now().0;
    let path = request.uri().path();
    if path == "/latest/api/token" {
        // A request that came through a proxy isn't the instance's own.
        if request.method() != Method::PUT || header("x-forwarded-for").is_some() {
            return text(StatusCode::FORBIDDEN, "request a token by PUT, and not through a proxy\n");
        }
        let secs = header(TOKEN_TTL).and_then(|text| text.parse::<u64>().ok());
        return match secs.filter(|secs| (1..=TOKEN_SECS_MAX).contains(secs)) {
            Some(secs) => {
                let token = tokens.sign(&instance, now + secs as i64 * 1000);
                let mut response = text(StatusCode::OK, &token);
                response.headers_mut().insert(TOKEN_TTL, http::HeaderValue::from(secs));
                response
            }
            None => text(StatusCode::BAD_REQUEST, "the token's lifetime must be from 1 to 21600 seconds\n"),
        };
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    if header(TOKEN).is_some_and(|token| !tokens.good(&instance, token, now)) {
        return text(StatusCode::UNAUTHORIZED, "the token is not valid: request another\n");
    }
    match document(view, port, path) {
        Some((body, kind)) => plain(StatusCode::OK, body, kind),
        None => text(StatusCode::NOT_FOUND, "there is nothing here\n"),
    }
}

fn plain(status: StatusCode, body: Vec<u8>, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// What is at a path, for the instance of this port. Pure.
#[must_use]
pub fn document(view: &View, port: &Port, path: &str) -> Option<(Vec<u8>, &'static str)> {
    let Binding::Local { instance_id, metadata } = &port.binding else { return None };
    let text = |text: String| Some((text.into_bytes(), "text/plain"));
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let hostname = full_name(view, port, metadata);
    match parts.as_slice() {
        [] => text("1.0\n2009-04-04\n2016-09-02\n2021-03-23\nlatest\n".into()),
        ["openstack"] => text("2012-08-10\n2018-08-27\nlatest\n".into()),
        ["openstack", _] => text("meta_data.json\nuser_data\nnetwork_data.json\nvendor_data.json\n".into()),
        ["openstack", _, "meta_data.json"] => {
            let keys: serde_json::Map<String, serde_json::Value> =
                metadata.ssh_keys.iter().map(|(name, key)| (name.clone(), json!(key))).collect();
            let body = json!({
                "uuid": instance_id.to_string(),
                "name": metadata.instance_name,
                "hostname": hostname,
                "availability_zone": metadata.zone,
                "public_keys": keys,
                "keys": metadata.ssh_keys.iter().map(|(name, key)| json!({"name": name, "type": "ssh", "data": key}))
                    .collect::<Vec<_>>(),
                "meta": metadata.tags,
                "launch_index": 0,
            });
            Some((body.to_string().into_bytes(), "application/json"))
        }
        ["openstack", _, "network_data.json"] => Some((network_data(view, port).into_bytes(), "application/json")),
        ["openstack", _, "vendor_data.json" | "vendor_data2.json"] => Some((b"{}".to_vec(), "application/json")),
        ["openstack", _, "user_data"] | ["nocloud", "user-data"] | [_, "user-data"] => {
            let absent = metadata.user_data.is_empty() && parts[0] != "nocloud";
            (!absent).then(|| (metadata.user_data.clone(), "application/octet-stream"))
        }
        ["nocloud", "meta-data"] => {
            let keys: Vec<&str> = metadata.ssh_keys.iter().map(|(_, key)| key.as_str()).collect();
            // JSON is YAML.
            let body = json!({
                "instance-id": instance_id.to_string(),
                "local-hostname": hostname,
                "public-keys": keys,
                "availability-zone": metadata.zone,
            });
            text(format!("{body}\n"))
        }
        ["nocloud", "vendor-data" | "network-config"] => text(String::new()),
        [_] => text("dynamic\nmeta-data\nuser-data\n".into()),
        [_, "meta-data", rest @ ..] => ec2(view, port, *instance_id, metadata, &hostname, rest),
        [_, "dynamic"] => text("instance-identity/\n".into()),
        [_, "dynamic", "instance-identity", "document"] => {
            let body = json!({"instanceId": instance_id.to_string(), "instanceType": metadata.flavor,
                "availabilityZone": metadata.zone, "privateIp": first(port, true)});
            Some((body.to_string().into_bytes(), "application/json"))
        }
        _ => None,
    }
}

fn full_name(view: &View, port: &Port, metadata: &Metadata) -> String {
    let name = if port.hostname.is_empty() { &metadata.instance_name } else { &port.hostname };
    let domain = &view.network.dns_domain;
    if domain.is_empty() { name.clone() } else { format!("{name}.{domain}") }
}

fn first(port: &Port, v4: bool) -> Option<String> {
    port.fixed_ips.iter().find(|addr| addr.is_ipv4() == v4).map(ToString::to_string)
}

fn ec2(
    view: &View,
    port: &Port,
    instance_id: domain::InstanceId,
    metadata: &Metadata,
    hostname: &str,
    rest: &[&str],
) -> Option<(Vec<u8>, &'static str)> {
    let public = port.fixed_ips.iter().find_map(|addr| view.floating_of(*addr)).map(|addr| addr.to_string());
    let local = first(port, true);
    let text = match rest {
        [] => {
            let mut names =
                vec!["ami-id", "hostname", "instance-id", "instance-type", "local-hostname", "mac", "placement/"];
            names.extend(local.is_some().then_some("local-ipv4"));
            names.extend(first(port, false).is_some().then_some("ipv6"));
            names.extend(public.is_some().then_some("public-ipv4"));
            names.extend((!metadata.ssh_keys.is_empty()).then_some("public-keys/"));
            names.sort_unstable();
            names.join("\n")
        }
        ["ami-id"] => "ami-00000000".into(),
        ["instance-id"] => instance_id.to_string(),
        ["instance-type"] => metadata.flavor.clone(),
        ["hostname" | "local-hostname"] => hostname.to_owned(),
        ["local-ipv4"] => local?,
        ["ipv6"] => first(port, false)?,
        ["public-ipv4"] => public?,
        ["mac"] => port.mac.to_string(),
        ["placement"] => "availability-zone".into(),
        ["placement", "availability-zone"] => metadata.zone.clone(),
        ["public-keys"] => {
            let lines = metadata.ssh_keys.iter().enumerate().map(|(at, (name, _))| format!("{at}={name}"));
            lines.collect::<Vec<_>>().join("\n")
        }
        ["public-keys", _] => "openssh-key".into(),
        ["public-keys", at, "openssh-key"] => metadata.ssh_keys.get(at.parse::<usize>().ok()?)?.1.clone(),
        ["tags", "instance"] => metadata.tags.keys().cloned().collect::<Vec<_>>().join("\n"),
        ["tags", "instance", name] => metadata.tags.get(*name)?.clone(),
        _ => return None,
    };
    Some((text.into_bytes(), "text/plain"))
}

/// OpenStack's network_data.json: everything by DHCP.
fn network_data(view: &View, port: &Port) -> String {
    let networks: Vec<_> = port
        .fixed_ips
        .iter()
        .enumerate()
        .map(|(at, addr)| {
            let kind = if addr.is_ipv4() { "ipv4_dhcp" } else { "ipv6_dhcpv6-stateful" };
            json!({"id": format!("network{at}"), "link": "link0", "type": kind})
        })
        .collect();
    let mac = port.mac.to_string();
    let link = json!({"id": "link0", "type": "phy", "ethernet_mac_address": mac, "mtu": view.network.mtu});
    json!({"links": [link], "networks": networks, "services": []}).to_string()
}
