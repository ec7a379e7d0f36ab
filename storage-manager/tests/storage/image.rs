//! Images: made, uploaded, inspected, deleted.

use crate::support::{
    World, context, create_request, eventually, initrd, kernel, message, noise, qcow2, qemu_img, sha256,
};
use bytes::Bytes;
use domain::{
    ErrorKind, ImageId, InstanceId, Timestamp,
    flavor::Size,
    image::ImageState,
    instance::{DiskPool, InstanceSpec, InstanceState, OnCrash, OnHostLoss, Power},
};
use proto::{
    status::from_status,
    storage::v1::{self as pb, upload_image_request::Message},
};
use service_kit::context::CallContext;
use store::{InstanceInsert, Unit};

#[tokio::test]
async fn a_disk_image_becomes_active_with_the_disk_it_needs() {
    let files = tempfile::tempdir().expect("a directory");
    let path = qcow2(files.path(), "disk.qcow2", "1500M", &[]);
    let content = std::fs::read(path).expect("the image");
    for world in World::each().await {
        let queued = world.create("debian", "disk", "qcow2").await.expect("made");
        assert_eq!((queued.state.as_str(), queued.generation), ("queued", 1));
        assert!(queued.deadline_at.is_some(), "a state that isn't final has a deadline");
        let active = world.upload(&queued, "disk", &content).await.expect("uploaded");
        assert_eq!((active.state.as_str(), active.min_disk_gib, active.deadline_at), ("active", 2, None));
        assert_eq!(active.parts[0].sha256, sha256(&content));
        let stored = world.image(active.id.parse().expect("an id")).await.expect("a row");
        assert_eq!(proto::convert::image_to_pb(&stored), active, "the answer is what was stored");
        assert_eq!(world.events_of(&active.id).await, ["image.queued", "image.active"]);
        let audit = world.store.audit_list(None, store::Page::first(10)).await.expect("the audit log");
        let lines: Vec<_> = audit.iter().map(|a| (a.action.as_str(), a.principal_name.as_str())).collect();
        assert_eq!(lines, [("image.create", "ann"), ("image.upload", "ann")]);
        assert_eq!(world.fetch(&sha256(&content), 0).await, Ok((content.clone(), content.len() as u64)));
        world.end().await;
    }
}

#[tokio::test]
async fn a_kernel_image_needs_both_parts_and_never_changes() {
    let world = World::one().await;
    let image = world.create("tiny", "kernel", "").await.expect("made");
    let half = world.upload(&image, "initrd", &initrd()).await.expect("uploaded");
    assert_eq!(half.state, "queued");
    assert_eq!(world.upload(&image, "initrd", &initrd()).await.expect("a repeat").generation, half.generation);
    let other = world.upload(&image, "initrd", &b"\x1f\x8b".repeat(40)).await.expect_err("other bytes");
    assert_eq!((other.kind, other.code.as_str()), (ErrorKind::InvalidState, "part_exists"));
    let whole = world.upload(&image, "kernel", &kernel(1)).await.expect("uploaded");
    assert_eq!((whole.state.as_str(), whole.parts.len()), ("active", 2));
    assert_eq!(world.upload(&image, "kernel", &kernel(1)).await.expect("a repeat").state, "active");
    let foreign = world.upload(&image, "disk", &[0; 512]).await.expect_err("no such part");
    assert_eq!(foreign.kind, ErrorKind::InvalidArgument);
    // Without announcing the hash: the same bytes are a repeat, others are refused.
    let unannounced = |content: Vec<u8>| {
        let open = world.open(&image, "kernel", "", 0);
        let world = &world;
        async move { world.upload_as(&context(), open, &content).await }
    };
    assert_eq!(unannounced(kernel(1)).await.expect("a repeat").generation, whole.generation);
    assert_eq!(unannounced(kernel(2)).await.expect_err("other bytes").code, "part_exists");
    world.end().await;
}

#[tokio::test]
async fn parts_uploaded_at_once_make_one_active_image() {
    for world in World::each().await {
        let image = world.create("tiny", "kernel", "raw").await.expect("made");
        let (k, i) = (kernel(3), initrd());
        let (a, b) = tokio::join!(world.upload(&image, "kernel", &k), world.upload(&image, "initrd", &i));
        let states = [a.expect("uploaded").state, b.expect("uploaded").state];
        assert!(states.contains(&"active".to_owned()), "{states:?}");
        let stored = world.image(image.id.parse().expect("an id")).await.expect("a row");
        assert_eq!((stored.state, stored.parts.len(), stored.generation), (ImageState::Active, 2, 3));
        world.end().await;
    }
}

#[tokio::test]
async fn a_cut_upload_leaves_nothing() {
    let world = World::one().await;
    let image = world.create("cut", "disk", "raw").await.expect("made");
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let mut client = world.client.clone();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let call = tokio::spawn(async move { client.upload_image(context().request(stream)).await });
    let open = world.open(&image, "disk", "", 0);
    sender.send(message(Message::Open(open))).await.expect("taken");
    sender.send(message(Message::Chunk(Bytes::from(noise(1 << 20))))).await.expect("taken");
    eventually("bytes arrive in a temporary file", async || world.temporary_files() == 1).await;
    call.abort();
    eventually("the temporary file is gone", async || world.temporary_files() == 0).await;
    let stored = world.image(image.id.parse().expect("an id")).await.expect("a row");
    assert_eq!((stored.state, stored.parts.len()), (ImageState::Queued, 0));
    world.upload(&image, "disk", &noise(1 << 20)).await.expect("it can be sent again");
    world.end().await;
}

#[tokio::test]
async fn a_stalled_upload_is_cut() {
    let world = World::with(storage_manager::Config { upload_stall_secs: 1, ..Default::default() }).await;
    let image = world.create("stalled", "disk", "raw").await.expect("made");
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    sender.send(message(Message::Open(world.open(&image, "disk", "", 0)))).await.expect("taken");
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let status = world.client.clone().upload_image(context().request(stream)).await.expect_err("cut");
    assert_eq!(from_status(&status).code, "upload_stalled");
    drop(sender);
    eventually("the temporary file is gone", async || world.temporary_files() == 0).await;
    world.end().await;
}

#[tokio::test]
async fn what_arrives_must_be_what_was_announced() {
    let world = World::one().await;
    let image = world.create("raw", "disk", "raw").await.expect("made");
    let content = noise(300_000 - 300_000 % 512);
    let upload = |sha256: String, size: u64| {
        let open = world.open(&image, "disk", &sha256, size);
        let (world, content) = (&world, &content);
        async move { world.upload_as(&context(), open, content).await }
    };
    let other_hash = upload(sha256(b"something else"), 0).await.expect_err("another hash");
    assert_eq!((other_hash.kind, other_hash.code.as_str()), (ErrorKind::InvalidArgument, "sha256_mismatch"));
    let other_size = upload(String::new(), 512).await.expect_err("another size");
    assert_eq!(other_size.code, "size_mismatch");
    assert_eq!(upload("xyz".into(), 0).await.expect_err("no hash").kind, ErrorKind::InvalidArgument);
    assert_eq!(upload(String::new(), u64::MAX).await.expect_err("too large").kind, ErrorKind::PayloadTooLarge);
    eventually("the temporary file is gone", async || world.temporary_files() == 0).await;
    assert!(!world.object_path(&sha256(&content)).exists(), "nothing was kept");
    let stranger =
        pb::UploadOpen { project_id: world.project(1).await.to_string(), ..world.open(&image, "disk", "", 0) };
    let hidden = world.upload_as(&context(), stranger, &content).await.expect_err("another project's");
    assert_eq!(hidden.kind, ErrorKind::NotFound);
    world.end().await;
}

#[tokio::test]
async fn images_that_lie_or_reach_outside_are_refused() {
    let files = tempfile::tempdir().expect("a directory");
    let base = qcow2(files.path(), "base.qcow2", "10M", &[]);
    let base_text = base.display().to_string();
    let backed = qcow2(files.path(), "backed.qcow2", "10M", &["-b", &base_text, "-F", "qcow2"]);
    let data_option = format!("data_file={}", files.path().join("data.raw").display());
    let with_data = qcow2(files.path(), "external.qcow2", "10M", &["-o", &data_option]);
    let vmdk = files.path().join("x.vmdk").display().to_string();
    qemu_img(&["create", "-q", "-f", "vmdk", &vmdk, "10M"]);
    let vdi = files.path().join("x.vdi").display().to_string();
    qemu_img(&["create", "-q", "-f", "vdi", &vdi, "10M"]);
    let read = |path: &dyn AsRef<std::path::Path>| std::fs::read(path).expect("the image");
    let filled = qcow2(files.path(), "filled.qcow2", "10M", &[]);
    let io = "write -P 7 0 1M";
    let written = std::process::Command::new("qemu-io").args(["-f", "qcow2", "-c", io]).arg(&filled).output();
    assert!(written.is_ok_and(|o| o.status.success()), "qemu-io is installed with qemu-utils");
    let sound = read(&filled);
    // The L1 table's first entry points past the end of the file: only a look behind the header finds it.
    let mut broken = sound.clone();
    let l1 = u64::from_be_bytes(broken[40..48].try_into().expect("8 bytes")) as usize;
    broken[l1..l1 + 8].copy_from_slice(&0x8000_0000_7fff_0000u64.to_be_bytes());
    let world = World::one().await;
    let cases: [(&str, &str, Vec<u8>, &str); 9] = [
        ("qcow2", "a backing file", read(&backed), "backing file"),
        ("qcow2", "an external data file", read(&with_data), "external data file"),
        ("raw", "a qcow2 declared as raw", sound.clone(), "a qcow2 image"),
        ("raw", "a VMDK", read(&vmdk), "a VMDK image"),
        ("raw", "a VDI", read(&vdi), "a VDI image"),
        ("qcow2", "a raw file declared as qcow2", vec![0; 1 << 20], "magic bytes are missing"),
        ("qcow2", "a header cut short", sound[..80].to_vec(), "cut short"),
        ("qcow2", "tables that lead nowhere", broken, "qemu-img refuses it"),
        ("raw", "half a sector", vec![0; 1000], "multiple of 512"),
    ];
    let mut names = 0;
    for (format, what, content, expected) in cases {
        names += 1;
        let image = world.create(&format!("lie-{names}"), "disk", format).await.expect("made");
        let refused = world.upload(&image, "disk", &content).await.expect_err(what);
        assert_eq!((refused.kind, refused.code.as_str()), (ErrorKind::InvalidArgument, "image_refused"), "{what}");
        assert!(refused.detail.contains(expected), "{what}: {}", refused.detail);
        assert!(refused.hint.is_some(), "{what} comes with a hint");
        assert!(!world.object_path(&sha256(&content)).exists(), "{what}: nothing was kept");
        let stored = world.image(image.id.parse().expect("an id")).await.expect("a row");
        assert_eq!(stored.state, ImageState::Queued, "{what}");
    }
    let image = world.create("boot", "kernel", "").await.expect("made");
    for (part, content) in [("kernel", initrd()), ("initrd", kernel(0)), ("kernel", vec![])] {
        let refused = world.upload(&image, part, &content).await.expect_err("not what it should be");
        assert_eq!(refused.code, "image_refused");
    }
    let image = world.create("good", "disk", "qcow2").await.expect("made");
    world.upload(&image, "disk", &sound).await.expect("the sound one is taken");
    eventually("the temporary file is gone", async || world.temporary_files() == 0).await;
    world.end().await;
}

/// What makes `qemu-img` write without end: all entries of the first table lead to one second table, whose every entry is wrong.
fn complaining(l1_entries: u32) -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let mut image = vec![0u8; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    for (at, value) in [(4, 3u32), (20, 16), (36, l1_entries), (56, 1), (96, 4), (100, 104)] {
        put(at, &value.to_be_bytes());
    }
    for (at, value) in [(24, 256u64 << 30), (40, 4 * CLUSTER as u64), (48, CLUSTER as u64)] {
        put(at, &value.to_be_bytes());
    }
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    put(2 * CLUSTER, &1u16.to_be_bytes().repeat(520));
    put(3 * CLUSTER, &(1u64 << 63 | 0x7000_0000_0200).to_be_bytes().repeat(CLUSTER / 8));
    let l1 = ((1u64 << 63) | (3 * CLUSTER as u64)).to_be_bytes().repeat(usize::try_from(l1_entries).expect("few"));
    image.extend(l1);
    image
}

/// A sound image with so many dirty bitmaps of long names that `qemu-img info` has megabytes to say.
fn talkative(directory: &std::path::Path) -> Vec<u8> {
    let path = qcow2(directory, "bitmaps.qcow2", "10M", &[]).display().to_string();
    for n in 0..300 {
        qemu_img(&["bitmap", "--add", "-f", "qcow2", &path, &format!("{n:x>1020}")]);
    }
    std::fs::read(path).expect("the image")
}

#[tokio::test]
async fn an_image_that_makes_its_check_talk_without_end_is_refused() {
    let files = tempfile::tempdir().expect("a directory");
    let world = World::one().await;
    let cases = [
        ("few", complaining(4096)),
        ("as-many-as-there-may-be", complaining(4 << 20)),
        ("bitmaps", talkative(files.path())),
    ];
    for (name, content) in cases {
        let image = world.create(name, "disk", "qcow2").await.expect("made");
        let refused = world.upload(&image, "disk", &content).await.expect_err(name);
        assert_eq!((refused.kind, refused.code.as_str()), (ErrorKind::InvalidArgument, "image_refused"), "{name}");
        assert!(refused.detail.contains("than can be told"), "{name}: {}", refused.detail);
        assert!(!world.object_path(&sha256(&content)).exists(), "{name}: nothing was kept");
    }
    let with_snapshots = qcow2(files.path(), "snapshots.qcow2", "10M", &[]);
    qemu_img(&["snapshot", "-c", "one", &with_snapshots.display().to_string()]);
    let image = world.create("snapshots", "disk", "qcow2").await.expect("made");
    let content = std::fs::read(with_snapshots).expect("the image");
    let refused = world.upload(&image, "disk", &content).await.expect_err("it has a snapshot");
    assert!(refused.detail.contains("internal snapshots"), "{}", refused.detail);
    assert!(refused.hint.is_some_and(|hint| hint.contains("qemu-img convert")));
    eventually("the temporary files are gone", async || world.temporary_files() == 0).await;
    world.end().await;
}

#[tokio::test]
async fn a_request_for_an_image_is_checked() {
    let world = World::one().await;
    let valid = || create_request(ImageId::new(), world.project_id, "x", "disk", "raw");
    for (field, request) in [
        ("name", pb::CreateImageRequest { name: "Not A Name".into(), ..valid() }),
        ("kind", pb::CreateImageRequest { kind: "iso".into(), ..valid() }),
        ("format", pb::CreateImageRequest { format: "vmdk".into(), ..valid() }),
        ("format", pb::CreateImageRequest { format: String::new(), ..valid() }),
        ("format", pb::CreateImageRequest { kind: "kernel".into(), format: "qcow2".into(), ..valid() }),
        ("visibility", pb::CreateImageRequest { visibility: "secret".into(), ..valid() }),
        ("cmdline", pb::CreateImageRequest { cmdline: "quiet".into(), ..valid() }),
        (
            "cmdline",
            pb::CreateImageRequest { kind: "kernel".into(), format: String::new(), cmdline: "a\nb".into(), ..valid() },
        ),
        ("id", pb::CreateImageRequest { id: "7".into(), ..valid() }),
    ] {
        let problem = world.create_as(&context(), request).await.expect_err(field);
        assert_eq!((problem.kind, problem.errors[0].field.as_str()), (ErrorKind::InvalidArgument, field));
    }
    let dry = CallContext { dry_run: true, ..context() };
    let planned = world.create_as(&dry, valid()).await.expect("a plan");
    assert_eq!(world.image(planned.id.parse().expect("an id")).await, None, "a dry run changes nothing");
    world.create("x", "disk", "raw").await.expect("made");
    for context in [dry, context()] {
        let taken = world.create_as(&context, valid()).await.expect_err("taken");
        assert_eq!((taken.kind, taken.code.as_str()), (ErrorKind::AlreadyExists, "name_taken"));
    }
    world.end().await;
}

#[tokio::test]
async fn repeats_of_an_operation_get_its_first_answer() {
    for world in World::each().await {
        let (context, request) = (context(), create_request(ImageId::new(), world.project_id, "once", "disk", "raw"));
        let calls = (0..8).map(|_| world.create_as(&context, request.clone()));
        let answers = futures::future::join_all(calls).await;
        let first = answers[0].clone().expect("made");
        assert!(answers.iter().all(|a| a.as_ref() == Ok(&first)), "{answers:?}");
        assert_eq!(world.events_of(&first.id).await, ["image.queued"], "it happened once");
        let content = noise(1024);
        let open = world.open(&first, "disk", &sha256(&content), 1024);
        let active = world.upload_as(&context_of(&context), open, &content).await.expect("uploaded");
        assert_eq!(active.state, "active");
        // Its own answer, although the image has moved on.
        assert_eq!(world.create_as(&context, request).await, Ok(first));
        world.end().await;
    }
}

/// The same caller, another operation.
fn context_of(context: &CallContext) -> CallContext {
    CallContext { operation_id: Some(domain::OperationId::new()), ..context.clone() }
}

#[tokio::test]
async fn an_image_in_use_stays_and_an_unused_one_goes() {
    for world in World::each().await {
        let image = world.create("base", "disk", "raw").await.expect("made");
        let image = world.upload(&image, "disk", &noise(512)).await.expect("uploaded");
        let id: ImageId = image.id.parse().expect("an id");
        insert_instance(&world, id).await;
        let request = |project_id: String, expected_generation: i64| pb::DeleteImageRequest {
            project_id,
            image_id: image.id.clone(),
            expected_generation,
        };
        let mine = || world.project_id.to_string();
        let delete = |context: CallContext, request: pb::DeleteImageRequest| {
            let mut client = world.client.clone();
            async move { client.delete_image(context.request(request)).await.map_err(|s| from_status(&s)) }
        };
        let used = delete(context(), request(mine(), 0)).await.expect_err("in use");
        assert_eq!((used.kind, used.code.as_str()), (ErrorKind::InvalidState, "image_in_use"));
        assert!(used.detail.starts_with("1 instance uses"), "{}", used.detail);
        delete_instances(&world, id).await;
        let stale = delete(context(), request(mine(), 1)).await.expect_err("another generation");
        assert_eq!(stale.kind, ErrorKind::PreconditionFailed);
        let stranger = world.project(1).await.to_string();
        assert_eq!(delete(context(), request(stranger, 0)).await.expect_err("hidden").kind, ErrorKind::NotFound);
        let dry = CallContext { dry_run: true, ..context() };
        delete(dry, request(mine(), image.generation)).await.expect("it could go");
        assert!(world.image(id).await.is_some(), "a dry run changes nothing");
        let context = context();
        delete(context.clone(), request(mine(), image.generation)).await.expect("gone");
        delete(context, request(mine(), image.generation)).await.expect("a repeat of the operation");
        assert_eq!(world.image(id).await, None);
        assert_eq!(world.events_of(&image.id).await, ["image.queued", "image.active", "image.deleted"]);
        let again = delete(crate::support::context(), request(mine(), 0)).await.expect_err("gone");
        assert_eq!(again.kind, ErrorKind::NotFound);
        world.create("base", "disk", "raw").await.expect("its name is free");
        world.end().await;
    }
}

async fn insert_instance(world: &World, image_id: ImageId) {
    let spec = InstanceSpec {
        size: Size { vcpus: 1, memory_mib: 64, disk_gib: 1 },
        flavor: String::new(),
        image_id,
        power: Power::On,
        boot_seq: 0,
        boot_hard: false,
        root_seq: 0,
        stop_timeout_secs: 30,
        on_crash: OnCrash::Restart,
        on_host_loss: OnHostLoss::Wait,
        pool: DiskPool::Local,
        ssh_keys: vec![],
        user_data_base64: String::new(),
        zone: None,
        placement: Default::default(),
        nics: vec![],
        deleted: false,
    };
    let instance = InstanceInsert {
        id: InstanceId::new(),
        project_id: world.project_id,
        name: "user".parse().expect("a name"),
        tags: Default::default(),
        generation: 1,
        epoch: 1,
        host_id: None,
        root_disk_id: None,
        image_id,
        spec,
        placement: None,
        claim_vcpus: 1,
        claim_memory_mib: 64,
        claim_disk_gib: 1,
        state: InstanceState::Pending,
        step: String::new(),
        reason: String::new(),
        deadline_at: None,
        attached: false,
        cpu_baseline: None,
        numa_node: None,
        created_at: Timestamp::now(),
    };
    world.store.commit(Unit::new().op(instance)).await.expect("an instance");
}

async fn delete_instances(world: &World, image_id: ImageId) {
    let filter = store::InstanceFilter { image_id: Some(image_id), limit: 10, ..Default::default() };
    for instance in world.store.instance_list(&filter).await.expect("instances") {
        let gone = store::InstanceDelete { id: instance.id, epoch: instance.epoch };
        world.store.commit(Unit::new().op(gone)).await.expect("deleted");
    }
}
