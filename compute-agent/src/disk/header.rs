//! What a qcow2's header says (QEMU's docs/interop/qcow2.rst), read here and not by QEMU.
//!
//! An instance's QEMU writes the header of its own disk, and one that its guest has taken over may write anything there: the name of any
//! file of the host as the disk's image or as the file that its data is in. A program that opens the disk opens these too. So the header
//! is compared with what the agent made before any such program runs.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{ffi::OsStringExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The longest name of an image that a header can have.
const BACKING_MAX: usize = 1023;
/// The incompatible features that a disk of ours may have: that its image was not closed, and that it is damaged. Others name further
/// files or change what the rest of the header means.
const FEATURES_ALLOWED: u64 = 0b11;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The guest's size of the disk.
    pub size_bytes: u64,
    /// The image that it lies on.
    pub backing: Option<PathBuf>,
    encrypted: bool,
    incompatible_features: u64,
}

impl Header {
    /// `None`: it isn't a qcow2.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let mut header = Vec::with_capacity(104);
        Read::take(&mut file, 104).read_to_end(&mut header)?;
        let long = |at: usize| Some(u64::from_be_bytes(*header.get(at..)?.first_chunk()?));
        let short = |at: usize| Some(u32::from_be_bytes(*header.get(at..)?.first_chunk()?));
        let parsed = || Some((short(4)?, long(8)?, short(16)?, long(24)?, short(32)?));
        let Some((version, backing_at, backing_len, size_bytes, encryption)) =
            parsed().filter(|_| header.starts_with(b"QFI\xfb"))
        else {
            return Ok(None);
        };
        let incompatible_features = if version >= 3 { long(72).unwrap_or(u64::MAX) } else { 0 };
        let backing = match backing_at {
            0 => None,
            at => Some(read_name(&mut file, at, backing_len)?),
        };
        Ok(Some(Self { size_bytes, backing, encrypted: encryption != 0, incompatible_features }))
    }

    /// The image's name as a program that opens this disk understands it: one without a directory is beside the disk.
    #[must_use]
    pub fn resolved(self, disk: &Path) -> Self {
        let beside = |name: PathBuf| disk.parent().map_or_else(|| name.clone(), |dir| dir.join(&name));
        Self { backing: self.backing.map(beside), ..self }
    }

    /// Why a disk that must lie on `backing` may not be opened; `None` if it may.
    #[must_use]
    pub fn objection(&self, backing: Option<&Path>) -> Option<String> {
        if self.backing.as_deref() != backing {
            return Some("its header names another image than the one that it was made on".to_owned());
        }
        if self.encrypted || self.incompatible_features & !FEATURES_ALLOWED != 0 {
            return Some("its header has features that it wasn't made with".to_owned());
        }
        None
    }
}

fn read_name(file: &mut File, at: u64, len: u32) -> io::Result<PathBuf> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > BACKING_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the name of its image is too long"));
    }
    let mut name = vec![0; len];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut name)?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(change: impl FnOnce(&mut Vec<u8>)) -> Option<Header> {
        let mut bytes = b"QFI\xfb\0\0\0\x03".to_vec();
        bytes.resize(512, 0);
        bytes[24..32].copy_from_slice(&(5_u64 << 30).to_be_bytes());
        change(&mut bytes);
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("disk");
        std::fs::write(&path, bytes).expect("written");
        Header::read(&path).ok().flatten()
    }

    fn on(bytes: &mut [u8], name: &[u8]) {
        bytes[8..16].copy_from_slice(&256_u64.to_be_bytes());
        bytes[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
        bytes[256..256 + name.len()].copy_from_slice(name);
    }

    #[test]
    fn whatever_names_another_file_is_objected_to() {
        let base = Some(Path::new("/images/base"));
        let plain = header(|_| ()).expect("a header");
        assert_eq!((plain.size_bytes, plain.backing.as_deref(), plain.objection(None)), (5 << 30, None, None));
        let backed = header(|h| on(h, b"/images/base")).expect("a header");
        assert_eq!((backed.objection(base), backed.objection(None).is_some()), (None, true));
        type Spoil = fn(&mut Vec<u8>);
        let spoiled: [(&str, Spoil); 6] = [
            ("no image", |h| h[8..20].fill(0)),
            ("another image", |h| on(h, b"/etc/shadow")),
            ("an image over a network", |h| on(h, b"nbd://10.0.0.1/x")),
            ("an image with options", |h| on(h, b"json:{\"file\":1}")),
            ("a file for its data", |h| h[79] = 0b100),
            ("encryption", |h| h[35] = 2),
        ];
        for (what, spoil) in spoiled {
            let header = header(|h| {
                on(h, b"/images/base");
                spoil(h);
            });
            assert!(header.expect("a header").objection(base).is_some(), "{what}");
        }
        assert!(header(|h| h[79] = 0b10).expect("a header").objection(None).is_none(), "damaged, and still a disk");
        for (what, spoil) in [
            ("another format", (|h| h[0] = 0) as Spoil),
            ("a short file", |h| h.truncate(20)),
            ("a long name", |h| h[16..20].fill(0xff)),
        ] {
            let broken = header(|h| {
                on(h, b"/images/base");
                spoil(h);
            });
            assert_eq!(broken, None, "{what}");
        }
    }
}
