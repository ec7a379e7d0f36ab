//! One part of an image, from the first byte to the row that names it.
//!
//! Nothing is believed: the size and the hash that the sender announces are compared with what arrived, and the content is inspected
//! before it is published under its hash. Until the row commits, nothing names the bytes. Wherever the upload is cut, they go with the
//! temporary file, or later with the sweep of objects that no image names.

use super::{StorageService, failure::object_problem};
use crate::{
    Config,
    object::{self, Staged, inspect, qemu_img},
    plan::{self, PartPlan},
    reservation::ImageReservation,
};
use domain::{
    ErrorKind, ImageId, Problem, ProjectId, Timestamp,
    image::{DiskFormat, Image, ImagePart, ImagePartKind, ImageState, gib_of, size_gib},
};
use operation::{
    Activity, COMMIT_ATTEMPTS, commit_problem, contended, find_outcome, key_reused, read_problem, store_outcome,
};
use proto::{
    convert::{image_to_pb, parse},
    storage::v1::{self as pb, upload_image_request::Message},
};
use service_kit::{context::CallContext, error_chain, share::Exhausted};
use std::time::{Duration, Instant};
use store::{CommitError, Guard, ImageChange, ImageObjectPut, OperationTable, Unit};
use tonic::{Status, Streaming};

/// A kernel or an initrd is held in memory by QEMU.
const BOOT_PART_BYTES_MAX: u64 = 1 << 30;
/// How many bytes of an upload are taken between two looks at the free space.
const SPACE_EVERY_BYTES: u64 = 16 << 20;

/// The first message of an upload.
struct Opened {
    project_id: ProjectId,
    image_id: ImageId,
    part: ImagePartKind,
    /// Empty when the sender didn't announce it.
    sha256: String,
    /// 0 when the sender didn't announce it.
    size_bytes: u64,
}

impl Opened {
    fn parse(open: &pb::UploadOpen) -> Result<Self, Problem> {
        let part = ImagePartKind::parse(&open.part)
            .ok_or_else(|| Problem::invalid("part", format!("`{}` is none of: disk, kernel, initrd", open.part)))?;
        if !open.sha256.is_empty() {
            object::parse_sha256(&open.sha256).map_err(|e| e.problem())?;
        }
        Ok(Self {
            project_id: parse("project_id", &open.project_id)?,
            image_id: parse("image_id", &open.image_id)?,
            part,
            sha256: open.sha256.clone(),
            size_bytes: open.size_bytes,
        })
    }

    fn bytes_max(&self, part_gib_max: u64) -> u64 {
        let most = part_gib_max << 30;
        match self.part {
            ImagePartKind::Disk => most,
            ImagePartKind::Kernel | ImagePartKind::Initrd => most.min(BOOT_PART_BYTES_MAX),
        }
    }
}

fn too_large(bytes_max: u64) -> Problem {
    Problem::new(ErrorKind::PayloadTooLarge, "image_too_large", format!("the part is larger than {bytes_max} bytes"))
        .with_hint(
            "make it smaller (qcow2 leaves out what is empty), or ask an administrator to raise storage.part_gib_max",
        )
}

fn cut(status: &Status) -> Problem {
    tracing::info!(code = ?status.code(), "an upload was cut by its sender");
    Problem::new(ErrorKind::InvalidArgument, "upload_cut", "the upload was cut before its end; nothing of it was kept")
        .with_hint("send it again")
}

/// The next message; `None` at the end of the stream.
async fn next(pace: &mut Pace, stream: &mut Streaming<pb::UploadImageRequest>) -> Result<Option<Message>, Problem> {
    let waiting_since = Instant::now();
    let answer = tokio::time::timeout(pace.left(), stream.message()).await;
    let message = match answer {
        Ok(Ok(None)) => return Ok(None),
        Ok(Ok(Some(request))) => request.message.ok_or_else(|| Problem::invalid("message", "an empty message"))?,
        Ok(Err(status)) => return Err(cut(&status)),
        Err(_) => return Err(pace.refusal()),
    };
    if let Message::Chunk(chunk) = &message {
        pace.came(waiting_since.elapsed(), chunk.len() as u64);
    }
    Ok(Some(message))
}

/// How fast a sender must be. Only the time counts in which it is waited for: our own disk may be the slow one. Without a least rate a byte a
/// minute would hold a place for ever.
struct Pace {
    /// Within this time of waiting ...
    window: Duration,
    /// ... so many bytes must come.
    least_bytes: u64,
    waited: Duration,
    came: u64,
}

impl Pace {
    fn new(config: &Config) -> Self {
        let secs = config.upload_stall_secs;
        Self {
            window: Duration::from_secs(secs),
            least_bytes: (config.upload_least_kib_per_sec * 1024).saturating_mul(secs).max(1),
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// How long may still be waited.
    fn left(&self) -> Duration {
        self.window.saturating_sub(self.waited)
    }

    fn came(&mut self, waited: Duration, bytes: u64) {
        self.waited += waited;
        self.came += bytes;
        if self.came >= self.least_bytes {
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
    }

    fn refusal(&self) -> Problem {
        let (secs, least) = (self.window.as_secs(), self.least_bytes / 1024);
        let detail = format!(
            "only {} bytes came in {secs} s, and at least {least} KiB must; nothing of the upload was kept",
            self.came
        );
        Problem::new(ErrorKind::DeadlineExceeded, "upload_stalled", detail).with_hint(
            "send it again over a faster connection; an administrator can lower storage.upload_least_kib_per_sec",
        )
    }
}

impl StorageService {
    pub(super) async fn image_upload(
        &self,
        context: CallContext,
        mut stream: Streaming<pb::UploadImageRequest>,
    ) -> Result<pb::UploadImageResponse, Problem> {
        let started = Instant::now();
        let mut pace = Pace::new(&self.config);
        let first = next(&mut pace, &mut stream).await?;
        let Some(Message::Open(open)) = first else {
            return Err(Problem::invalid("open", "the first message must open the upload"));
        };
        let opened = Opened::parse(&open)?;
        let _place = self.uploads.take(opened.project_id).map_err(|exhausted| self.too_many(exhausted))?;
        let answer = self.take_admitted(&context, &opened, (&mut pace, &mut stream)).await;
        metrics::histogram!("iaas_storage_upload_seconds").record(started.elapsed().as_secs_f64());
        match answer {
            // Its first request brought the part that is there, so this one brings another.
            Err(problem) if problem.code == plan::PART_EXISTS && self.answered_before(&context).await? => {
                Err(key_reused())
            }
            answer => answer,
        }
    }

    async fn take_admitted(
        &self,
        context: &CallContext,
        opened: &Opened,
        stream: (&mut Pace, &mut Streaming<pb::UploadImageRequest>),
    ) -> Result<pb::UploadImageResponse, Problem> {
        let image = self.admit(opened).await?;
        let mut reservation = self.reservations.begin(&image).await;
        let answer = self.take(context, opened, &image, &mut reservation, stream).await;
        reservation.release().await;
        answer
    }

    async fn answered_before(&self, context: &CallContext) -> Result<bool, Problem> {
        let Some(id) = context.operation_id else { return Ok(false) };
        let answer: Option<pb::UploadImageResponse> = find_outcome(&self.store, OperationTable::Storage, id).await?;
        Ok(answer.is_some())
    }

    /// An admitted upload, from its first byte to the row that names them.
    async fn take(
        &self,
        context: &CallContext,
        opened: &Opened,
        image: &Image,
        reservation: &mut ImageReservation,
        stream: (&mut Pace, &mut Streaming<pb::UploadImageRequest>),
    ) -> Result<pb::UploadImageResponse, Problem> {
        let staged = self.receive(opened, image, reservation, stream).await?;
        metrics::counter!("iaas_storage_upload_bytes_total").increment(staged.size_bytes);
        let min_disk_gib = self.inspect(opened, image.format, &staged).await?;
        let sha256 = staged.sha256.clone();
        let added = self.add_part(context, opened, staged, min_disk_gib, reservation);
        let answer = self.operations.execute_once(context, added).await?;
        // The first answer of the operation is about the bytes that came then.
        let parts = answer.image.iter().flat_map(|image| &image.parts);
        let same = parts.filter(|part| part.kind == opened.part.as_str()).all(|part| part.sha256 == sha256);
        if same { Ok(answer) } else { Err(key_reused()) }
    }

    fn too_many(&self, exhausted: Exhausted) -> Problem {
        let most = self.config.uploads_max;
        let detail = match exhausted {
            Exhausted::Share => {
                format!("of {most} uploads at once the project has as many as one project may have now")
            }
            Exhausted::Total => format!("{most} uploads are in progress"),
        };
        Problem::unavailable(detail).with_hint("try again when an upload of yours has ended")
    }

    /// Refuses at once what can't succeed, before any byte is taken.
    async fn admit(&self, opened: &Opened) -> Result<Image, Problem> {
        let image = self.image_owned(opened.project_id, opened.image_id).await?;
        let unknown = ImagePart { kind: opened.part, sha256: opened.sha256.clone(), size_bytes: opened.size_bytes };
        match standing_part(&image, opened) {
            // Without an announced hash a part that is there may still be this one, if it has as many bytes.
            Some(there) if opened.sha256.is_empty() => {
                if opened.size_bytes != 0 && opened.size_bytes != there.size_bytes {
                    return Err(plan::part_exists(&image, opened.part));
                }
            }
            Some(_) | None => {
                plan::plan_part(&image, unknown, 0)?;
            }
        }
        let most = opened.bytes_max(self.config.part_gib_max);
        if opened.size_bytes > most {
            return Err(too_large(most));
        }
        self.check_space(opened.size_bytes).await?;
        self.extend_deadline(image.id).await?;
        Ok(image)
    }

    async fn check_space(&self, incoming_bytes: u64) -> Result<(), Problem> {
        self.objects.check_space(incoming_bytes, self.config.free_gib_min << 30).await.map_err(object_problem)
    }

    /// Takes all bytes into a temporary file, and compares them with what was announced. What they take of the quota is reserved first; bytes
    /// that are only compared with a part that is there take nothing, and are as many as it has.
    async fn receive(
        &self,
        opened: &Opened,
        image: &Image,
        reservation: &mut ImageReservation,
        (pace, stream): (&mut Pace, &mut Streaming<pb::UploadImageRequest>),
    ) -> Result<Staged, Problem> {
        let most = opened.bytes_max(self.config.part_gib_max);
        let standing = standing_part(image, opened);
        if standing.is_none() {
            reservation.raise_to(gib_of(opened.size_bytes)).await?;
        }
        let mut upload = self.objects.begin().await.map_err(object_problem)?;
        let (mut taken, mut looked_at) = (0u64, 0u64);
        let extend_every = Duration::from_secs(self.config.image_deadline_secs / 8);
        let mut extended_at = Instant::now();
        while let Some(message) = next(pace, stream).await? {
            let Message::Chunk(chunk) = message else {
                return Err(Problem::invalid("message", "an upload is opened once"));
            };
            taken += chunk.len() as u64;
            if taken > most {
                return Err(too_large(most));
            }
            match standing {
                Some(there) if taken > there.size_bytes => return Err(plan::part_exists(image, opened.part)),
                Some(_) => {}
                None => reservation.raise_to(gib_of(taken)).await?,
            }
            if taken - looked_at >= SPACE_EVERY_BYTES {
                looked_at = taken;
                self.check_space(0).await?;
            }
            upload.write(chunk).await.map_err(object_problem)?;
            if extended_at.elapsed() >= extend_every {
                extended_at = Instant::now();
                self.extend_deadline(image.id).await?;
            }
        }
        let staged = upload.finish().await.map_err(object_problem)?;
        if opened.size_bytes != 0 && staged.size_bytes != opened.size_bytes {
            return Err(Problem::new(
                ErrorKind::InvalidArgument,
                "size_mismatch",
                format!("{} bytes were announced and {} came; nothing was kept", opened.size_bytes, staged.size_bytes),
            )
            .with_hint("send it again"));
        }
        if !opened.sha256.is_empty() && staged.sha256 != opened.sha256 {
            return Err(Problem::new(
                ErrorKind::InvalidArgument,
                "sha256_mismatch",
                format!("what came has the SHA-256 {}, not {}; nothing was kept", staged.sha256, opened.sha256),
            )
            .with_hint("compute the SHA-256 of the file again, and send it again"));
        }
        Ok(staged)
    }

    /// Refuses bad content; gives the smallest root disk for it, in GiB. Few are checked at once: a check is work that a tenant sends.
    async fn inspect(&self, opened: &Opened, format: DiskFormat, staged: &Staged) -> Result<u64, Problem> {
        let head = staged.head(inspect::HEAD_BYTES).await.map_err(object_problem)?;
        let sound =
            inspect::inspect(opened.part, format, &head, staged.size_bytes).map_err(|refused| refused.problem())?;
        drop(head);
        let Some(header) = sound.qcow2 else { return Ok(sound.min_disk_gib()) };
        let _own = self.checking.enter(opened.project_id).await;
        let Ok(_turn) = self.checks.acquire().await else {
            return Err(Problem::unavailable("the service is stopping"));
        };
        let file = || std::fs::File::open(staged.path());
        match qemu_img::check_qcow2(file, &header, staged.size_bytes).await {
            Ok(verdict) => verdict.map_err(|refused| refused.problem())?,
            Err(error) => {
                tracing::error!(error = error_chain(&error), "an image can't be inspected");
                return Err(Problem::unavailable("the image can't be inspected now"));
            }
        }
        Ok(sound.min_disk_gib())
    }

    /// Keeps a queued image from expiring under its upload.
    async fn extend_deadline(&self, image_id: ImageId) -> Result<(), Problem> {
        for _ in 0..COMMIT_ATTEMPTS {
            let now = Timestamp::now();
            let found = self.store.image_find(image_id).await.map_err(read_problem)?;
            let image = found.ok_or_else(|| Problem::not_found("image", image_id))?;
            if !plan::deadline_due(&image, now, self.config.image_deadline_secs) {
                return Ok(());
            }
            let deadline_at = Some(now.plus_secs(self.config.image_deadline_secs));
            match self.store.commit(Unit::new().op(change(&Image { deadline_at, ..image.clone() }, &image))).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Guard(Guard::ImageGeneration)) => {}
                Err(error) => return Err(commit_problem(error)),
            }
        }
        Err(contended("the image"))
    }

    /// Publishes the bytes, unless the image has the part already, and names them in its row; with all its parts it is active.
    async fn add_part(
        &self,
        context: &CallContext,
        opened: &Opened,
        staged: Staged,
        min_disk_gib: u64,
        reservation: &mut ImageReservation,
    ) -> Result<pb::UploadImageResponse, Problem> {
        let _turn = self.publishing.enter((opened.image_id, opened.part)).await;
        let part = ImagePart { kind: opened.part, sha256: staged.sha256.clone(), size_bytes: staged.size_bytes };
        // From here until its row stands nobody removes these bytes as nobody's.
        let _named = self.naming.enter(part.sha256.clone()).await;
        let mut staged = Some(staged);
        for _ in 0..COMMIT_ATTEMPTS {
            let image = self.image_owned(opened.project_id, opened.image_id).await?;
            let next = match plan::plan_part(&image, part.clone(), min_disk_gib)? {
                PartPlan::Repeat => return Ok(pb::UploadImageResponse { image: Some(image_to_pb(&image)) }),
                PartPlan::Add(next) => next,
            };
            if let Some(staged) = staged.take() {
                self.objects.publish(staged).await.map_err(object_problem)?;
            }
            let response = pb::UploadImageResponse { image: Some(image_to_pb(&next)) };
            let mut unit = addition(context, &next, &image, &part, &response);
            let exchanged = reservation.exchange(&mut unit, size_gib(&next.parts) - size_gib(&image.parts));
            match self.store.commit(unit).await {
                Ok(()) => return Ok(response),
                Err(CommitError::Guard(Guard::ImageGeneration)) => reservation.restore(exchanged),
                Err(error @ (CommitError::Guard(_) | CommitError::Constraint(_))) => {
                    reservation.restore(exchanged);
                    return Err(commit_problem(error));
                }
                // The outcome may be unknown: a sweep releases what is left.
                Err(error) => return Err(commit_problem(error)),
            }
        }
        Err(contended("the image"))
    }
}

/// The part that is there already.
fn standing_part<'a>(image: &'a Image, opened: &Opened) -> Option<&'a ImagePart> {
    image.parts.iter().find(|part| part.kind == opened.part)
}

fn change(next: &Image, image: &Image) -> ImageChange {
    ImageChange {
        id: image.id,
        expected_generation: image.generation,
        state: next.state,
        parts: next.parts.clone(),
        size_gib: size_gib(&next.parts),
        format: next.format,
        min_disk_gib: next.min_disk_gib,
        reason: next.reason.clone(),
        deadline_at: next.deadline_at,
    }
}

fn addition(
    context: &CallContext,
    next: &Image,
    image: &Image,
    part: &ImagePart,
    response: &pb::UploadImageResponse,
) -> Unit {
    let now = Timestamp::now();
    let names = ImageObjectPut { sha256: part.sha256.clone(), image_id: image.id };
    let mut unit = Unit::new().op(change(next, image)).op(names);
    store_outcome(&mut unit, OperationTable::Storage, context, response, now);
    let (event, message) = match next.state {
        ImageState::Active => ("image.active", format!("the image {} is active", image.name)),
        ImageState::Queued | ImageState::Deleting => {
            ("image.part_uploaded", format!("the image {} has its {}", image.name, part.kind.as_str()))
        }
    };
    let data = serde_json::json!({
        "part": part.kind.as_str(), "sha256": part.sha256, "size_bytes": part.size_bytes, "min_disk_gib": next.min_disk_gib,
    });
    Activity::new("image", image.id, "image.upload", event, message)
        .in_project(image.project_id)
        .with_detail(format!("{} {}", part.kind.as_str(), part.sha256))
        .with_data(data)
        .record(&mut unit, context, now);
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_must_keep_the_least_rate_and_our_own_slowness_is_not_its() {
        let config = Config { upload_stall_secs: 60, upload_least_kib_per_sec: 1, ..Config::default() };
        let secs = Duration::from_secs;
        let mut trickle = Pace::new(&config);
        for _ in 0..59 {
            trickle.came(secs(1), 1);
        }
        assert_eq!(trickle.left(), secs(1), "a byte a second isn't enough");
        assert_eq!(trickle.refusal().code, "upload_stalled");
        let mut steady = Pace::new(&config);
        for _ in 0..1000 {
            steady.came(secs(1), 1024);
            assert!(!steady.left().is_zero());
        }
        let mut fast = Pace::new(&config);
        fast.came(secs(59), 60 * 1024);
        assert_eq!(fast.left(), secs(60), "the next window begins");
    }
}
