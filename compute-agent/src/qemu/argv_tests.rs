//! Each command line is compared with a checked-in text, an argument per line. `UPDATE_GOLDEN=1 cargo test` rewrites
//! the texts; their diff is then what a reviewer reads.

use super::*;

fn spec() -> VmSpec {
    let dir = Path::new("/var/lib/iaas/agent/instances/i1/run");
    VmSpec {
        uuid: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
        name: "hello".into(),
        vcpus: 2,
        memory_mib: 512,
        numa_node: None,
        boot: Boot::Disk { ovmf: None },
        disks: vec![disk(0xd1, DiskFormat::Qcow2, Some(0))],
        nics: vec![],
        config_drive: Some("/var/lib/iaas/agent/instances/i1/config.iso".into()),
        accel: Accel::TCG,
        qmp_socket: dir.join("qmp.sock"),
        serial_socket: dir.join("serial.sock"),
        console_log: dir.join("console.log"),
        paused: false,
        on_poweroff: OnPowerOff::Hold,
    }
}

fn disk(id: u128, format: DiskFormat, boot_index: Option<u32>) -> VmDisk {
    VmDisk {
        disk_id: Uuid::from_u128(id),
        path: format!("/var/lib/iaas/agent/disks/{id:x}").into(),
        format,
        backing: (format == DiskFormat::Qcow2)
            .then(|| DiskBacking { path: "/var/lib/iaas/agent/images/base".into(), format: DiskFormat::Qcow2 }),
        read_only: false,
        serial: format!("disk-{id:x}"),
        boot_index,
        direct: true,
    }
}

fn assert_golden(name: &str, spec: &VmSpec) {
    spec.check().expect("the golden specs are valid");
    let lines: Vec<String> = render_argv(spec).into_iter().map(|a| a.into_string().expect("UTF-8")).collect();
    let text = lines.join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("golden directory");
        std::fs::write(&path, &text).expect("golden file written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, text, "{name} differs; UPDATE_GOLDEN=1 rewrites it");
}

#[test]
fn golden_disk_boot_under_tcg() {
    assert_golden("argv-disk-tcg.txt", &spec());
}

#[test]
fn golden_kernel_boot_under_tcg() {
    let mut spec = spec();
    spec.boot = Boot::Kernel {
        kernel: "/images/vmlinuz".into(),
        initrd: Some("/images/initramfs.cpio.gz".into()),
        cmdline: "console=ttyS0 quiet panic=1".into(),
    };
    spec.disks = vec![disk(0xd1, DiskFormat::Raw, Some(0))];
    assert_golden("argv-kernel-tcg.txt", &spec);
}

#[test]
fn golden_memory_of_a_node() {
    let mut spec = spec();
    spec.numa_node = Some(1);
    assert_golden("argv-numa-tcg.txt", &spec);
}

fn nic(slot: u8) -> VmNic {
    VmNic {
        port_id: Uuid::from_u128(0xc0 + u128::from(slot)),
        slot,
        mac: MacAddr::local([0, 0, 0, 0, slot]),
        mtu: 1450,
    }
}

#[test]
fn golden_network_nics() {
    let mut spec = spec();
    spec.nics = vec![nic(1), nic(16)];
    assert_golden("argv-nics-tcg.txt", &spec);
}

#[test]
fn a_nic_has_a_slot_of_its_own_and_its_name_tells_which() {
    let mut spec = spec();
    for slots in [&[0_u8][..], &[17], &[2, 2]] {
        spec.nics = slots.iter().map(|slot| nic(*slot)).collect();
        assert!(matches!(spec.check(), Err(SpecError::NicSlot { .. })), "{slots:?}");
    }
    let id = Uuid::now_v7();
    assert_eq!(nic_of_device(&nic_device(12, id)), Some((12, id)));
    for other in ["rng", "vd-0190", "nic-", "nicx-00000000-0000-0000-0000-000000000000", &disk_device(id)] {
        assert_eq!(nic_of_device(other), None, "{other}");
    }
    assert_eq!((nic_fd(1), nic_fd(16)), (101, 116));
}

#[test]
fn golden_uefi_with_two_disks_under_kvm_paused() {
    let mut spec = spec();
    spec.boot = Boot::Disk { ovmf: Some(Ovmf { code: "/usr/share/OVMF/code.fd".into(), vars: "/i1/vars.fd".into() }) };
    spec.accel = Accel::Kvm { cpu_flags: vec!["arch-capabilities=off".into()] };
    let mut second = disk(0xd2, DiskFormat::Raw, None);
    second.read_only = true;
    second.direct = false;
    spec.disks.push(second);
    spec.paused = true;
    spec.on_poweroff = OnPowerOff::Exit;
    assert_golden("argv-uefi-kvm.txt", &spec);
}

#[test]
fn golden_commas_and_quotes_in_names_and_paths() {
    let mut spec = spec();
    spec.name = "a,b=c".into();
    spec.qmp_socket = "/run/a,b/qmp.sock".into();
    spec.serial_socket = "/run/a,b/serial.sock".into();
    spec.console_log = "/run/a,b/console.log".into();
    spec.disks[0].path = "/disks/a,\"b\".qcow2".into();
    assert_golden("argv-escaped.txt", &spec);
}

#[test]
fn specs_that_no_command_line_can_express_are_refused() {
    let change = |f: &dyn Fn(&mut VmSpec)| {
        let mut s = spec();
        f(&mut s);
        s.check()
    };
    assert_eq!(change(&|_| ()), Ok(()));
    assert_eq!(change(&|s| s.vcpus = 0), Err(SpecError::Zero { what: "vcpus" }));
    assert_eq!(change(&|s| s.memory_mib = 0), Err(SpecError::Zero { what: "memory_mib" }));
    assert_eq!(change(&|s| s.disks[0].boot_index = None), Err(SpecError::NothingToBoot));
    let long = PathBuf::from(format!("/{}", "x".repeat(SOCKET_PATH_MAX)));
    assert!(matches!(
        change(&|s| s.qmp_socket = long.clone()),
        Err(SpecError::SocketPathTooLong { len, .. }) if len == SOCKET_PATH_MAX + 1
    ));
    assert!(matches!(change(&|s| s.disks[0].path = "relative".into()), Err(SpecError::Path { .. })));
    assert!(matches!(change(&|s| s.console_log = "/a\nb".into()), Err(SpecError::Path { .. })));
    assert!(matches!(change(&|s| s.disks[0].serial = "x".repeat(21)), Err(SpecError::Serial { .. })));
    assert!(matches!(change(&|s| s.disks[0].format = DiskFormat::Raw), Err(SpecError::RawWithBacking { .. })));
    let many = vec![disk(1, DiskFormat::Raw, Some(0)); DISKS_MAX + 1];
    assert!(matches!(change(&|s| s.disks = many.clone()), Err(SpecError::TooManyDisks { .. })));
}

#[test]
fn a_qcow2_without_a_declared_backing_is_pinned_to_none() {
    let mut spec = spec();
    spec.disks[0].backing = None;
    let argv: Vec<String> = render_argv(&spec).into_iter().map(|a| a.into_string().expect("UTF-8")).collect();
    let node = argv.iter().find(|a| a.contains("\"driver\":\"qcow2\"")).expect("a qcow2 node");
    let node: Value = serde_json::from_str(node).expect("JSON");
    assert!(node["backing"].is_null() && node.as_object().expect("an object").contains_key("backing"));
}

#[test]
fn guests_see_no_virtualization_of_their_own_unless_it_is_permitted() {
    let nested = Accel::Kvm { cpu_flags: vec!["arch-capabilities=off".into()] };
    let closed = nested.clone().without_nesting();
    assert_eq!(
        closed,
        Accel::Kvm { cpu_flags: ["arch-capabilities=off", "vmx=off", "svm=off"].map(str::to_owned).to_vec() }
    );
    assert_eq!(Accel::TCG.without_nesting(), Accel::TCG);
    assert!(TCG_CPU.split(',').any(|flag| flag == "svm=off"), "an emulated one has none either");
}
