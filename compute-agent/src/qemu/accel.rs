//! Decides from measurements which accelerator a host uses. Pure; [`super::probe`] measures.
//!
//! That `/dev/kvm` opens proves little: under nested or emulated virtualization QEMU may abort while it sets up a CPU, a
//! guest may run in real mode and never reach 64 bits, or everything may work, slower than emulation. A list of known
//! bad hosts was rejected, because the next one isn't on it. So `auto` compares what was measured, and KVM must have done
//! everything the probe guest asks, in less time than TCG.

use serde::{Deserialize, Serialize};

use super::argv::Accel;

/// The operator's choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccelSetting {
    #[default]
    Auto,
    /// KVM is used whatever the measurements say; they only choose the CPU flags and give warnings.
    Kvm,
    /// Instances are emulated, and nothing is measured.
    Tcg,
}

/// How far the probe guest came. The order is that of the lines it prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// QEMU hadn't begun to run it.
    Start,
    /// Its boot sector ran, in 16 bits.
    Real,
    /// It reached 64-bit mode, with paging.
    Long,
    /// It used the MSRs that every kernel uses.
    Msr,
    /// It got an interrupt of the local APIC timer.
    Timer,
    /// It went to user mode and back.
    User,
    /// It finished the arithmetic loop.
    Cpu,
    /// It finished the loop of system calls, exceptions, address space switches and port I/O, and so everything.
    Kernel,
}

impl Stage {
    pub const ALL: [Self; 8] =
        [Self::Start, Self::Real, Self::Long, Self::Msr, Self::Timer, Self::User, Self::Cpu, Self::Kernel];

    /// How the guest spells the stage in its line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Real => "real",
            Self::Long => "long",
            Self::Msr => "msr",
            Self::Timer => "timer",
            Self::User => "user",
            Self::Cpu => "cpu",
            Self::Kernel => "kernel",
        }
    }

    /// What a guest that ends here was about to do.
    fn next_step(self) -> &'static str {
        match self {
            Self::Start => "before its first instruction",
            Self::Real => "on the way to 64-bit mode",
            Self::Long => "while it used the CPU's model-specific registers and first 64-bit instructions",
            Self::Msr => "waiting for a timer interrupt",
            Self::Timer => "on the way to user mode and back",
            Self::User => "in a loop of arithmetic",
            Self::Cpu => "in a loop of system calls and exceptions",
            Self::Kernel => "after it was done",
        }
    }
}

/// One run of the probe guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeRun {
    pub stage: Stage,
    /// The time from the start of the two loops to their end; known when `stage` is [`Stage::Kernel`].
    pub loops_ms: Option<f64>,
    /// The time from the first instruction of the firmware to the boot sector's line.
    pub firmware_ms: Option<f64>,
    /// What ended the run early, in QEMU's words or ours.
    pub failure: Option<String>,
}

impl ProbeRun {
    pub fn failed_at_start(failure: impl Into<String>) -> Self {
        Self { stage: Stage::Start, loops_ms: None, firmware_ms: None, failure: Some(failure.into()) }
    }

    fn complete_ms(&self) -> Option<f64> {
        self.loops_ms.filter(|_| self.stage == Stage::Kernel)
    }
}

/// Everything that was tried on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    pub tcg: ProbeRun,
    /// Each set of `-cpu host` flags that was tried, in order; the last one came furthest.
    pub kvm: Vec<(Vec<String>, ProbeRun)>,
    /// Why a stock kernel didn't boot under the last set of flags; `None` if it did, or wasn't tried.
    pub kernel_failure: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccelDecision {
    pub accel: Accel,
    /// The reason, as a sentence for the operator.
    pub reason: String,
    pub measured: Measured,
    /// Sentences about what an operator should know or repair.
    pub warnings: Vec<String>,
}

/// How long the probe guest's loops took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub kvm_ms: Option<f64>,
    pub tcg_ms: Option<f64>,
}

/// The decision for TCG, which needs no measurement.
pub fn decide_tcg_by_setting() -> AccelDecision {
    AccelDecision {
        accel: Accel::TCG,
        reason: "TCG, because the configuration says so".into(),
        measured: Measured::default(),
        warnings: vec![],
    }
}

/// Decides from what was measured. With [`AccelSetting::Kvm`], KVM is chosen whatever the measurements say.
pub fn decide(setting: AccelSetting, probed: &Probed) -> AccelDecision {
    let last = probed.kvm.last();
    let kvm_ms = last.and_then(|(_, run)| run.complete_ms());
    let tcg_ms = probed.tcg.complete_ms();
    let measured = Measured { kvm_ms, tcg_ms };
    let flags = last.map(|(flags, _)| flags.clone()).unwrap_or_default();
    let objection = kvm_objection(probed, kvm_ms, tcg_ms);
    let mut warnings = vec![];
    if let (None, Some(failure)) = (tcg_ms, &probed.tcg.failure) {
        warnings.push(format!("the probe guest failed under TCG too: {failure}"));
    }
    match (setting, objection) {
        (AccelSetting::Tcg, _) => AccelDecision { measured, ..decide_tcg_by_setting() },
        (AccelSetting::Auto, Some(objection)) => {
            warnings.insert(0, format!("instances are emulated by TCG, which is slow: {objection}"));
            AccelDecision { accel: Accel::TCG, reason: format!("TCG, because {objection}"), measured, warnings }
        }
        (AccelSetting::Kvm, objection) => {
            if let Some(objection) = objection {
                warnings.insert(0, format!("KVM is set in the configuration, although {objection}"));
            }
            let reason = "KVM, because the configuration says so".into();
            AccelDecision { accel: Accel::Kvm { cpu_flags: flags }, reason, measured, warnings }
        }
        (AccelSetting::Auto, None) => {
            let with = if flags.is_empty() { String::new() } else { format!(" with {}", flags.join(",")) };
            if let Some((_, first)) = probed.kvm.first().filter(|_| probed.kvm.len() > 1) {
                let failure = first.failure.as_deref().unwrap_or("no reason given");
                warnings.push(format!("KVM's CPU model `host` works here only{with}: {failure}"));
            }
            let ratio =
                tcg_ms.zip(kvm_ms).map(|(tcg, kvm)| format!(", {:.1} times as fast as TCG", tcg / kvm.max(0.1)));
            let reason = format!("KVM{with}, because the probe guest ran to its end{}", ratio.unwrap_or_default());
            AccelDecision { accel: Accel::Kvm { cpu_flags: flags }, reason, measured, warnings }
        }
    }
}

/// What speaks against KVM, as a clause; `None` when nothing does.
fn kvm_objection(probed: &Probed, kvm_ms: Option<f64>, tcg_ms: Option<f64>) -> Option<String> {
    let Some((_, run)) = probed.kvm.last() else { return Some("KVM was not tried".into()) };
    let Some(kvm_ms) = kvm_ms else {
        let failure = run.failure.as_deref().unwrap_or("it gave no reason");
        return Some(if run.stage == Stage::Start {
            format!("KVM can't be used: {failure}")
        } else {
            format!("under KVM the probe guest ended {}: {failure}", run.stage.next_step())
        });
    };
    if let Some(failure) = &probed.kernel_failure {
        return Some(format!("a stock kernel doesn't come up under KVM: {failure}"));
    }
    let tcg_ms = tcg_ms?;
    (kvm_ms >= tcg_ms).then(|| format!("KVM took {kvm_ms:.0} ms where TCG took {tcg_ms:.0} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(ms: f64) -> ProbeRun {
        ProbeRun { stage: Stage::Kernel, loops_ms: Some(ms), firmware_ms: Some(50.0), failure: None }
    }

    fn stuck(stage: Stage, failure: &str) -> ProbeRun {
        ProbeRun { stage, loops_ms: None, firmware_ms: None, failure: Some(failure.into()) }
    }

    fn probed(kvm: Vec<(Vec<String>, ProbeRun)>) -> Probed {
        Probed { tcg: done(200.0), kvm, kernel_failure: None }
    }

    #[test]
    fn kvm_that_works_and_is_faster_is_taken() {
        let decision = decide(AccelSetting::Auto, &probed(vec![(vec![], done(10.0))]));
        assert_eq!(decision.accel, Accel::Kvm { cpu_flags: vec![] });
        assert_eq!(decision.measured, Measured { kvm_ms: Some(10.0), tcg_ms: Some(200.0) });
        assert!(decision.warnings.is_empty() && decision.reason.contains("20.0 times"), "{decision:?}");
    }

    #[test]
    fn flags_that_kvm_needs_are_kept_and_reported() {
        let off = vec!["arch-capabilities=off".to_owned()];
        let runs = vec![(vec![], ProbeRun::failed_at_start("failed to set MSR 0x10a")), (off.clone(), done(10.0))];
        let decision = decide(AccelSetting::Auto, &probed(runs));
        assert_eq!(decision.accel, Accel::Kvm { cpu_flags: off });
        assert!(decision.warnings[0].contains("MSR 0x10a"), "{decision:?}");
    }

    #[test]
    fn kvm_that_is_absent_broken_or_slow_is_not_taken_and_the_reason_is_given() {
        let cases = [
            (probed(vec![(vec![], ProbeRun::failed_at_start("/dev/kvm is missing"))]), "/dev/kvm is missing"),
            (probed(vec![(vec![], stuck(Stage::Real, "KVM internal error"))]), "64-bit mode"),
            (probed(vec![(vec![], stuck(Stage::Msr, "no sign of life for 5 s"))]), "timer interrupt"),
            (probed(vec![(vec![], done(900.0))]), "KVM took 900 ms where TCG took 200 ms"),
            (Probed { kernel_failure: Some("silent".into()), ..probed(vec![(vec![], done(10.0))]) }, "stock kernel"),
            (probed(vec![]), "not tried"),
        ];
        for (probed, says) in cases {
            let decision = decide(AccelSetting::Auto, &probed);
            assert_eq!(decision.accel, Accel::TCG);
            assert!(decision.reason.contains(says) && decision.warnings[0].contains(says), "{says}: {decision:?}");
            let forced = decide(AccelSetting::Kvm, &probed);
            assert!(matches!(forced.accel, Accel::Kvm { .. }), "the setting rules");
            assert!(forced.warnings[0].contains(says), "{forced:?}");
            assert_eq!(decide(AccelSetting::Tcg, &probed).accel, Accel::TCG);
        }
    }

    #[test]
    fn a_host_where_nothing_works_says_so() {
        let all_bad = Probed { tcg: stuck(Stage::Start, "no such file"), ..probed(vec![]) };
        let decision = decide(AccelSetting::Auto, &all_bad);
        assert!(decision.warnings.iter().any(|w| w.contains("under TCG too: no such file")), "{decision:?}");
    }
}
