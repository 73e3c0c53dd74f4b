// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keeps built images. An image is found by the parts known before building (its key); a record under that key names
//! the image and the parts that only showed while building.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::assemble::{Assembled, MODULES};
use super::{BuildError, GuestImage, Source, write_file};
use crate::guest::init::FILES;
use crate::guest::kernel::Kernel;
use crate::guest::packages::{Package, PackageStore};

/// Changes whenever the same parts give another image.
const RECIPE: &str = concat!("4 ", env!("CARGO_PKG_VERSION"));

/// The digest of what an image is made from.
pub(super) struct Key(Sha256);

impl Key {
    /// A key with what every image is made from.
    pub(super) fn new() -> Self {
        let mut key = Self(Sha256::new());
        for part in [RECIPE, &format!("{MODULES:?}"), &format!("{FILES:?}")] {
            key.add(part.as_bytes());
        }
        key
    }

    /// Adds a part.
    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn name(&self) -> String {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// What is known about a built image.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The image's directory beside the record.
    directory: String,
    kernel_version: String,
    notes: Vec<String>,
    /// Name and SHA-256 of the packages with the libraries.
    libraries: Vec<(String, String)>,
    /// By what rules it was made, if it was made from packages only.
    #[serde(default)]
    recipe: Option<String>,
}

/// The images in the cache.
#[derive(Debug)]
pub(super) struct ImageCache {
    directory: PathBuf,
}

impl ImageCache {
    pub(super) fn open(cache: &Path) -> Result<Self, BuildError> {
        let directory = cache.join("images");
        match fs::create_dir_all(&directory) {
            Ok(()) => Ok(Self { directory }),
            Err(source) => Err(BuildError::Write {
                path: directory,
                source,
            }),
        }
    }

    /// The image made from these parts, if there is one and its libraries are still the current ones.
    pub(super) fn find(&self, key: &Key, store: &PackageStore<'_>) -> Option<GuestImage> {
        let text = fs::read(self.record(key)).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        let unchanged = |(name, digest): &(String, String)| match store.obtain_one(name) {
            Ok(package) => package.sha256 == *digest,
            Err(error) => error.is_out_of_reach(),
        };
        if !record.libraries.iter().all(unchanged) {
            return None;
        }
        self.whole(record)
    }

    /// The image made last from packages, by today's rules.
    pub(super) fn last(&self) -> Option<GuestImage> {
        let today = Key::new().name();
        let entries = fs::read_dir(&self.directory).ok()?.flatten();
        let read = |entry: fs::DirEntry| {
            let made = entry.metadata().ok()?.modified().ok()?;
            let record: Record = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
            let is_ours = record.recipe.as_ref() == Some(&today);
            Some((made, self.whole(record).filter(|_| is_ours)?))
        };
        let images = entries.filter_map(read);
        images.max_by_key(|(made, _)| *made).map(|(_, image)| image)
    }

    /// The image of this record, unless something of it is missing.
    fn whole(&self, record: Record) -> Option<GuestImage> {
        let image = self.image(record);
        image.kernel.parent().is_some_and(complete).then_some(image)
    }

    /// Keeps an image. It appears complete: another process that builds the same one loses nothing.
    pub(super) fn store(
        &self,
        key: &Key,
        kernel: &Kernel<'_>,
        assembled: &Assembled,
        libraries: &[Package],
        from: &Source,
    ) -> Result<GuestImage, BuildError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BuildError::Write { path, source }
        };
        let mut whole = Key::new();
        whole.add(&kernel.vmlinuz);
        whole.add(&assembled.initrd);
        let record = Record {
            directory: format!("{}-{}", kernel.release, whole.name()),
            kernel_version: kernel.release.clone(),
            notes: assembled.notes.clone(),
            libraries: libraries
                .iter()
                .map(|package| (package.name.clone(), package.sha256.clone()))
                .collect(),
            recipe: (*from == Source::Packages).then(|| Key::new().name()),
        };
        let temporary = tempfile::Builder::new()
            .prefix("build-")
            .tempdir_in(&self.directory);
        let temporary = temporary.map_err(failed(&self.directory))?;
        let (fresh, place) = (
            temporary.path().join("image"),
            self.directory.join(&record.directory),
        );
        fs::create_dir(&fresh).map_err(failed(&fresh))?;
        write_file(&fresh.join("vmlinuz"), &kernel.vmlinuz)?;
        if let Some(elf) = kennel_vmm::boot::vmlinux(&kernel.vmlinuz) {
            write_file(&fresh.join("vmlinux"), &elf)?;
        }
        write_file(&fresh.join("initrd"), &assembled.initrd)?;
        move_in(&fresh, &place).map_err(failed(&place))?;
        let (text, at) = (
            serde_json::to_vec_pretty(&record).unwrap_or_default(),
            temporary.path().join("record"),
        );
        write_file(&at, &text)?;
        let to = self.record(key);
        fs::rename(&at, &to).map_err(failed(&to))?;
        Ok(self.image(record))
    }

    fn record(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}.json", key.name()))
    }

    fn image(&self, record: Record) -> GuestImage {
        let place = self.directory.join(&record.directory);
        GuestImage {
            kernel: place.join("vmlinuz"),
            vmlinux: Some(place.join("vmlinux")).filter(|path| path.is_file()),
            initrd: place.join("initrd"),
            kernel_version: record.kernel_version,
            notes: record.notes,
        }
    }
}

/// Whether the directory holds a whole image.
fn complete(directory: &Path) -> bool {
    ["vmlinuz", "initrd"]
        .iter()
        .all(|file| directory.join(file).is_file())
}

/// Renames the directory `fresh` to `place`, unless the same image is there already (perhaps from another process).
fn move_in(fresh: &Path, place: &Path) -> io::Result<()> {
    let Err(error) = fs::rename(fresh, place) else {
        return Ok(());
    };
    if complete(place) {
        return Ok(());
    }
    if !place.is_dir() {
        return Err(error);
    }
    // What is left of a damaged image is in the way.
    fs::remove_dir_all(place)?;
    fs::rename(fresh, place)
}
