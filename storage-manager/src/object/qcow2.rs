//! The header of a qcow2 image, read without trust. Source: docs/interop/qcow2.txt of QEMU.
//!
//! A qcow2 can name other files: a backing file, an external data file. QEMU opens what an image names, with QEMU's rights, so an
//! image that a tenant uploaded could read the host's disks. The header decides, and this parser reads it alone before any of QEMU's
//! code sees the image; what is not understood is refused.

use domain::limits;

pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The header and its extensions lie in the first cluster, which has at most this many bytes.
pub const HEAD_BYTES: usize = 1 << MAX_CLUSTER_BITS;

const MIN_CLUSTER_BITS: u32 = 9;
const MAX_CLUSTER_BITS: u32 = 21;
/// QEMU's own bounds on the tables, bytes.
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;

const INCOMPATIBLE_DIRTY: u64 = 1 << 0;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;

/// What is known of an image whose header is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    /// Size of the disk that a guest sees.
    pub virtual_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQcow2 {
    #[error("it is no qcow2 image: the magic bytes are missing")]
    NotQcow2,
    #[error("it is cut short: the header needs {needed} bytes and there are {got}")]
    Short { needed: u64, got: u64 },
    #[error("qcow2 version {0} is not supported (2 and 3 are)")]
    Version(u32),
    #[error("it has a backing file: an image must stand alone")]
    BackingFile,
    #[error("it has an external data file: an image must stand alone")]
    DataFile,
    #[error("it is encrypted")]
    Encrypted,
    #[error("it has internal snapshots: an image is one state of a disk")]
    Snapshots,
    #[error("it is marked as corrupt")]
    Corrupt,
    #[error("it was not closed cleanly")]
    Dirty,
    #[error("it needs features that are not known here (incompatible feature bits {0:#x})")]
    UnknownFeatures(u64),
    #[error("a virtual size of {0} bytes is out of range")]
    VirtualSize(u64),
    /// A number that no sane writer makes; `field` is the specification's name.
    #[error("`{field}` is out of range")]
    Field { field: &'static str },
}

impl InvalidQcow2 {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::BackingFile
            | Self::DataFile
            | Self::Encrypted
            | Self::Snapshots
            | Self::UnknownFeatures(_)
            | Self::Version(_) => "make a plain one with `qemu-img convert -O qcow2 IN OUT` and upload that",
            Self::Corrupt | Self::Dirty => "repair it with `qemu-img check -r all FILE` and upload it again",
            Self::NotQcow2 | Self::Short { .. } | Self::VirtualSize(_) | Self::Field { .. } => {
                "check the file with `qemu-img check FILE`, and the format that the image was declared with"
            }
        }
    }
}

fn u32_at(head: &[u8], at: usize) -> Result<u32, InvalidQcow2> {
    let bytes = head.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
    bytes.map(u32::from_be_bytes).ok_or(InvalidQcow2::Short { needed: at as u64 + 4, got: head.len() as u64 })
}

fn u64_at(head: &[u8], at: usize) -> Result<u64, InvalidQcow2> {
    Ok(u64::from(u32_at(head, at)?) << 32 | u64::from(u32_at(head, at + 4)?))
}

/// Reads the header from the first bytes of a file of `file_bytes` ([`HEAD_BYTES`] of them, or all there are).
pub fn parse(head: &[u8], file_bytes: u64) -> Result<Header, InvalidQcow2> {
    if head.get(..4) != Some(&MAGIC) {
        return Err(InvalidQcow2::NotQcow2);
    }
    let version = u32_at(head, 4)?;
    if !(2..=3).contains(&version) {
        return Err(InvalidQcow2::Version(version));
    }
    if u64_at(head, 8)? != 0 || u32_at(head, 16)? != 0 {
        return Err(InvalidQcow2::BackingFile);
    }
    let cluster_bits = u32_at(head, 20)?;
    if !(MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(&cluster_bits) {
        return Err(InvalidQcow2::Field { field: "cluster_bits" });
    }
    let virtual_bytes = u64_at(head, 24)?;
    if virtual_bytes == 0 || virtual_bytes > limits::DISK_GIB_MAX << 30 {
        return Err(InvalidQcow2::VirtualSize(virtual_bytes));
    }
    if u32_at(head, 32)? != 0 {
        return Err(InvalidQcow2::Encrypted);
    }
    let extended_l2 = if version == 3 { check_version_3(head)? } else { false };
    if extended_l2 && cluster_bits < 14 {
        return Err(InvalidQcow2::Field { field: "cluster_bits" });
    }
    check_tables(head, file_bytes, cluster_bits, virtual_bytes, extended_l2)?;
    let header_bytes = if version == 2 { 72 } else { u64::from(u32_at(head, 100)?) };
    check_extensions(head, header_bytes, 1 << cluster_bits)?;
    Ok(Header { version, cluster_bits, virtual_bytes })
}

/// The fields of version 3. True: it has extended L2 entries.
fn check_version_3(head: &[u8]) -> Result<bool, InvalidQcow2> {
    let features = u64_at(head, 72)?;
    let known = INCOMPATIBLE_DIRTY
        | INCOMPATIBLE_CORRUPT
        | INCOMPATIBLE_DATA_FILE
        | INCOMPATIBLE_COMPRESSION
        | INCOMPATIBLE_EXTENDED_L2;
    if features & INCOMPATIBLE_DATA_FILE != 0 {
        return Err(InvalidQcow2::DataFile);
    }
    if features & INCOMPATIBLE_CORRUPT != 0 {
        return Err(InvalidQcow2::Corrupt);
    }
    if features & INCOMPATIBLE_DIRTY != 0 {
        return Err(InvalidQcow2::Dirty);
    }
    if features & !known != 0 {
        return Err(InvalidQcow2::UnknownFeatures(features & !known));
    }
    if u32_at(head, 96)? > 6 {
        return Err(InvalidQcow2::Field { field: "refcount_order" });
    }
    let header_length = u32_at(head, 100)?;
    if header_length < 104 || !header_length.is_multiple_of(8) || header_length as usize > HEAD_BYTES {
        return Err(InvalidQcow2::Field { field: "header_length" });
    }
    if features & INCOMPATIBLE_COMPRESSION != 0 {
        // 0 is deflate, 1 is zstd.
        let compression = (header_length > 104).then(|| head.get(104).copied()).flatten();
        if !matches!(compression, Some(0 | 1)) {
            return Err(InvalidQcow2::Field { field: "compression_type" });
        }
    }
    Ok(features & INCOMPATIBLE_EXTENDED_L2 != 0)
}

fn check_tables(
    head: &[u8],
    file_bytes: u64,
    cluster_bits: u32,
    virtual_bytes: u64,
    extended_l2: bool,
) -> Result<(), InvalidQcow2> {
    let cluster = 1u64 << cluster_bits;
    // A table that lies where it says: aligned, behind the header, in the file.
    let inside = |offset: u64, bytes: u64, field| {
        let end = offset.checked_add(bytes);
        let sound = offset >= cluster && offset.is_multiple_of(cluster) && end.is_some_and(|end| end <= file_bytes);
        if sound { Ok(()) } else { Err(InvalidQcow2::Field { field }) }
    };
    let l1_bytes = u64::from(u32_at(head, 36)?) * 8;
    // One L1 entry covers a cluster full of L2 entries.
    let l2_entries = cluster / if extended_l2 { 16 } else { 8 };
    let needed = virtual_bytes.div_ceil(cluster).div_ceil(l2_entries);
    if l1_bytes > MAX_L1_BYTES || l1_bytes / 8 < needed {
        return Err(InvalidQcow2::Field { field: "l1_size" });
    }
    inside(u64_at(head, 40)?, l1_bytes, "l1_table_offset")?;
    let refcount_bytes = u64::from(u32_at(head, 56)?) * cluster;
    if refcount_bytes == 0 || refcount_bytes > MAX_REFCOUNT_TABLE_BYTES {
        return Err(InvalidQcow2::Field { field: "refcount_table_clusters" });
    }
    inside(u64_at(head, 48)?, refcount_bytes, "refcount_table_offset")?;
    // Guests can't reach them, QEMU reads their tables at every start, and whoever lists them gets names of any length.
    if u32_at(head, 60)? != 0 {
        return Err(InvalidQcow2::Snapshots);
    }
    Ok(())
}

/// Walks the extensions behind the header: type, length, data padded to 8, until the end marker or the end of the cluster.
fn check_extensions(head: &[u8], header_bytes: u64, cluster: u64) -> Result<(), InvalidQcow2> {
    let mut at = header_bytes;
    while at + 8 <= cluster {
        let here = usize::try_from(at).unwrap_or(usize::MAX);
        let (kind, length) = (u32_at(head, here)?, u64::from(u32_at(head, here + 4)?));
        match kind {
            EXTENSION_END => return Ok(()),
            EXTENSION_DATA_FILE => return Err(InvalidQcow2::DataFile),
            EXTENSION_ENCRYPTION => return Err(InvalidQcow2::Encrypted),
            _ => {}
        }
        at += 8 + length.next_multiple_of(8);
        if at > cluster {
            return Err(InvalidQcow2::Field { field: "header extension" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A sound version-3 header of a 1 GiB image with 64 KiB clusters, in a file of 4 clusters.
    fn sound() -> (Vec<u8>, u64) {
        let mut head = vec![0u8; 4 << 16];
        head[..4].copy_from_slice(&MAGIC);
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(4, &3u32.to_be_bytes());
        put(20, &16u32.to_be_bytes());
        put(24, &(1u64 << 30).to_be_bytes());
        put(36, &2u32.to_be_bytes());
        put(40, &(3u64 << 16).to_be_bytes());
        put(48, &(1u64 << 16).to_be_bytes());
        put(56, &1u32.to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &104u32.to_be_bytes());
        (head, 4 << 16)
    }

    fn with(at: usize, bytes: &[u8]) -> Result<Header, InvalidQcow2> {
        let (mut head, size) = sound();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&head, size)
    }

    #[test]
    fn a_sound_header_is_read() {
        let (head, size) = sound();
        assert_eq!(parse(&head, size), Ok(Header { version: 3, cluster_bits: 16, virtual_bytes: 1 << 30 }));
        assert!(with(4, &2u32.to_be_bytes()).is_ok(), "version 2 ends its header at 72");
    }

    #[test]
    fn what_reaches_outside_the_image_is_refused() {
        use InvalidQcow2 as E;
        assert_eq!(with(8, &512u64.to_be_bytes()), Err(E::BackingFile));
        assert_eq!(with(16, &9u32.to_be_bytes()), Err(E::BackingFile));
        assert_eq!(with(72, &4u64.to_be_bytes()), Err(E::DataFile));
        assert_eq!(with(104, &EXTENSION_DATA_FILE.to_be_bytes()), Err(E::DataFile));
        let mut behind_another = 0xE279_2ACAu32.to_be_bytes().to_vec();
        behind_another.extend(5u32.to_be_bytes());
        behind_another.extend(*b"qcow2\0\0\0");
        behind_another.extend(EXTENSION_DATA_FILE.to_be_bytes());
        assert_eq!(with(104, &behind_another), Err(E::DataFile));
        assert_eq!(with(32, &2u32.to_be_bytes()), Err(E::Encrypted));
        for snapshots in [1u32, 65_536, u32::MAX] {
            assert_eq!(with(60, &snapshots.to_be_bytes()), Err(E::Snapshots));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        use InvalidQcow2 as E;
        assert_eq!(with(0, b"QFI\0"), Err(E::NotQcow2));
        assert_eq!(with(4, &1u32.to_be_bytes()), Err(E::Version(1)));
        assert_eq!(with(72, &1u64.to_be_bytes()), Err(E::Dirty));
        assert_eq!(with(72, &2u64.to_be_bytes()), Err(E::Corrupt));
        assert_eq!(with(72, &(1u64 << 40).to_be_bytes()), Err(E::UnknownFeatures(1 << 40)));
        assert_eq!(with(24, &0u64.to_be_bytes()), Err(E::VirtualSize(0)));
        assert_eq!(with(24, &u64::MAX.to_be_bytes()), Err(E::VirtualSize(u64::MAX)));
        for (at, value, field) in [
            (20, 8u32, "cluster_bits"),
            (20, 30, "cluster_bits"),
            (36, 1, "l1_size"),
            (36, u32::MAX, "l1_size"),
            (56, 0, "refcount_table_clusters"),
            (56, u32::MAX, "refcount_table_clusters"),
            (96, 7, "refcount_order"),
            (100, 50, "header_length"),
        ] {
            assert_eq!(with(at, &value.to_be_bytes()), Err(E::Field { field }), "{value} at {at}");
        }
        for (at, field) in [(40, "l1_table_offset"), (48, "refcount_table_offset")] {
            for offset in [0u64, 7, 1 << 40, u64::MAX - 100] {
                assert_eq!(with(at, &offset.to_be_bytes()), Err(E::Field { field }), "{offset}");
            }
        }
        let (head, size) = sound();
        assert!(matches!(parse(&head[..90], size), Err(E::Short { .. })));
    }

    proptest! {
        /// No input makes it panic, and none of what it accepts reaches outside the image.
        #[test]
        fn any_bytes_are_answered(mut head in prop::collection::vec(any::<u8>(), 0..4096), size in any::<u64>()) {
            let _ = parse(&head, size);
            if head.len() >= 4 {
                head[..4].copy_from_slice(&MAGIC);
                let _ = parse(&head, size);
            }
        }

        #[test]
        fn a_sound_header_with_broken_bytes_is_answered(
            edits in prop::collection::vec((0usize..200, any::<u8>()), 1..12),
            cut in 0usize..(4 << 16),
        ) {
            let (mut head, size) = sound();
            for (at, byte) in edits {
                head[at] = byte;
            }
            if parse(&head, size).is_ok() {
                prop_assert_eq!(&head[8..20], &[0u8; 12][..], "no backing file passes");
                prop_assert_eq!(head[79] & 4, if head[7] == 3 { 0 } else { head[79] & 4 }, "no data file passes");
            }
            let _ = parse(&head[..cut], cut as u64);
        }
    }
}
