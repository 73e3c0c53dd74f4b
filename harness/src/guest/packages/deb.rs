// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads .deb files: an `ar` archive with a compressed tar archive in it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Package, PackageError};

/// How many links in a row are followed.
const LINKS: usize = 16;

/// Where a file of the package is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// At this byte of the unpacked archive, that many bytes long.
    File(u64, usize),
    /// At another path in the package.
    Link(String),
}

/// The files of one package. They lie in an unnamed temporary file, which goes with this value.
pub struct Contents {
    package: String,
    unpacked: File,
    nodes: BTreeMap<String, Node>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contents({}, {} files)", self.package, self.nodes.len())
    }
}

impl Contents {
    /// Unpacks `package`; the temporary file is made in the directory `temporary`.
    pub(super) fn read_deb(package: &Package, temporary: &Path) -> Result<Self, PackageError> {
        let file = File::open(&package.path).map_err(PackageError::cache("read", &package.path))?;
        let unpacked =
            tempfile::tempfile_in(temporary).map_err(PackageError::cache("write in", temporary))?;
        let name = format!("{} {}", package.name, package.version);
        Self::new(name, file, unpacked).map_err(|error| fault(package, temporary, error))
    }

    fn new(package: String, deb: impl Read, mut unpacked: File) -> io::Result<Self> {
        unpack_data(deb, &mut unpacked)?;
        unpacked.rewind()?;
        let nodes = index(&unpacked)?;
        Ok(Self {
            package,
            unpacked,
            nodes,
        })
    }

    /// The paths of all files and links, without a leading slash, and with `bin`, `sbin`, `lib` and `lib64` at the top
    /// even where the package says `usr/lib`: both are the same directory on an installed system.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Whether there is a file or link at `path`.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(&canonical(path))
    }

    /// The file at `path`; links within the package are followed.
    ///
    /// # Errors
    /// The package has no such file, or the temporary file cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, PackageError> {
        let missing = || PackageError::NoFile {
            package: self.package.clone(),
            file: path.to_owned(),
        };
        let mut at = canonical(path);
        for _ in 0..LINKS {
            match self.nodes.get(&at).ok_or_else(missing)? {
                Node::Link(target) => at.clone_from(target),
                Node::File(offset, size) => {
                    let mut data = vec![0; *size];
                    let read = self.unpacked.read_exact_at(&mut data, *offset);
                    return read.map(|()| data).map_err(|source| PackageError::Cache {
                        action: "read back",
                        path: PathBuf::from(path),
                        source,
                    });
                }
            }
        }
        Err(missing())
    }
}

/// What keeps `package` from being unpacked into the directory `temporary`. The system refuses a file, as on a full
/// disk; what is wrong with a package has no error number.
fn fault(package: &Package, temporary: &Path, error: io::Error) -> PackageError {
    if error.raw_os_error().is_some() {
        return PackageError::cache("unpack a package into", temporary)(error);
    }
    PackageError::Unreadable {
        path: package.path.clone(),
        reason: error.to_string(),
    }
}

/// Fails, and removes the file, unless it is the one that apt vouched for.
pub(super) fn verify(package: &Package) -> Result<(), PackageError> {
    let reading = || PackageError::cache("read", &package.path);
    let mut file = File::open(&package.path).map_err(reading())?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer).map_err(reading())?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
    }
    let found = hexadecimal(&digest.finalize());
    if found == package.sha256 {
        return Ok(());
    }
    fs::remove_file(&package.path).map_err(PackageError::cache(
        "remove the damaged file",
        &package.path,
    ))?;
    Err(PackageError::Damaged {
        path: package.path.clone(),
        expected: package.sha256.clone(),
        found,
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the package's data archive, a tar file, to `out`.
fn unpack_data(deb: impl Read, out: &mut File) -> io::Result<()> {
    let mut archive = ar::Archive::new(io::BufReader::with_capacity(1 << 16, deb));
    while let Some(member) = archive.next_entry() {
        let mut member = member?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        let Some(form) = name.trim_end_matches('/').strip_prefix("data.tar") else {
            continue;
        };
        let mut out = BufWriter::with_capacity(1 << 18, out);
        match form {
            "" => io::copy(&mut member, &mut out)?,
            ".xz" => io::copy(&mut lzma_rust2::XzReader::new(member, true), &mut out)?,
            ".gz" => io::copy(&mut flate2::read::MultiGzDecoder::new(member), &mut out)?,
            ".zst" => {
                let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut member)
                    .map_err(io::Error::other)?;
                io::copy(&mut decoder, &mut out)?
            }
            other => {
                return Err(io::Error::other(format!(
                    "its data is compressed as {other:?}, which is not supported"
                )));
            }
        };
        return out.flush();
    }
    Err(io::Error::other("it has no data.tar"))
}

/// Finds the files in the tar archive `unpacked`.
fn index(unpacked: &File) -> io::Result<BTreeMap<String, Node>> {
    let mut nodes = BTreeMap::new();
    for entry in tar::Archive::new(unpacked).entries_with_seek()? {
        let entry = entry?;
        let path = canonical(&String::from_utf8_lossy(&entry.path_bytes()));
        let link = entry
            .link_name_bytes()
            .map(|name| String::from_utf8_lossy(&name).into_owned());
        let node = match (entry.header().entry_type(), link) {
            (tar::EntryType::Regular, _) => {
                let size = usize::try_from(entry.size()).map_err(io::Error::other)?;
                Node::File(entry.raw_file_position(), size)
            }
            (tar::EntryType::Link, Some(target)) => Node::Link(canonical(&target)),
            (tar::EntryType::Symlink, Some(target)) => Node::Link(resolve(&path, &target)),
            _ => continue,
        };
        nodes.insert(path, node);
    }
    Ok(nodes)
}

/// The path that a symbolic link at `path` means.
fn resolve(path: &str, target: &str) -> String {
    if target.starts_with('/') {
        return canonical(target);
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            name => parts.push(name),
        }
    }
    canonical(&parts.join("/"))
}

/// The one spelling of a path: no leading `./` or `/`, and the directories that `/usr` was merged with at the top.
fn canonical(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    let merged = path.strip_prefix("usr/").filter(|rest| {
        ["bin/", "sbin/", "lib/", "lib64/"]
            .iter()
            .any(|directory| rest.starts_with(directory))
    });
    merged.unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar archive with a file, a symbolic link to it, and a hard link to it under /usr/lib.
    fn data_tar() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o755);
        tar.append_data(&mut header, "./usr/lib/x/libx.so.1.2", b"hello".as_slice())
            .expect("file");
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "./usr/lib/x/libx.so.1", "../x/libx.so.1.2")
            .expect("symlink");
        link.set_entry_type(tar::EntryType::Link);
        tar.append_link(&mut link, "./usr/share/copy", "./usr/lib/x/libx.so.1.2")
            .expect("hard link");
        link.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut link, "./bin/loop", "loop")
            .expect("symlink");
        tar.into_inner().expect("memory")
    }

    fn deb(member: &str, data: &[u8]) -> Vec<u8> {
        let mut deb = ar::Builder::new(Vec::new());
        for (name, data) in [
            ("debian-binary", b"2.0\n".as_slice()),
            ("control.tar", b""),
            (member, data),
        ] {
            deb.append(&ar::Header::new(name.into(), data.len() as u64), data)
                .expect("memory");
        }
        deb.into_inner().expect("memory")
    }

    fn contents(deb: &[u8]) -> io::Result<Contents> {
        Contents::new(
            "x 1".into(),
            deb,
            tempfile::tempfile().expect("temporary file"),
        )
    }

    #[test]
    fn files_and_links_are_read() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&data_tar()).expect("memory");
        for deb in [
            deb("data.tar", &data_tar()),
            deb("data.tar.gz/", &gz.finish().expect("memory")),
        ] {
            let contents = contents(&deb).expect("a package");
            for path in [
                "usr/lib/x/libx.so.1.2",
                "/lib/x/libx.so.1.2",
                "usr/lib/x/libx.so.1",
                "usr/share/copy",
            ] {
                assert_eq!(contents.read(path).expect(path), b"hello");
            }
            assert!(contents.paths().eq([
                "bin/loop",
                "lib/x/libx.so.1",
                "lib/x/libx.so.1.2",
                "usr/share/copy"
            ]));
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let contents = contents(&deb("data.tar", &data_tar())).expect("a package");
        assert_eq!(
            contents.read("bin/none").expect_err("missing").to_string(),
            "package x 1 has no file /bin/none"
        );
        assert!(contents.read("bin/loop").is_err(), "a link to itself ends");
        assert!(!contents.has("bin/none") && contents.has("/usr/bin/loop"));
    }

    #[test]
    fn what_is_not_a_package_is_refused() {
        for (bad, reason) in [
            (b"hello".to_vec(), ""),
            (deb("other.tar", b""), "it has no data.tar"),
            (
                deb("data.tar.lz", b""),
                "its data is compressed as \".lz\", which is not supported",
            ),
            (deb("data.tar.xz", b"not xz data"), ""),
            (deb("data.tar.zst", b"not zstd data"), ""),
        ] {
            let error = contents(&bad).expect_err("no package").to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_full_disk_is_not_the_packages_fault() {
        let package = Package {
            name: "x".into(),
            version: "1".into(),
            sha256: String::new(),
            path: "/cache/packages/x.deb".into(),
        };
        let told = |deb: &[u8], unpacked: File| {
            let error = Contents::new("x 1".into(), deb, unpacked).expect_err("no room");
            fault(&package, Path::new("/cache"), error).to_string()
        };
        let full = File::options().read(true).write(true).open("/dev/full");
        let full = told(&deb("data.tar", &data_tar()), full.expect("/dev/full"));
        assert!(
            full.starts_with("cannot unpack a package into /cache: No space left on device"),
            "{full}"
        );
        let bad = told(b"hello", tempfile::tempfile().expect("temporary file"));
        assert!(
            bad.starts_with("cannot read package /cache/packages/x.deb: "),
            "{bad}"
        );
    }

    #[test]
    fn a_damaged_package_is_removed_and_named() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let path = file.path().to_owned();
        let package = |sha256: &str| Package {
            name: "x".into(),
            version: "1".into(),
            sha256: sha256.into(),
            path: path.clone(),
        };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        verify(&package(empty)).expect("the digest of nothing");
        fs::write(&path, "changed").expect("write");
        assert!(matches!(
            verify(&package(empty)),
            Err(PackageError::Damaged { .. })
        ));
        assert!(!path.exists());
    }
}
