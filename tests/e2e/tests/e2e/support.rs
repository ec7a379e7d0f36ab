//! A server with the guest image `tiny` in it, and waiting for conditions.

use anyhow::Context;
use harness::{Rest, Server};
use serde_json::{Value, json};
use std::{future::Future, path::Path, time::Duration};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Emulated guests of all tests that may boot at one time.
static GUESTS: Semaphore = Semaphore::const_new(4);

pub async fn guests(count: u32) -> SemaphorePermit<'static> {
    GUESTS.acquire_many(count).await.expect("the semaphore is never closed")
}

/// Says why a test did not run. `deploy/test` repeats these lines at its end.
pub fn not_run(what: &str, why: &str) {
    eprintln!("not run: {what}: {why}");
}

/// Whether real guests can run here; if not, it says so.
pub fn can_run_guests(what: &str) -> bool {
    if !nix::unistd::geteuid().is_root() {
        not_run(what, "only root can start guests");
        return false;
    }
    match harness::guest_dir() {
        Ok(_) => true,
        Err(why) => {
            not_run(what, &why);
            false
        }
    }
}

pub async fn server() -> anyhow::Result<Server> {
    Server::start(Path::new("/var/tmp"), "").await
}

/// A server, and its admin in the project `demo` that has the image `tiny` and the flavor `small`.
pub async fn server_with_tiny() -> anyhow::Result<(Server, Rest)> {
    let server = server().await?;
    let rest = server.login("demo").await?;
    upload_tiny(&rest).await?;
    rest.post("/v1/flavors", &json!({"name": "small", "vcpus": 1, "memory_mib": 192, "disk_gib": 1})).await?;
    Ok((server, rest))
}

pub async fn upload_tiny(rest: &Rest) -> anyhow::Result<()> {
    let dir = harness::guest_dir().map_err(anyhow::Error::msg)?;
    let cmdline = std::fs::read_to_string(dir.join("cmdline"))?;
    let (kernel, initrd) = (std::fs::read(dir.join("vmlinuz"))?, std::fs::read(dir.join("initramfs.cpio.gz"))?);
    rest.kernel_image("tiny", kernel, initrd, cmdline.trim()).await
}

pub async fn create(rest: &Rest, name: &str, wait: &str, extra: Value) -> anyhow::Result<Value> {
    let mut body = json!({"name": name, "image": "tiny", "flavor": "small"});
    if let (Some(body), Some(extra)) = (body.as_object_mut(), extra.as_object()) {
        body.extend(extra.clone());
    }
    rest.post(&format!("/v1/instances?wait={wait}&timeout=180s"), &body).await
}

/// Looks every 50 ms until `look` finds something, 120 s at most.
/// What the project's instances use: instances, vCPUs, MiB of memory, GiB of disk, ports.
pub async fn usage(rest: &Rest) -> anyhow::Result<Value> {
    let quota = rest.get("/v1/projects/demo/quota").await?;
    let of = |resource: &str| quota["used"][resource].clone();
    Ok(json!([of("instances"), of("vcpus"), of("memory_mib"), of("disk_gib"), of("ports")]))
}

pub async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let looking = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), looking)
        .await
        .with_context(|| format!("waited 120 s for: {what}"))?
}

/// Until an instance satisfies `condition`; the instance.
pub async fn until_instance(
    rest: &Rest,
    name: &str,
    what: &str,
    condition: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let path = format!("/v1/instances/{name}");
    let result = until(what, async || {
        let instance = rest.get(&path).await?;
        Ok(condition(&instance).then_some(instance))
    })
    .await;
    match result {
        Ok(instance) => Ok(instance),
        Err(error) => Err(error.context(format!("the instance is {}", rest.get(&path).await.unwrap_or_default()))),
    }
}

/// Host pids of the QEMUs whose command line mentions `needle`.
pub fn qemus(needle: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let Ok(bytes) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let line = String::from_utf8_lossy(&bytes).into_owned();
        line.starts_with("/")
            && line.split('\0').next().is_some_and(|a| a.contains("qemu-system"))
            && line.contains(needle)
            || line.starts_with("qemu-system") && line.contains(needle)
    })
    .collect()
}

/// The text of an instance's console so far.
pub async fn console(rest: &Rest, name: &str) -> anyhow::Result<String> {
    let (status, bytes) =
        rest.send(reqwest::Method::GET, &format!("/v1/instances/{name}/console-log?tail_bytes=65536"), None).await?;
    anyhow::ensure!(status.is_success(), "console-log: {status}: {}", String::from_utf8_lossy(&bytes));
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
