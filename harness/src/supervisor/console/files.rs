// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Consoles in files. A VM process writes to a file by itself; a file of limited size, and a FIFO, have
//! a thread of the supervisor's between, which alone waits for disk and reader.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use kennel_vmm::outlet::OutletWriter;

use crate::output_file::{self, LimitedFile};

/// As much as is read from a guest at a time.
const CHUNK: usize = 64 << 10;

/// The files of a run's consoles.
#[derive(Clone, Debug)]
pub struct ConsoleFiles {
    path: PathBuf,
    limit: Option<u64>,
    /// Where a file that cannot be written is told of.
    screen: OutletWriter,
    /// Each relay has one of these.
    _running: Sender<()>,
}

/// The threads between guests and their files.
#[derive(Debug)]
pub struct Relays(Receiver<()>);

impl Relays {
    /// Waits until all of them are through, until `deadline`: their guests have ended. Whether they are.
    #[must_use]
    pub fn finish_by(self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        // Nothing is ever sent: the last of them closes the channel.
        self.0.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }
}

impl ConsoleFiles {
    /// Files of this name, of `limit` bytes at most if there is one; what goes wrong with them is told on
    /// the `screen`.
    #[must_use]
    pub fn new(path: &Path, limit: Option<u64>, screen: OutletWriter) -> (Self, Relays) {
        let (running, through) = mpsc::channel();
        let files = Self {
            path: path.to_owned(),
            limit,
            screen,
            _running: running,
        };
        (files, Relays(through))
    }

    /// The one file of a single guest.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn file(&self) -> io::Result<ConsoleFile> {
        self.open(&self.path)
    }

    /// The file of one guest of several.
    pub(super) fn of_guest(&self, name: &str) -> io::Result<ConsoleFile> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{name}"));
        self.open(Path::new(&path))
    }

    fn open(&self, path: &Path) -> io::Result<ConsoleFile> {
        if self.limit.is_none() && !output_file::is_fifo(path) {
            return Ok(ConsoleFile(Way::Direct(output_file::create(path)?)));
        }
        let file = LimitedFile::open(path, self.limit)?;
        Ok(ConsoleFile(Way::Relayed {
            file: Arc::new(Mutex::new(file)),
            files: Self {
                path: path.to_owned(),
                ..self.clone()
            },
        }))
    }
}

/// A guest's file, and that of the guest which takes its place.
#[derive(Debug)]
pub struct ConsoleFile(Way);

#[derive(Debug)]
enum Way {
    /// The VM process writes to it.
    Direct(File),
    /// A thread does.
    Relayed {
        file: Arc<Mutex<LimitedFile>>,
        files: ConsoleFiles,
    },
}

impl ConsoleFile {
    /// What a VM process prints to.
    pub(super) fn end(&self) -> io::Result<Stdio> {
        let (file, files) = match &self.0 {
            Way::Direct(file) => return Ok(file.try_clone()?.into()),
            Way::Relayed { file, files } => (Arc::clone(file), files.clone()),
        };
        let (reader, writer) = io::pipe()?;
        thread::Builder::new()
            .name("console-file".into())
            .spawn(move || relay(reader, &file, files))?;
        Ok(writer.into())
    }
}

/// From the guest to its file, until the VM process is gone. What cannot be written is lost, and told of
/// once.
fn relay(mut guest: PipeReader, file: &Mutex<LimitedFile>, mut files: ConsoleFiles) {
    let mut buffer = vec![0; CHUNK];
    let mut told = false;
    loop {
        let count = match guest.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(error) = file.write_all(bytes) else {
            continue;
        };
        if !std::mem::replace(&mut told, true) {
            let path = files.path.display();
            let why = error.kind();
            let _taken = writeln!(
                files.screen,
                "kennel: what the guest prints cannot be written to {path} and is lost until it \
                 can be: {why}; free some space there, or give another file"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kennel_vmm::outlet::Outlet;
    use std::process::Command;

    const LONG: std::time::Duration = std::time::Duration::from_secs(60);

    /// What `shell` prints, as a guest would, to the console files; and what the screen shows.
    fn printed(path: &Path, limit: Option<u64>, shell: &str) -> String {
        let (mut shown, ours) = io::pipe().unwrap();
        let screen = Outlet::start("screen", Box::new(ours)).unwrap();
        let (files, relays) = ConsoleFiles::new(path, limit, screen.writer());
        let mut guest = Command::new("sh");
        guest.arg("-c").arg(shell);
        let file = files.file().unwrap();
        assert!(
            guest
                .stdout(file.end().unwrap())
                .status()
                .unwrap()
                .success()
        );
        drop((guest, file, files));
        assert!(relays.finish_by(Instant::now() + LONG));
        screen.close_by(Instant::now() + LONG);
        drop(screen);
        let mut text = String::new();
        shown.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_limited_file_has_the_last_of_what_was_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let shown = printed(&path, Some(8), "printf 123456789abcdefghij");
        assert_eq!(shown, "");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hij");
        let older = std::fs::read_to_string(folder.path().join("console.1"));
        assert_eq!(older.unwrap(), "9abcdefg");
    }

    #[test]
    fn a_file_that_takes_no_more_is_told_of_once_and_holds_up_no_guest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        std::fs::create_dir(folder.path().join("console.1")).unwrap();
        let shown = printed(&path, Some(8), "for i in $(seq 20000); do echo $i; done");
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(
            shown.contains("what the guest prints cannot be written to "),
            "{shown}"
        );
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 8);
    }

    #[test]
    fn a_fifo_without_a_reader_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let (reader, ours) = io::pipe().unwrap();
        let screen = Outlet::start("screen", Box::new(ours)).unwrap();
        let (files, relays) = ConsoleFiles::new(&path, None, screen.writer());
        let mut guest = Command::new("sh");
        guest.arg("-c").arg("echo hello");
        let file = files.file().unwrap();
        assert!(
            guest
                .stdout(file.end().unwrap())
                .status()
                .unwrap()
                .success()
        );
        drop((guest, file, files, reader));
        // The reader comes late, and finds everything.
        let heard = thread::spawn(move || std::fs::read_to_string(&path));
        assert!(relays.finish_by(Instant::now() + LONG));
        assert_eq!(heard.join().unwrap().unwrap(), "hello\n");
    }
}
