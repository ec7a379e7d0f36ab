//! Images' rows. They are made queued, and deleted when nothing uses them.

use super::StorageService;
use crate::plan;
use domain::{
    ErrorKind, ImageId, Name, Problem, ProjectId, Timestamp,
    image::{DiskFormat, Image, ImageKind, ImageState, Visibility, size_gib},
    quota::QuotaAmounts,
};
use operation::{
    Activity, COMMIT_ATTEMPTS, check_quota, commit_problem, contended, quota_refusal, read_problem, store_outcome,
};
use proto::{
    convert::{image_to_pb, parse},
    storage::v1 as pb,
};
use service_kit::context::CallContext;
use store::{CommitError, Constraint, Guard, ImageInsert, OperationTable, StorageUsageAdd, Unit};

/// What a new image takes of the quota; its parts take more when they come.
const ONE_IMAGE: QuotaAmounts = QuotaAmounts { images: 1, ..QuotaAmounts::NONE };

fn known<T>(field: &'static str, value: Option<T>, text: &str, choices: &str) -> Result<T, Problem> {
    value.ok_or_else(|| Problem::invalid(field, format!("`{text}` is none of: {choices}")))
}

fn requested(request: &pb::CreateImageRequest, now: Timestamp, deadline_secs: u64) -> Result<Image, Problem> {
    let kind = known("kind", ImageKind::parse(&request.kind), &request.kind, "disk, kernel")?;
    let format = match (kind, request.format.as_str()) {
        // A kernel and an initrd have no format.
        (ImageKind::Kernel, "" | "raw") => DiskFormat::Raw,
        (ImageKind::Kernel, _) => return Err(Problem::invalid("format", "is for disk images")),
        (ImageKind::Disk, "") => return Err(Problem::invalid("format", "a disk image needs one: qcow2 or raw")),
        (ImageKind::Disk, text) => known("format", DiskFormat::parse(text), text, "qcow2, raw")?,
    };
    let visibility = match request.visibility.as_str() {
        "" => Visibility::Private,
        text => known("visibility", Visibility::parse(text), text, "private, public")?,
    };
    let image = Image {
        id: parse("id", &request.id)?,
        project_id: parse("project_id", &request.project_id)?,
        name: parse::<Name>("name", &request.name)?,
        visibility,
        kind,
        format,
        cmdline: request.cmdline.clone(),
        min_disk_gib: 0,
        min_memory_mib: request.min_memory_mib,
        state: ImageState::Queued,
        parts: Vec::new(),
        reason: "waits for its parts to be uploaded".to_owned(),
        deadline_at: Some(now.plus_secs(deadline_secs)),
        generation: 1,
        created_at: now,
    };
    plan::check_image(&image)?;
    Ok(image)
}

impl StorageService {
    pub(super) async fn image_create(
        &self,
        context: CallContext,
        request: pb::CreateImageRequest,
    ) -> Result<pb::CreateImageResponse, Problem> {
        self.operations.execute_once(&context, self.create(&context, &request)).await
    }

    async fn create(
        &self,
        context: &CallContext,
        request: &pb::CreateImageRequest,
    ) -> Result<pb::CreateImageResponse, Problem> {
        let now = Timestamp::now();
        let image = requested(request, now, self.config.image_deadline_secs)?;
        let id = image.id.to_string();
        let response = pb::CreateImageResponse { image: Some(image_to_pb(&image)) };
        if context.dry_run {
            let same = self.store.image_find_by_name(image.project_id, image.name.as_str()).await;
            let taken = same.map_err(read_problem)?.is_some_and(|i| i.project_id == image.project_id);
            if taken {
                return Err(Problem::already_exists("image", &image.name));
            }
            return check_quota(&self.store, image.project_id, &ONE_IMAGE).await.map(|()| response);
        }
        let mut unit = Unit::new();
        store_outcome(&mut unit, OperationTable::Storage, context, &response, now);
        let message = format!("the image {} waits for its parts", image.name);
        Activity::new("image", image.id, "image.create", "image.queued", message)
            .in_project(image.project_id)
            .with_detail(image.name.to_string())
            .with_data(serde_json::json!({ "kind": image.kind.as_str(), "format": image.format.as_str() }))
            .record(&mut unit, context, now);
        let (name, project_id) = (image.name.clone(), image.project_id);
        unit.push(StorageUsageAdd::image(project_id, ONE_IMAGE.images, ONE_IMAGE.image_gib));
        unit.push(ImageInsert {
            id: image.id,
            project_id: image.project_id,
            name: image.name,
            visibility: image.visibility,
            kind: image.kind,
            format: image.format,
            cmdline: image.cmdline,
            min_disk_gib: image.min_disk_gib,
            min_memory_mib: image.min_memory_mib,
            state: image.state,
            size_gib: size_gib(&image.parts),
            parts: image.parts,
            reason: image.reason,
            deadline_at: image.deadline_at,
            created_at: image.created_at,
        });
        match self.store.commit(unit).await {
            Ok(()) => Ok(response),
            Err(CommitError::Constraint(Constraint::ImageName)) => Err(Problem::already_exists("image", name)),
            Err(CommitError::Constraint(Constraint::PrimaryKey(store::Table::Image))) => {
                Err(Problem::already_exists("image", id))
            }
            Err(CommitError::Guard(Guard::StorageQuota)) => {
                Err(quota_refusal(&self.store, project_id, &ONE_IMAGE).await)
            }
            Err(error) => Err(commit_problem(error)),
        }
    }

    /// An image that the project owns. Of others it learns nothing.
    pub(super) async fn image_owned(&self, project_id: ProjectId, image_id: ImageId) -> Result<Image, Problem> {
        let found = self.store.image_find(image_id).await.map_err(read_problem)?;
        found.filter(|i| i.project_id == project_id).ok_or_else(|| Problem::not_found("image", image_id))
    }

    pub(super) async fn image_delete(
        &self,
        context: CallContext,
        request: pb::DeleteImageRequest,
    ) -> Result<pb::DeleteImageResponse, Problem> {
        self.operations.execute_once(&context, self.delete(&context, &request)).await
    }

    async fn delete(
        &self,
        context: &CallContext,
        request: &pb::DeleteImageRequest,
    ) -> Result<pb::DeleteImageResponse, Problem> {
        let (project_id, image_id) =
            (parse("project_id", &request.project_id)?, parse::<ImageId>("image_id", &request.image_id)?);
        for _ in 0..COMMIT_ATTEMPTS {
            let image = self.image_owned(project_id, image_id).await?;
            if request.expected_generation != 0 && request.expected_generation != image.generation {
                return Err(changed_since(&image));
            }
            if let Some(problem) = self.image_in_use(&image).await? {
                return Err(problem);
            }
            if context.dry_run {
                return Ok(pb::DeleteImageResponse {});
            }
            let found = self.store.image_reservation_find(image_id).await.map_err(read_problem)?;
            let Some(reserved) = found else { continue };
            match self.store.commit(deletion(context, &image, reserved.reserved_gib)).await {
                Ok(()) => {
                    self.remove_objects_of(&image).await;
                    self.wake.notify_one();
                    return Ok(pb::DeleteImageResponse {});
                }
                // Another change was faster: what is there now decides.
                Err(CommitError::Guard(Guard::ImageGeneration | Guard::ImageInUse)) => {}
                Err(error) => return Err(commit_problem(error)),
            }
        }
        Err(contended("the image"))
    }

    async fn image_in_use(&self, image: &Image) -> Result<Option<Problem>, Problem> {
        let users = self.store.image_use_count(image.id).await.map_err(read_problem)?;
        Ok((users > 0).then(|| {
            let (users_text, verb) = if users == 1 { ("instance", "uses") } else { ("instances", "use") };
            Problem::new(
                ErrorKind::InvalidState,
                "image_in_use",
                format!("{users} {users_text} {verb} the image {}", image.name),
            )
            .with_hint(format!("delete them first: `iaasctl instance list --image {}` shows them", image.name))
        }))
    }
}

fn changed_since(image: &Image) -> Problem {
    Problem::new(
        ErrorKind::PreconditionFailed,
        "precondition_failed",
        format!("the image {} is at generation {} by now", image.name, image.generation),
    )
    .with_hint("read it again, and decide on what you see")
}

/// The row goes at once, fenced by its generation; its objects are swept when nothing names them any more.
fn deletion(context: &CallContext, image: &Image, reserved_gib: u64) -> Unit {
    let now = Timestamp::now();
    let mut unit = Unit::new();
    store_outcome(&mut unit, OperationTable::Storage, context, &pb::DeleteImageResponse {}, now);
    Activity::new("image", image.id, "image.delete", "image.deleted", format!("the image {} was deleted", image.name))
        .in_project(image.project_id)
        .with_detail(image.name.to_string())
        .record(&mut unit, context, now);
    plan::push_removal(&mut unit, image, reserved_gib);
    unit
}
