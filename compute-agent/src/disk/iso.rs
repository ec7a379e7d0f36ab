//! Renders the smallest ISO 9660 image that Linux, cloud-init and everyone else reads: one directory with a few small files, whose names
//! appear once as ISO 9660 requires them (upper case) and once as they are, in a Joliet tree. Pure.
//!
//! `genisoimage` would be one more package on every host and would cost some milliseconds of every start, for a format whose needed part
//! fits in this file. Sources: ECMA-119 (sections in the comments) and the Joliet specification of 1995.

const SECTOR: usize = 2048;
/// The sector of the volume descriptors, after 16 unused sectors.
const DESCRIPTORS: usize = 16;
/// The sectors of the path tables (little and big endian) and of the root directory of each of the two trees.
const PATH_TABLES: [usize; 2] = [19, 21];
const ROOTS: [usize; 2] = [23, 24];
const FIRST_FILE: usize = 25;
/// Programs that look for a label (busybox's, for one) read the first 68 KiB of a device and give up on a shorter one.
const SECTORS_MIN: usize = 64;

/// Renders an image with this label (at most 16 characters) and these files. The root directory is one sector, enough for
/// some ten names. The same input always gives the same bytes: all dates are left unspecified.
pub fn render_iso(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; FIRST_FILE * SECTOR];
    let mut extents = vec![];
    for (_, content) in files {
        extents.push((image.len() / SECTOR, content.len()));
        image.extend_from_slice(content);
        image.resize(image.len().next_multiple_of(SECTOR), 0);
    }
    image.resize(image.len().max(SECTORS_MIN * SECTOR), 0);
    let sectors = image.len() / SECTOR;
    for joliet in [false, true] {
        let tree = usize::from(joliet);
        let mut root = record(ROOTS[tree], SECTOR, true, &[0]);
        root.extend(record(ROOTS[tree], SECTOR, true, &[1]));
        for ((name, _), (at, len)) in files.iter().zip(&extents) {
            root.extend(record(*at, *len, false, &file_name(name, joliet)));
        }
        put(&mut image, ROOTS[tree], &root);
        let (little, big) = path_table(ROOTS[tree]);
        put(&mut image, PATH_TABLES[tree], &little);
        put(&mut image, PATH_TABLES[tree] + 1, &big);
        put(&mut image, DESCRIPTORS + tree, &descriptor(label, joliet, sectors, little.len()));
    }
    put(&mut image, DESCRIPTORS + 2, b"\xffCD001\x01");
    image
}

fn put(image: &mut [u8], sector: usize, bytes: &[u8]) {
    image[sector * SECTOR..][..bytes.len()].copy_from_slice(bytes);
}

/// A number in both byte orders (7.2.3, 7.3.3).
fn both16(n: usize) -> [u8; 4] {
    let (l, b) = ((n as u16).to_le_bytes(), (n as u16).to_be_bytes());
    [l[0], l[1], b[0], b[1]]
}

fn both32(n: usize) -> [u8; 8] {
    let mut both = [0; 8];
    both[..4].copy_from_slice(&(n as u32).to_le_bytes());
    both[4..].copy_from_slice(&(n as u32).to_be_bytes());
    both
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn file_name(name: &str, joliet: bool) -> Vec<u8> {
    if joliet {
        return ucs2(&format!("{name};1"));
    }
    let dot = if name.contains('.') { "" } else { "." };
    format!("{}{dot};1", name.to_ascii_uppercase()).into_bytes()
}

/// A directory record (9.1); its length is even.
fn record(sector: usize, len: usize, directory: bool, name: &[u8]) -> Vec<u8> {
    let mut record = vec![0; 33];
    record[2..10].copy_from_slice(&both32(sector));
    record[10..18].copy_from_slice(&both32(len));
    record[25] = if directory { 2 } else { 0 };
    record[28..32].copy_from_slice(&both16(1));
    record[32] = name.len() as u8;
    record.extend_from_slice(name);
    record.resize(record.len().next_multiple_of(2), 0);
    record[0] = record.len() as u8;
    record
}

/// A path table (9.4) with the root alone, in both byte orders.
fn path_table(root: usize) -> (Vec<u8>, Vec<u8>) {
    let mut little = vec![1, 0];
    little.extend((root as u32).to_le_bytes());
    little.extend([1, 0, 0, 0]);
    let mut big = vec![1, 0];
    big.extend((root as u32).to_be_bytes());
    big.extend([0, 1, 0, 0]);
    (little, big)
}

/// A primary (8.4) or supplementary (8.5) volume descriptor.
fn descriptor(label: &str, joliet: bool, sectors: usize, path_table_len: usize) -> Vec<u8> {
    let tree = usize::from(joliet);
    let mut d = vec![0; SECTOR];
    let text = |d: &mut [u8], from: usize, to: usize, text: &str| {
        let (bytes, blank) = if joliet { (ucs2(text), ucs2(" ")) } else { (text.as_bytes().to_vec(), vec![b' ']) };
        for (i, byte) in d[from..to].iter_mut().enumerate() {
            *byte = bytes.get(i).copied().unwrap_or(blank[i % blank.len()]);
        }
    };
    d[0] = if joliet { 2 } else { 1 };
    d[1..7].copy_from_slice(b"CD001\x01");
    text(&mut d, 8, 40, "");
    text(&mut d, 40, 72, label);
    d[80..88].copy_from_slice(&both32(sectors));
    if joliet {
        d[88..91].copy_from_slice(b"%/E"); // UCS-2 level 3
    }
    d[120..124].copy_from_slice(&both16(1));
    d[124..128].copy_from_slice(&both16(1));
    d[128..132].copy_from_slice(&both16(SECTOR));
    d[132..140].copy_from_slice(&both32(path_table_len));
    d[140..144].copy_from_slice(&(PATH_TABLES[tree] as u32).to_le_bytes());
    d[148..152].copy_from_slice(&(PATH_TABLES[tree] as u32 + 1).to_be_bytes());
    d[156..190].copy_from_slice(&record(ROOTS[tree], SECTOR, true, &[0]));
    for (from, to) in [(190, 318), (318, 446), (446, 574), (574, 702), (702, 739), (739, 776), (776, 813)] {
        text(&mut d, from, to, "");
    }
    for date in [813, 830, 847, 864] {
        d[date..date + 16].fill(b'0'); // unspecified (8.4.26.1)
    }
    d[881] = 1;
    d
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn linux_mounts_it_and_reads_the_files_under_their_names() {
        let files: [(&str, &[u8]); 4] =
            [("meta-data", b"a: 1\n"), ("user-data", &[0xff; 5000]), ("vendor-data", b""), ("x.txt", b"x")];
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (iso, mount) = (dir.path().join("iso"), dir.path().join("mount"));
        std::fs::write(&iso, render_iso("cidata", &files)).expect("written");
        std::fs::create_dir(&mount).expect("made");
        let label = Command::new("blkid").args(["-p", "-o", "value", "-s", "LABEL"]).arg(&iso).output().expect("blkid");
        assert_eq!(String::from_utf8_lossy(&label.stdout).trim(), "cidata");
        for options in ["loop,ro", "loop,ro,nojoliet"] {
            let mounted = Command::new("mount").args(["-t", "iso9660", "-o", options]).arg(&iso).arg(&mount).output();
            let mounted = mounted.expect("mount runs");
            if !mounted.status.success() {
                // The guests of `tests/vm` mount it in any case.
                println!("not run: mounting an ISO image: {}", String::from_utf8_lossy(&mounted.stderr).trim());
                break;
            }
            let read: Vec<Vec<u8>> = files
                .iter()
                .map(|(name, _)| std::fs::read(mount.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")))
                .collect();
            assert!(Command::new("umount").arg(&mount).status().expect("umount runs").success());
            assert!(files.iter().zip(read).all(|((_, content), read)| *content == read), "with {options}");
        }
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_of_whole_sectors() {
        let image = render_iso("cidata", &[("meta-data", b"x")]);
        assert_eq!(image, render_iso("cidata", &[("meta-data", b"x")]));
        assert_eq!(image.len(), SECTORS_MIN * SECTOR);
        let large = render_iso("cidata", &[("user-data", &[1; 200 << 10])]);
        assert_eq!(large.len(), FIRST_FILE * SECTOR + (200 << 10));
        assert_eq!(&image[16 * SECTOR + 1..][..5], b"CD001");
    }

    #[test]
    fn independent_readers_find_the_files() {
        let image = render_iso("cidata", &[("meta-data", b"hello"), ("user-data", b"world")]);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let iso = dir.path().join("iso");
        std::fs::write(&iso, image).expect("written");
        let list = match Command::new("isoinfo").arg("-J").arg("-f").arg("-i").arg(&iso).output() {
            Ok(output) => output,
            Err(error) => return println!("not run: isoinfo is not installed ({error})"),
        };
        let list = String::from_utf8_lossy(&list.stdout);
        assert_eq!(list.lines().collect::<Vec<_>>(), ["/meta-data;1", "/user-data;1"]);
        let content =
            Command::new("isoinfo").args(["-J", "-x", "/user-data;1", "-i"]).arg(&iso).output().expect("isoinfo");
        assert_eq!(content.stdout, b"world");
    }
}
