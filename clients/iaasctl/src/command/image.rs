//! `image`: making one is declaring it and uploading its parts.

use super::change::{create, delete_each};
use crate::{
    args::{IfNotExists, one_of},
    context::Context,
    error::CliError,
    progress::Transfer,
    size::parse_mib,
};
use clap::{ArgGroup, Args, Subcommand};
use client::{
    Client,
    model::{Image, ImageCreate},
    upload::{self, FileDigest},
};
use domain::image::{DiskFormat, ImageKind, ImagePartKind, ImageState, Visibility};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, Clone, Args)]
pub struct PartArgs {
    /// The file of a bootable disk image
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd"])]
    pub disk: Option<PathBuf>,
    /// The file of a Linux kernel (bzImage)
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The file of the kernel's initrd
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
}

impl PartArgs {
    fn files(&self) -> Vec<(ImagePartKind, &Path)> {
        let parts = [
            (ImagePartKind::Disk, &self.disk),
            (ImagePartKind::Kernel, &self.kernel),
            (ImagePartKind::Initrd, &self.initrd),
        ];
        parts.into_iter().filter_map(|(kind, path)| Some((kind, path.as_deref()?))).collect()
    }
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Create an image from files: a disk, or a kernel with its initrd
    #[command(group = ArgGroup::new("content").required(true).multiple(true).args(["disk", "kernel"]))]
    Create {
        name: String,
        #[command(flatten)]
        parts: PartArgs,
        /// The format of the disk file; the upload fails if the file has another one
        #[arg(long, value_parser = one_of(DiskFormat::ALL, DiskFormat::as_str), requires = "disk")]
        format: Option<DiskFormat>,
        /// The kernel's command line
        #[arg(long, requires = "kernel", value_name = "TEXT")]
        cmdline: Option<String>,
        /// The memory that an instance needs at least
        #[arg(long, value_parser = parse_mib, value_name = "SIZE")]
        min_memory: Option<u64>,
        /// Make the image available to all projects (system admins)
        #[arg(long)]
        public: bool,
        #[command(flatten)]
        exists: IfNotExists,
    },
    /// Upload the parts that a queued image still lacks
    #[command(group = ArgGroup::new("content").required(true).multiple(true).args(["disk", "kernel", "initrd"]))]
    Upload {
        image: String,
        #[command(flatten)]
        parts: PartArgs,
    },
    /// List the project's images and the public ones
    List,
    /// Show an image
    Show { image: String },
    /// Delete images that no instance uses
    Delete {
        #[arg(required = true)]
        images: Vec<String>,
    },
}

pub(super) async fn run(context: Context, command: ImageCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        ImageCommand::Create { name, parts, format, cmdline, min_memory, public, exists } => {
            let kind = if parts.disk.is_some() { ImageKind::Disk } else { ImageKind::Kernel };
            if kind == ImageKind::Kernel && parts.initrd.is_none() {
                return Err(CliError::usage("--kernel needs --initrd FILE"));
            }
            if kind == ImageKind::Disk && format.is_none() {
                return Err(CliError::usage("--disk needs --format qcow2 or raw")
                    .with_hint("`qemu-img info FILE` shows the format"));
            }
            let digests = digest_all(&context, &parts).await?;
            let request = ImageCreate {
                name: name.clone(),
                kind,
                format,
                cmdline,
                min_memory_mib: min_memory,
                visibility: public.then_some(Visibility::Public),
            };
            let mutation = client.image_create(&request);
            let Some(image) = create(&context, mutation, exists.if_not_exists, client.image(&name)).await? else {
                return Ok(());
            };
            let fresh = image.parts.is_empty() && image.state == ImageState::Queued;
            match upload_missing(&context, &client, image.clone(), &digests).await {
                Ok(image) => context.out.one(&image),
                Err(error) => {
                    if fresh {
                        // Nothing of it can be used: free the name. If this fails, the server does it at the deadline.
                        let _ = client.image_delete(&image.id.to_string()).send().await;
                    }
                    Err(error)
                }
            }
        }
        ImageCommand::Upload { image, parts } => {
            let digests = digest_all(&context, &parts).await?;
            let image = client.image(&image).await?;
            context.out.one(&upload_missing(&context, &client, image, &digests).await?)
        }
        ImageCommand::List => context.out.list(&client.images().all().await?),
        ImageCommand::Show { image } => context.out.one(&client.image(&image).await?),
        ImageCommand::Delete { images } => {
            delete_each(&context, "image", &images, |name| client.image_delete(name)).await
        }
    }
}

type Digested = (ImagePartKind, PathBuf, FileDigest);

/// Hashes all files before anything is made, so that a file that can't be read changes nothing.
async fn digest_all(context: &Context, parts: &PartArgs) -> Result<Vec<Digested>, CliError> {
    let mut digests = Vec::new();
    for (kind, path) in parts.files() {
        let size = std::fs::metadata(path)
            .map_err(|source| CliError::File { action: "read", path: path.to_owned(), source })?
            .len();
        // Hashing is fast: only large files are worth a line.
        let quiet = context.quiet || size < 1 << 30;
        let transfer = Transfer::start(quiet, &format!("hashing {}", kind.as_str()), size);
        let digest = upload::digest(path, move |bytes| transfer.at(bytes)).await?;
        digests.push((kind, path.to_owned(), digest));
    }
    Ok(digests)
}

async fn upload_missing(
    context: &Context,
    client: &Client,
    mut image: Image,
    digests: &[Digested],
) -> Result<Image, CliError> {
    let id = image.id.to_string();
    for (kind, path, digest) in digests {
        if let Some(there) = image.parts.iter().find(|p| p.kind == *kind) {
            if there.sha256 != digest.sha256 {
                context.note(&format!(
                    "note: the image has another {} than {}; delete the image to replace it",
                    kind.as_str(),
                    path.display()
                ));
            }
            continue;
        }
        let transfer =
            Arc::new(Transfer::start(context.quiet, &format!("uploading {}", kind.as_str()), digest.size_bytes));
        let progress = Arc::clone(&transfer);
        image = client.image_upload(&id, *kind, path, digest, move |bytes| progress.at(bytes)).await?;
    }
    Ok(image)
}
