//! What a part of an image must look like. Pure: the first bytes and the size in, a verdict out.
//!
//! The declared format is forced everywhere from here on: QEMU never guesses one. A raw disk's content belongs to the guest, so if a
//! raw image were ever probed, its guest could write a qcow2 header that names a file of the host and read it after the next start.
//! Therefore content that looks like an image format is refused as raw, and nothing is converted silently.

use super::qcow2::{self, InvalidQcow2};
use domain::{
    ErrorKind, Problem,
    image::{DiskFormat, ImagePartKind},
    limits,
};

/// Enough of a part's beginning for [`inspect`].
pub const HEAD_BYTES: usize = qcow2::HEAD_BYTES;

/// A part that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sound {
    /// Size of the disk that a guest sees, bytes; 0 for a kernel or an initrd.
    pub virtual_bytes: u64,
    /// Of a qcow2: its tables are `qemu-img`'s to check.
    pub qcow2: Option<qcow2::Header>,
}

impl Sound {
    fn without_tables(virtual_bytes: u64) -> Self {
        Self { virtual_bytes, qcow2: None }
    }

    /// The smallest root disk that holds it, GiB.
    #[must_use]
    pub fn min_disk_gib(self) -> u64 {
        self.virtual_bytes.div_ceil(1 << 30)
    }
}

/// Why a part is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the file is empty")]
    Empty,
    #[error("the image was declared as raw, but the file is {found}")]
    NotRaw { found: &'static str },
    #[error("a raw disk is a multiple of 512 bytes; the file has {size_bytes}")]
    RawSize { size_bytes: u64 },
    #[error("a disk of {size_bytes} bytes is larger than the largest that can be made ({} GiB)", limits::DISK_GIB_MAX)]
    TooLarge { size_bytes: u64 },
    #[error("the image was declared as qcow2, but {0}")]
    Qcow2(#[source] InvalidQcow2),
    #[error("the file is no Linux kernel: neither a bzImage nor an ELF image")]
    NotKernel,
    #[error("the file is no initrd: neither a cpio archive nor a compressed one (gzip, zstd, xz, lz4, bzip2, lzma)")]
    NotInitrd,
    /// What `qemu-img` found, in its words.
    #[error("qemu-img refuses it: {0}")]
    QemuImg(String),
}

impl Refused {
    #[must_use]
    pub fn problem(&self) -> Problem {
        let hint = match self {
            Self::NotRaw { .. } => {
                "declare the image with the file's real format; raw content belongs to the guest, so the host never \
                 guesses a format from it (other formats: `qemu-img convert -O qcow2 IN OUT`)"
            }
            Self::Qcow2(invalid) => invalid.hint(),
            Self::Empty => "send the file's bytes as the body",
            Self::RawSize { .. } => "pad it: `truncate -s %512 FILE`",
            Self::TooLarge { .. } => "make the disk smaller",
            Self::NotKernel => "send the bzImage (Debian: /boot/vmlinuz-…)",
            Self::NotInitrd => "send the initramfs as the kernel would load it",
            Self::QemuImg(_) => "check the file with `qemu-img check FILE`",
        };
        Problem::new(ErrorKind::InvalidArgument, "image_refused", self.to_string()).with_hint(hint)
    }
}

/// Image formats that can name other files or lie about their size, by their magic bytes.
fn disguised_as(head: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    if starts(&qcow2::MAGIC) {
        // Version 1 shares the magic.
        return Some("a qcow2 image");
    }
    if starts(b"KDMV") || starts(b"COWD") || starts(b"# Disk DescriptorFile") {
        return Some("a VMDK image");
    }
    if at(0x40, &[0x7f, 0x10, 0xda, 0xbe]) {
        return Some("a VDI image");
    }
    if starts(b"vhdxfile") {
        return Some("a VHDX image");
    }
    if starts(b"conectix") {
        return Some("a VHD image");
    }
    if starts(b"QED\0") {
        return Some("a QED image");
    }
    if starts(b"LUKS\xba\xbe") {
        return Some("a LUKS container");
    }
    if starts(b"WithoutFreeSpace") || starts(b"WithouFreSpacExt") {
        return Some("a Parallels image");
    }
    None
}

/// Judges a part by its first bytes (all of them up to [`HEAD_BYTES`]) and its size.
pub fn inspect(part: ImagePartKind, format: DiskFormat, head: &[u8], size_bytes: u64) -> Result<Sound, Refused> {
    if size_bytes == 0 {
        return Err(Refused::Empty);
    }
    match (part, format) {
        (ImagePartKind::Disk, DiskFormat::Qcow2) => {
            let header = qcow2::parse(head, size_bytes).map_err(Refused::Qcow2)?;
            Ok(Sound { virtual_bytes: header.virtual_bytes, qcow2: Some(header) })
        }
        (ImagePartKind::Disk, DiskFormat::Raw) => {
            if let Some(found) = disguised_as(head) {
                return Err(Refused::NotRaw { found });
            }
            if !size_bytes.is_multiple_of(512) {
                return Err(Refused::RawSize { size_bytes });
            }
            if size_bytes > limits::DISK_GIB_MAX << 30 {
                return Err(Refused::TooLarge { size_bytes });
            }
            Ok(Sound::without_tables(size_bytes))
        }
        (ImagePartKind::Kernel, DiskFormat::Qcow2 | DiskFormat::Raw) => {
            kernel(head).then_some(Sound::without_tables(0)).ok_or(Refused::NotKernel)
        }
        (ImagePartKind::Initrd, DiskFormat::Qcow2 | DiskFormat::Raw) => {
            initrd(head).then_some(Sound::without_tables(0)).ok_or(Refused::NotInitrd)
        }
    }
}

/// A bzImage (Documentation/arch/x86/boot.rst: 0xAA55 at 0x1fe, `HdrS` at 0x202) or an ELF image (PVH).
fn kernel(head: &[u8]) -> bool {
    let bzimage = head.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && head.get(0x202..0x206) == Some(b"HdrS");
    bzimage || (head.starts_with(b"\x7fELF") && head.len() > 64)
}

/// What Linux unpacks (lib/decompress.c), or a plain cpio archive.
fn initrd(head: &[u8]) -> bool {
    const MAGICS: [&[u8]; 8] = [
        b"\x1f\x8b",         // gzip
        b"\x28\xb5\x2f\xfd", // zstd
        b"\xfd7zXZ\0",       // xz
        b"\x02\x21\x4c\x18", // lz4, legacy
        b"BZh",              // bzip2
        b"\x5d\0\0",         // lzma
        b"070701",           // cpio, newc
        b"070702",           // cpio, newc with checksums
    ];
    MAGICS.iter().any(|magic| head.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(format: DiskFormat, head: &[u8], size: u64) -> Result<Sound, Refused> {
        inspect(ImagePartKind::Disk, format, head, size)
    }

    #[test]
    fn a_raw_disk_is_sized_in_sectors_and_is_no_other_format() {
        let gib = 1u64 << 30;
        assert_eq!(disk(DiskFormat::Raw, &[0; 512], gib + 512).map(Sound::min_disk_gib), Ok(2));
        assert_eq!(disk(DiskFormat::Raw, &[0; 10], 10), Err(Refused::RawSize { size_bytes: 10 }));
        assert_eq!(disk(DiskFormat::Raw, &[], 0), Err(Refused::Empty));
        let mut vdi = vec![0u8; 512];
        vdi[0x40..0x44].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
        for head in [&b"QFI\xfb"[..], b"KDMV", b"COWD", b"# Disk DescriptorFile", b"vhdxfile", b"QED\0", &vdi] {
            let refused = disk(DiskFormat::Raw, head, 512).expect_err("disguised");
            assert!(matches!(refused, Refused::NotRaw { .. }));
            assert!(refused.problem().hint.is_some_and(|h| h.contains("belongs to the guest")));
        }
    }

    #[test]
    fn a_declared_qcow2_must_be_one() {
        let refused = disk(DiskFormat::Qcow2, &[0; 512], 512);
        assert_eq!(refused, Err(Refused::Qcow2(InvalidQcow2::NotQcow2)));
    }

    #[test]
    fn kernels_and_initrds_are_told_by_their_magic() {
        let mut bzimage = vec![0u8; 1024];
        bzimage[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        let part = |kind, head: &[u8]| inspect(kind, DiskFormat::Raw, head, 4096).is_ok();
        assert!(part(ImagePartKind::Kernel, &bzimage));
        assert!(!part(ImagePartKind::Kernel, &[0; 1024]) && !part(ImagePartKind::Kernel, b"MZ"));
        assert!(part(ImagePartKind::Initrd, b"\x1f\x8b\x08") && part(ImagePartKind::Initrd, b"070701"));
        assert!(!part(ImagePartKind::Initrd, &bzimage));
    }

    proptest! {
        #[test]
        fn every_content_gets_a_verdict(head in prop::collection::vec(any::<u8>(), 0..2048), size in any::<u64>()) {
            for format in [DiskFormat::Qcow2, DiskFormat::Raw] {
                for part in [ImagePartKind::Disk, ImagePartKind::Kernel, ImagePartKind::Initrd] {
                    let _ = inspect(part, format, &head, size);
                }
            }
        }
    }
}
