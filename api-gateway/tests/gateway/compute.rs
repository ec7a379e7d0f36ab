//! A world with hosts, a project with a member, an image and flavors: what the tests of instances start from.

use crate::harness::{Answer, Person, World, answer};
use domain::flavor::Size;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sim::{SimConfig, SimHost};

/// The beginning of a bzImage: enough for what the storage-manager looks at.
pub fn kernel() -> Vec<u8> {
    let mut bytes = vec![0u8; 4096];
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes
}

pub fn initrd() -> Vec<u8> {
    b"070701 an initrd".to_vec()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

pub async fn upload(person: &Person, image: &str, part: &str, bytes: Vec<u8>) -> Answer {
    let path = format!("/v1/images/{image}/parts/{part}");
    let request = person.request(Method::PUT, &path).header("content-type", "application/octet-stream");
    answer(request.header("x-content-sha256", sha256(&bytes)).body(bytes)).await
}

pub struct Cloud {
    pub world: World,
    pub admin: Person,
    /// A member of the project `blue`.
    pub ann: Person,
    pub hosts: Vec<SimHost>,
}

pub fn config_of(name: &str) -> SimConfig {
    SimConfig { capacity: Size { vcpus: 64, memory_mib: 64 * 1024, disk_gib: 1000 }, ..SimConfig::named(name) }
}

impl Cloud {
    /// One host.
    pub async fn start() -> Self {
        Self::with(vec![config_of("alpha")]).await
    }

    pub async fn with(configs: Vec<SimConfig>) -> Self {
        Self::in_world(World::start().await, configs).await
    }

    pub async fn in_world(world: World, configs: Vec<SimConfig>) -> Self {
        let admin = world.admin().await;
        world.project(&admin, "blue").await;
        let ann = world.user(&admin, "ann", "blue", "member").await;
        for (name, vcpus, memory_mib, disk_gib) in
            [("tiny", 1, 128, 0), ("small", 1, 128, 1), ("huge", 128, 1 << 20, 0)]
        {
            let flavor = json!({"name": name, "vcpus": vcpus, "memory_mib": memory_mib, "disk_gib": disk_gib});
            admin.post("/v1/flavors", flavor).await.expect(201);
        }
        let limits = json!({"instances": 500, "vcpus": 500, "memory_mib": 4_000_000, "disk_gib": 1000});
        admin.put("/v1/projects/blue/quota", limits).await.expect(200);
        ann.post("/v1/images", json!({"name": "linux", "kind": "kernel", "cmdline": "console=ttyS0"}))
            .await
            .expect(201);
        upload(&ann, "linux", "kernel", kernel()).await.expect(200);
        let active = upload(&ann, "linux", "initrd", initrd()).await.expect(200);
        assert_eq!(active["state"], "active");
        let mut hosts = Vec::new();
        for config in configs {
            let host = SimHost::start(&world.cluster, config).expect("a host starts");
            host.connected().await;
            hosts.push(host);
        }
        Self { world, admin, ann, hosts }
    }

    /// Made by Ann, and running.
    pub async fn running(&self, name: &str) -> Value {
        let body = json!({"name": name, "image": "linux", "flavor": "tiny"});
        let made = self.ann.post("/v1/instances?wait=running&timeout=30s", body).await.expect(201);
        assert_eq!(made["state"], "running", "{made}");
        made
    }

    pub async fn stop(self) {
        for host in self.hosts {
            host.stop().await;
        }
        self.world.stop().await;
    }
}

/// The ids or names of a list's items.
pub fn column<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item[field].as_str().expect("a text")).collect()
}
