//! `doctor`: what is wrong, seen from here, and what to do about it.

use crate::{
    args::Globals,
    context::Context,
    error::CliError,
    exit,
    output::{Format, Output, Row},
    view::unaccepted,
};
use clap::Args;
use client::{Client, model::ManagerState};
use domain::{Timestamp, host::HostState};
use serde::Serialize;
use std::{os::unix::fs::PermissionsExt, path::Path};

/// Clocks further apart than this make tokens look expired.
const SKEW_SECS: i64 = 30;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Don't check this machine (as root, `iaasd doctor` is run too)
    #[arg(long)]
    no_local: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    check: String,
    verdict: Verdict,
    found: String,
    /// What to do; empty when nothing is to be done.
    advice: String,
}

impl Row for Check {
    const HEADER: &'static [&'static str] = &["CHECK", "VERDICT", "FOUND", "WHAT TO DO"];

    fn cells(&self) -> Vec<String> {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        vec![self.check.clone(), verdict.to_owned(), self.found.clone(), self.advice.clone()]
    }
}

#[derive(Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn add(&mut self, check: &str, verdict: Verdict, found: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Check { check: check.to_owned(), verdict, found: found.into(), advice: advice.into() });
    }

    fn ok(&mut self, check: &str, found: impl Into<String>) {
        self.add(check, Verdict::Ok, found, "");
    }

    fn error(&mut self, check: &str, error: &CliError, advice: &str) {
        let text = error.render();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        self.add(check, Verdict::Fail, first, advice);
    }
}

pub(super) async fn run(globals: &Globals, args: &DoctorArgs) -> Result<(), CliError> {
    let mut findings = Findings::default();
    match Context::new(globals) {
        Err(error) => findings.error("profile", &error, "correct the file, or remove it and log in again"),
        Ok(context) => {
            profile(&mut findings, &context);
            server(&mut findings, &context).await;
        }
    }
    let out = Output { format: globals.output };
    out.list(&findings.0)?;
    let mut failed = findings.0.iter().any(|c| c.verdict == Verdict::Fail);
    if !args.no_local && out.format == Format::Table {
        failed |= !local();
    }
    if failed { Err(CliError::Said { code: exit::FAILURE }) } else { Ok(()) }
}

fn profile(findings: &mut Findings, context: &Context) {
    let path = &context.config_path;
    match std::fs::metadata(path) {
        Err(_) if Context::env_token().is_some() => findings.ok("profile", "none; IAAS_TOKEN is used"),
        Err(_) => findings.add("profile", Verdict::Warn, "there is no profile yet", "iaasctl login --user NAME"),
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => findings.add(
            "profile",
            Verdict::Warn,
            format!("other users can read the tokens in {}", path.display()),
            format!("chmod 600 {}", path.display()),
        ),
        Ok(_) => findings.ok("profile", format!("`{}` in {}", context.profile_name, path.display())),
    }
}

async fn server(findings: &mut Findings, context: &Context) {
    let client = match context.anonymous() {
        Ok(client) => client,
        Err(error) => return findings.error("url", &error, "iaasctl config set url http://HOST:7480"),
    };
    encryption(findings, &context.url);
    let look = match client.look("/healthz").await {
        Ok(look) => look,
        Err(error) => {
            let advice = "start iaasd (`./deploy/up`, or `systemctl start iaasd`), or correct the URL";
            return findings.error("reachable", &error.into(), advice);
        }
    };
    if look.status == 200 {
        findings.ok("reachable", format!("{} in {} ms", context.url, look.took.as_millis()));
    } else {
        let advice = "another program answers at this URL: correct the URL, or check for a proxy in between";
        findings.add("reachable", Verdict::Fail, format!("status {} from /healthz", look.status), advice);
    }
    if let Some(server_clock) = look.server_clock {
        let skew = Timestamp::now().0 / 1000 - server_clock;
        if skew.abs() > SKEW_SECS {
            let advice = "synchronize both clocks with NTP (`timedatectl set-ntp true`)";
            findings.add("clock", Verdict::Warn, format!("differs from the server's by {skew} s"), advice);
        } else {
            findings.ok("clock", "is the same as the server's");
        }
    }
    match client.look("/readyz").await {
        Ok(look) if look.status == 200 => findings.ok("ready", "the server is ready"),
        Ok(look) => {
            let found = not_ready(&look.body);
            findings.add(
                "ready",
                Verdict::Fail,
                found,
                "see the server's log (`journalctl -u iaasd`), and run `iaasd doctor` on the server",
            );
        }
        Err(error) => findings.error("ready", &error.into(), "see the server's log"),
    }
    match context.client() {
        Ok(client) => session(findings, context, &client).await,
        Err(error) => findings.error("session", &error, "iaasctl login --user NAME"),
    }
}

/// The checks that failed, or whatever was said.
fn not_ready(body: &serde_json::Value) -> String {
    let text = |value: &serde_json::Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let checks = body["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let failed = checks.iter().filter(|check| check["ok"] != true);
    let failed: Vec<_> = failed.map(|c| format!("{}: {}", text(c, "name"), text(c, "detail"))).collect();
    match (failed.is_empty(), body["detail"].as_str()) {
        (false, _) => failed.join("; "),
        (true, Some(detail)) => detail.to_owned(),
        (true, None) => body.to_string(),
    }
}

fn encryption(findings: &mut Findings, url: &str) {
    let host = url.split("://").nth(1).unwrap_or_default();
    let loopback = ["127.", "localhost", "[::1]"].iter().any(|p| host.starts_with(p));
    match (url.starts_with("https://"), loopback) {
        (true, _) => findings.ok("encryption", "https"),
        (false, true) => findings.ok("encryption", "not needed: the server is this machine"),
        (false, false) => {
            let advice = "use the https address; with the built-in CA: iaasctl config set ca-file FILE";
            findings.add("encryption", Verdict::Warn, "none: passwords and tokens are sent unencrypted", advice);
        }
    }
}

async fn session(findings: &mut Findings, context: &Context, client: &Client) {
    let who = match client.whoami().await {
        Ok(who) => who,
        Err(error) => return findings.error("session", &error.into(), "iaasctl login --user NAME"),
    };
    findings.ok("session", format!("logged in as {}", who.user.name));
    match &context.project {
        None => findings.add("project", Verdict::Warn, "no project is chosen", "iaasctl config set project NAME"),
        Some(project) => match client.project(project).await {
            Ok(_) => findings.ok("project", project.clone()),
            Err(error) => {
                findings.error("project", &error.into(), "iaasctl project list; iaasctl config set project NAME")
            }
        },
    }
    if who.user.system_admin {
        managers(findings, client).await;
        hosts(findings, client).await;
    }
}

async fn managers(findings: &mut Findings, client: &Client) {
    let managers = match client.managers().all().await {
        Ok(managers) => managers,
        Err(error) => return findings.error("managers", &error.into(), "see the server's log"),
    };
    for manager in &managers {
        let waiting = managers.iter().filter(|m| m.role == manager.role && m.state == ManagerState::Standby).count();
        match manager.state {
            ManagerState::Leader if waiting == 0 => findings.ok(&manager.role, format!("led on {}", manager.host)),
            ManagerState::Leader => {
                findings.ok(&manager.role, format!("led on {}, standbys: {waiting}", manager.host));
            }
            ManagerState::Standby => {}
            ManagerState::Gone => {
                let found = format!("nobody leads it; process {} on {} did last", manager.pid, manager.host);
                let advice = format!("start `iaasd {}`, or see why it doesn't run: its log says", manager.role);
                findings.add(&manager.role, Verdict::Fail, found, advice);
            }
        }
    }
}

async fn hosts(findings: &mut Findings, client: &Client) {
    let hosts = match client.hosts().all().await {
        Ok(hosts) => hosts,
        Err(error) => return findings.error("hosts", &error.into(), "see the server's log"),
    };
    if hosts.is_empty() {
        let advice = "start a compute-agent (`iaasd all` includes one; its log says why it doesn't register)";
        return findings.add("hosts", Verdict::Fail, "no host has registered", advice);
    }
    for host in &hosts {
        let check = format!("host {}", host.name);
        let accelerator = host.facts.accelerator.as_str();
        if !host.state_reason.is_empty() {
            findings.add(&check, Verdict::Fail, host.state.as_str(), host.state_reason.clone());
        } else if host.state != HostState::Up {
            let advice = "check the compute-agent's log and the host's network; its instances keep running";
            findings.add(&check, Verdict::Fail, host.state.as_str(), advice);
        } else if host.cordoned {
            let advice = format!("iaasctl host uncordon {}", host.name);
            findings.add(&check, Verdict::Warn, format!("cordoned: {}", host.cordon_reason), advice);
        } else if accelerator == "tcg" {
            let advice = "instances are emulated and slow; `iaasd doctor` on the host says why KVM isn't available";
            findings.add(&check, Verdict::Warn, format!("no KVM: {}", host.facts.accelerator_reason), advice);
        } else {
            findings.ok(&check, format!("up, {accelerator}"));
        }
        if let Some(more) = unaccepted(host) {
            let found = format!("reports {more} more than was accepted; that isn't offered to instances");
            let advice = format!("if the machine has it, iaasctl host accept-capacity {}", host.name);
            findings.add(&check, Verdict::Warn, found, advice);
        }
        let orphans = host.orphans.as_ref().map_or(0, Vec::len);
        if orphans > 0 {
            let found = format!("runs {orphans} that no instance is (a backup was restored?)");
            let advice = format!("`iaasctl host show {}` names them; end on the host what nobody needs", host.name);
            findings.add(&check, Verdict::Warn, found, advice);
        }
    }
}

/// As root on a machine that has `iaasd`: its own look at the machine, printed below ours. True: all is well, or nothing was asked.
fn local() -> bool {
    use std::os::unix::fs::MetadataExt;
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let found =
        beside.into_iter().chain(std::env::split_paths(&path)).map(|dir| dir.join("iaasd")).find(|p| p.is_file());
    let (true, Some(iaasd)) = (root, found) else { return true };
    eprintln!("\noutput of `{} doctor` on this machine:", iaasd.display());
    match std::process::Command::new(&iaasd).arg("doctor").status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("it can't be started: {error}");
            false
        }
    }
}
