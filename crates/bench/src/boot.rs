//! `iaas-bench boot`: from the REST call to the guest's up line, against the same QEMU command line started by hand, alternating, so that
//! both meet the same machine. Emulated boots vary by more than we add, so the parts that are ours are also measured apart.

use crate::{
    boot_network,
    stats::{Sample, round},
};
use anyhow::{Context, ensure};
use harness::{Rest, Server};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 30)]
    runs: usize,
    /// Where deploy/guest/tiny/build left vmlinuz, initramfs.cpio.gz and cmdline.
    #[arg(long)]
    guest: Option<PathBuf>,
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Until the first ping is answered, against instances without a NIC.
    #[arg(long)]
    network: bool,
}

pub const UP_LIMIT: Duration = Duration::from_secs(120);

pub async fn run(args: Args) -> anyhow::Result<Value> {
    let guest = args.guest.map_or_else(|| harness::guest_dir().map_err(anyhow::Error::msg), Ok)?;
    let part = |name: &str| {
        let path = guest.join(name);
        fs::read(&path).with_context(|| format!("{}: build it with deploy/guest/tiny/build", path.display()))
    };
    let (kernel, initrd, cmdline) =
        (part("vmlinuz")?, part("initramfs.cpio.gz")?, String::from_utf8(part("cmdline")?)?);
    let server = Server::start(&args.dir, "").await?;
    let rest = server.login("bench").await?;
    rest.kernel_image("tiny", kernel, initrd, cmdline.trim()).await?;
    if args.network {
        let measured = boot_network::run(&rest, &server, args.runs).await?;
        server.stop()?;
        return Ok(measured);
    }
    // The first one fills the host's image cache and tells the command line.
    let warm = boot(&rest, &server, "warm").await?;
    let by_hand = ByHand::copy(&warm.argv, server.dir.path())?;
    delete(&rest, "warm").await?;
    let (mut api, mut raw, mut exec, mut running) = (vec![], vec![], vec![], vec![]);
    for run in 0..args.runs {
        let name = format!("run-{run}");
        let measured = boot(&rest, &server, &name).await?;
        delete(&rest, &name).await?;
        api.push(measured.api_ms);
        exec.push(measured.accepted_to_exec_ms);
        running.push(measured.up_to_running_ms);
        raw.push(by_hand.boot()?);
    }
    server.stop()?;
    let (api, raw, exec, running) = (Sample::new(api), Sample::new(raw), Sample::new(exec), Sample::new(running));
    Ok(json!({
        "bench": "boot",
        "api_ms_p50": round(api.percentile(50.0)),
        "raw_ms_p50": round(raw.percentile(50.0)),
        "overhead_ms_p50": round(api.percentile(50.0) - raw.percentile(50.0)),
        "accepted_to_exec_ms_p50": round(exec.percentile(50.0)),
        "accepted_to_exec_ms_p99": round(exec.percentile(99.0)),
        "up_to_running_ms_p50": round(running.percentile(50.0)),
    }))
}

struct Boot {
    api_ms: f64,
    accepted_to_exec_ms: f64,
    up_to_running_ms: f64,
    argv: Vec<String>,
}

async fn boot(rest: &Rest, server: &Server, name: &str) -> anyhow::Result<Boot> {
    let body = json!({"name": name, "image": "tiny", "vcpus": 1, "memory_mib": 256, "disk_gib": 1, "networks": []});
    let began = Instant::now();
    let watched = until_up(server, name, began);
    let made = rest.call(Method::POST, "/v1/instances?wait=guest&timeout=120s", Some(&body)).await?;
    let known = began.elapsed();
    let api_ms = watched.await?;
    let at = |key: &str| -> anyhow::Result<f64> {
        rfc3339_ms(made[key].as_str().with_context(|| format!("no {key}: {made}"))?)
    };
    let id = made["id"].as_str().context("no id")?;
    Ok(Boot {
        api_ms,
        accepted_to_exec_ms: at("started_at")? - at("created_at")?,
        up_to_running_ms: known.as_secs_f64() * 1000.0 - api_ms,
        argv: qemu_argv(id)?,
    })
}

/// Until the guest's up line is on its console, milliseconds since `began`; looks from now on.
pub fn until_up(server: &Server, name: &str, began: Instant) -> impl Future<Output = anyhow::Result<f64>> + use<> {
    let (watch_dir, needle) = (server.dir.path().to_owned(), format!("iaas-guest: up {name} "));
    let watcher = tokio::task::spawn_blocking(move || {
        wait_for(UP_LIMIT, || find_log(&watch_dir, &needle)).map(|_| began.elapsed().as_secs_f64() * 1000.0)
    });
    async { watcher.await?.context("the guest's up line") }
}

pub async fn delete(rest: &Rest, name: &str) -> anyhow::Result<()> {
    rest.call(Method::DELETE, &format!("/v1/instances/{name}?wait=deleted&timeout=60s"), None).await.map(|_| ())
}

/// Milliseconds since the epoch.
fn rfc3339_ms(text: &str) -> anyhow::Result<f64> {
    Ok(text.parse::<domain::Timestamp>()?.0 as f64)
}

/// Polls every 1 ms. The watched files are few and in the page cache.
fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(found) = look() {
            return Some(found);
        }
        rest_a_millisecond();
    }
    None
}

fn rest_a_millisecond() {
    // A blocking thread of its own waits for a file that no event source here watches.
    std::thread::park_timeout(Duration::from_millis(1));
}

/// A console log below `dir` that contains `needle`.
fn find_log(dir: &Path, needle: &str) -> Option<PathBuf> {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).ok()?.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                open.push(path);
            } else if path.file_name().is_some_and(|n| n == "console.log")
                && fs::read(&path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(needle))
            {
                return Some(path);
            }
        }
    }
    None
}

/// The command line of the running QEMU of an instance.
fn qemu_argv(instance_id: &str) -> anyhow::Result<Vec<String>> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(bytes) = fs::read(entry.path().join("cmdline")) else { continue };
        let argv: Vec<String> = bytes.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
        if argv.first().is_some_and(|a| a.contains("qemu-system")) && argv.iter().any(|a| a.contains(instance_id)) {
            return Ok(argv.into_iter().filter(|a| !a.is_empty()).collect());
        }
    }
    anyhow::bail!("no QEMU of {instance_id} runs")
}

/// The same command line, with copies of the files it names, so that it can be started again and again.
struct ByHand {
    argv: Vec<String>,
    disk: Option<(PathBuf, PathBuf)>,
    log: PathBuf,
}

impl ByHand {
    /// Copies what the instance's own directories hold into `<dir>/by-hand` and rewrites the paths.
    fn copy(argv: &[String], dir: &Path) -> anyhow::Result<Self> {
        let home = dir.join("by-hand");
        fs::create_dir_all(&home)?;
        let (mut out, mut disk) = (Vec::new(), None);
        for arg in argv {
            let mut arg = arg.clone();
            for path in paths_in(&arg) {
                let source = Path::new(&path);
                let Some(name) = source.file_name().and_then(|n| n.to_str()) else { continue };
                // Images in the cache are shared and read-only; sockets, logs and the instance's own files get copies.
                let own = path.contains("/instances/") || path.contains("/run/");
                if !own {
                    continue;
                }
                let target = home.join(name);
                if source.is_file() && !name.ends_with(".log") {
                    fs::copy(source, &target)?;
                    if name.contains("root") || name.ends_with(".qcow2") {
                        let pristine = home.join(format!("{name}.pristine"));
                        fs::copy(source, &pristine)?;
                        disk = Some((pristine, target.clone()));
                    }
                }
                arg = arg.replace(&path, &target.display().to_string());
            }
            out.push(arg);
        }
        let log = out
            .iter()
            .flat_map(|a| paths_in(a))
            .find(|p| p.ends_with("console.log"))
            .context("no console.log in the command line")?;
        Ok(Self { argv: out, disk, log: log.into() })
    }

    /// Milliseconds from spawn to the up line.
    fn boot(&self) -> anyhow::Result<f64> {
        let _ = fs::remove_file(&self.log);
        if let Some((pristine, target)) = &self.disk {
            fs::copy(pristine, target)?;
        }
        let began = Instant::now();
        let mut child = Command::new(&self.argv[0])
            .args(&self.argv[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("QEMU by hand")?;
        let up = wait_for(Duration::from_secs(120), || {
            fs::read(&self.log).ok().filter(|b| String::from_utf8_lossy(b).contains("iaas-guest: up "))
        });
        let took = began.elapsed();
        child.kill()?;
        child.wait()?;
        ensure!(up.is_some(), "the guest started by hand never came up: {:?}", self.argv);
        Ok(took.as_secs_f64() * 1000.0)
    }
}

/// Absolute paths that occur in one argument.
fn paths_in(arg: &str) -> Vec<String> {
    let parts = arg.split([',', '=', ':']).filter(|p| p.starts_with('/'));
    let quoted = arg.split('"').filter(|p| p.starts_with('/'));
    let mut all: Vec<String> = parts.chain(quoted).map(|p| p.trim_end_matches(['"', '}']).to_owned()).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_options_and_json() {
        assert_eq!(
            paths_in("socket,id=s,path=/run/a.sock,server=on,logfile=/x/console.log"),
            ["/run/a.sock", "/x/console.log"]
        );
        assert_eq!(paths_in(r#"{"driver":"file","filename":"/x/root.qcow2"}"#), ["/x/root.qcow2"]);
        assert!(paths_in("q35,accel=tcg").is_empty());
    }
}
