//! Tests that measure the accelerators of this machine, and KVM itself as far as it works here.

use std::time::Duration;

use compute_agent::qemu::accel::{AccelSetting, Stage, decide};
use compute_agent::qemu::argv::Accel;
use compute_agent::qemu::probe::{KernelProbe, Prober, kvm_access_gid};
use compute_agent::qemu::version::find_qemu;

use crate::rig::{GID, Scratch, TIMEOUT, UID, guest, launcher, qemu};

async fn prober(scratch: &Scratch) -> Option<Prober> {
    let qemu = find_qemu(Some(&qemu()?)).await.expect("a QEMU that will do");
    Some(Prober {
        launcher: launcher(&qemu.binary),
        qemu_version: qemu.version,
        uid: UID,
        gid: GID,
        work_dir: scratch.dir.path().into(),
        cache_file: scratch.dir.path().join("accelerator.json"),
        kernel: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_guest_runs_to_its_end_under_tcg() {
    let scratch = Scratch::make().await;
    let Some(prober) = prober(&scratch).await else { return };
    let run = prober.run_probe_guest(Accel::TCG, vec![], TIMEOUT).await.expect("prepared");
    assert_eq!(run.stage, Stage::Kernel, "{run:?}");
    assert!(run.loops_ms.is_some_and(|ms| ms > 0.0) && run.failure.is_none(), "{run:?}");
    assert!(std::fs::read_dir(scratch.dir.path()).expect("there").count() == 1, "only `run` is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_sector_runs_under_kvm_through_the_same_launch() {
    let scratch = Scratch::make().await;
    let Some(prober) = prober(&scratch).await else { return };
    let gid = match kvm_access_gid(GID) {
        Ok(gid) => gid,
        Err(error) => return println!("not run: {error}"),
    };
    let accel = Accel::Kvm { cpu_flags: vec!["arch-capabilities=off".into()] };
    let run = prober.run_probe_guest(accel, vec![gid], TIMEOUT).await.expect("prepared");
    println!("under KVM: {run:?}");
    assert!(run.stage >= Stage::Real, "the boot sector itself runs wherever /dev/kvm opens: {run:?}");
    assert!(run.stage == Stage::Kernel || run.failure.is_some(), "what ended it is told: {run:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_decision_follows_the_measurement_and_is_remembered_for_this_boot() {
    let scratch = Scratch::make().await;
    let Some(mut prober) = prober(&scratch).await else { return };
    let probed = prober.probe().await.expect("measured");
    let expected = decide(AccelSetting::Auto, &probed);
    println!("{expected:#?}");
    match &expected.accel {
        Accel::Kvm { .. } => assert!(expected.measured.kvm_ms < expected.measured.tcg_ms, "{expected:?}"),
        Accel::Tcg { .. } => assert!(!expected.warnings.is_empty(), "a fall back to emulation is told: {expected:?}"),
    }
    let first = prober.accelerator(AccelSetting::Auto).await.expect("decided");
    assert_eq!(first.accel, expected.accel);

    // Remembered: a launcher that can't launch isn't requested_offsets. (Without /dev/kvm nothing is, for it may appear.)
    prober.launcher = compute_agent::qemu::launch::Launcher::new("/nonexistent", "/nonexistent", &[]);
    let again = prober.accelerator(AccelSetting::Auto).await.expect("decided");
    assert_eq!(again.accel, first.accel);
    assert_eq!(prober.accelerator(AccelSetting::Tcg).await.expect("decided").accel, Accel::TCG);
    if prober.cache_file.exists() {
        assert_eq!(again, first);
        let forced = prober.accelerator(AccelSetting::Kvm).await.expect("decided");
        assert!(matches!(forced.accel, Accel::Kvm { .. }));
        // Of another boot, it counts for nothing.
        let text = std::fs::read_to_string(&prober.cache_file).expect("readable");
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("readable");
        std::fs::write(&prober.cache_file, text.replace(boot_id.trim(), "another")).expect("written");
        let anew = prober.accelerator(AccelSetting::Auto).await.expect("decided");
        assert!(anew.measured.tcg_ms.is_none() && !anew.warnings.is_empty(), "measured anew, and failed: {anew:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_kernel_prints_or_what_happened_instead_is_reported() {
    let scratch = Scratch::make().await;
    let (Some(prober), Some(guest)) = (prober(&scratch).await, guest()) else { return };
    let kernel =
        |kernel, timeout| KernelProbe { kernel, initrd: None, cmdline: "console=ttyS0 panic=-1".into(), timeout };
    let stock = guest.dir.join("vmlinuz");
    let run = async |probe: &KernelProbe| prober.run_kernel(probe, Accel::TCG, vec![]).await.expect("prepared");
    assert_eq!(run(&kernel(stock.clone(), TIMEOUT)).await, None);
    let late = run(&kernel(stock, Duration::ZERO)).await.expect("no time to speak");
    assert!(late.contains("didn't end within"), "{late}");
    let bogus = scratch.dir.path().join("bogus");
    std::fs::write(&bogus, "not a kernel").expect("written");
    let refused = run(&kernel(bogus, TIMEOUT)).await.expect("nothing to boot");
    assert!(refused.contains("kernel") && !refused.contains("didn't end"), "{refused}");
}
