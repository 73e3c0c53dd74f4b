// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The apt commands that packages are found and fetched with.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};

use super::PackageError;
use super::answers::Memory;

/// Where the machine keeps its package lists.
const SYSTEM_LISTS: &str = "/var/lib/apt/lists";
/// What decides which of the versions in the lists apt takes.
const CONFIGURATION: [&str; 6] = [
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
    "/etc/apt/preferences",
    "/etc/apt/preferences.d",
    "/etc/apt/apt.conf",
    "/etc/apt/apt.conf.d",
];

/// Which package lists apt is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// The machine's, as root last refreshed them.
    System,
    /// Kennel's, in its cache.
    Own,
}

/// A package as the lists have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) version: String,
    /// The file name that `apt-get download` gives it.
    pub(super) file: String,
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// Runs apt's programs with a cache of their own.
#[derive(Debug)]
pub(super) struct Apt {
    cache: PathBuf,
    lists: PathBuf,
    system_answers: Memory,
    own_answers: Memory,
}

impl Apt {
    pub(super) fn new(directory: &Path) -> Result<Self, PackageError> {
        let (cache, lists) = (directory.join("cache"), directory.join("lists"));
        for needed in [cache.join("archives/partial"), lists.join("partial")] {
            fs::create_dir_all(&needed)
                .map_err(PackageError::cache("make the directory", &needed))?;
        }
        let watching = |lists: &Path| {
            let mut watched: Vec<PathBuf> = CONFIGURATION.iter().map(PathBuf::from).collect();
            watched.push(lists.to_owned());
            watched
        };
        Ok(Self {
            system_answers: Memory::new(
                directory.join("answers-system.json"),
                watching(Path::new(SYSTEM_LISTS)),
            ),
            own_answers: Memory::new(directory.join("answers-own.json"), watching(&lists)),
            cache,
            lists,
        })
    }

    /// Whether our own lists were ever fetched.
    pub(super) fn has_own_lists(&self) -> bool {
        let named = |entry: fs::DirEntry| entry.file_name().to_string_lossy().contains("Packages");
        fs::read_dir(&self.lists).is_ok_and(|entries| entries.flatten().any(named))
    }

    /// Fetches our own lists anew, from the machine's sources. While another process does so, waits for it instead.
    pub(super) fn refresh_own_lists(&self) -> Result<(), PackageError> {
        let path = self.cache.join("refresh.lock");
        let lock = File::create(&path).map_err(PackageError::cache("write", &path))?;
        let free = lock.try_lock().is_ok();
        if !free {
            lock.lock().map_err(PackageError::cache("lock", &path))?;
        }
        self.own_answers.forget();
        if !free && self.has_own_lists() {
            return Ok(());
        }
        let mut command = self.command("apt-get", Lists::Own);
        // Without this, apt calls it a success when the network is down.
        command.args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]);
        run(&mut command, "apt-get", "apt-get update").map(drop)
    }

    /// The Depends field of the package's current version; empty if it has none.
    pub(super) fn depends(&self, name: &str, lists: Lists) -> Result<String, PackageError> {
        let text = self.ask("apt-cache", &["show", "--no-all-versions", name], lists)?;
        let depends = text.lines().find_map(|line| line.strip_prefix("Depends: "));
        Ok(depends.unwrap_or_default().to_owned())
    }

    /// Where the packages' current versions are, in the order asked for.
    pub(super) fn locate(&self, names: &[&str], lists: Lists) -> Result<Vec<Listed>, PackageError> {
        let what = format!("apt-get --print-uris download {}", names.join(" "));
        let text = self.ask(
            "apt-get",
            &[&["-q", "--print-uris", "download"], names].concat(),
            lists,
        )?;
        let listed: Vec<Listed> = text
            .lines()
            .filter(|line| line.starts_with('\''))
            .filter_map(parse)
            .collect();
        names
            .iter()
            .map(|name| {
                let found = listed.iter().find(|package| package.name == *name).cloned();
                found.ok_or_else(|| PackageError::Answer {
                    command: what.clone(),
                    answer: text.clone(),
                })
            })
            .collect()
    }

    /// Downloads exactly these packages into `directory`; tells `percent` how far it is.
    pub(super) fn download(
        &self,
        packages: &[&Listed],
        lists: Lists,
        directory: &Path,
        percent: &mut dyn FnMut(u8),
    ) -> Result<(), PackageError> {
        let exact: Vec<String> = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version))
            .collect();
        let what = format!("apt-get download {}", exact.join(" "));
        let no_apt = |source| PackageError::NoApt {
            program: "apt-get",
            source,
        };
        // In memory: a full disk is among what apt may have to say.
        let errors = memfd_create("errors", MemfdFlags::CLOEXEC);
        let mut errors = File::from(errors.map_err(|errno| no_apt(errno.into()))?);
        let stderr = errors.try_clone().map_err(no_apt)?;
        let mut child = self
            .command("apt-get", lists)
            .args(["-q", "-o", "APT::Status-Fd=1", "download"])
            .args(&exact)
            .current_dir(directory)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(no_apt)?;
        percent(0);
        if let Some(stdout) = child.stdout.take() {
            // Lines such as dlstatus:1:42.5000:Retrieving file 1 of 1.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let done = line
                    .strip_prefix("dlstatus:")
                    .and_then(|rest| rest.split(':').nth(1)?.split('.').next()?.parse().ok());
                done.into_iter().for_each(&mut *percent);
            }
        }
        let status = child.wait().map_err(no_apt)?;
        if status.success() {
            percent(100);
            return Ok(());
        }
        Err(PackageError::Apt {
            command: what,
            output: complaint(&read_back(&mut errors)),
        })
    }

    /// What the program answers; from memory, if its lists are unchanged.
    fn ask(
        &self,
        program: &'static str,
        args: &[&str],
        lists: Lists,
    ) -> Result<String, PackageError> {
        let memory = match lists {
            Lists::System => &self.system_answers,
            Lists::Own => &self.own_answers,
        };
        let question = format!("{program} {}", args.join(" "));
        if let Some(answer) = memory.recall(&question) {
            return Ok(answer);
        }
        let output = run(self.command(program, lists).args(args), program, &question)?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        memory.learn(&question, &answer);
        Ok(answer)
    }

    fn command(&self, program: &str, lists: Lists) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        // apt's own user cannot write into a private cache; without this it says so on every call.
        command
            .args(["-o", "APT::Sandbox::User=root"])
            .arg("-o")
            .arg(option("Dir::Cache", &self.cache));
        if lists == Lists::Own {
            command
                .arg("-o")
                .arg(option("Dir::State::Lists", &self.lists));
        }
        command
    }
}

fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push("=");
    option.push(path);
    option
}

fn run(command: &mut Command, program: &'static str, what: &str) -> Result<Output, PackageError> {
    let output = command
        .output()
        .map_err(|source| PackageError::NoApt { program, source })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(PackageError::Apt {
        command: what.to_owned(),
        output: complaint(&output.stderr),
    })
}

fn read_back(file: &mut File) -> Vec<u8> {
    let mut text = Vec::new();
    let read = file.rewind().and_then(|()| file.read_to_end(&mut text));
    match read {
        Ok(_) => text,
        Err(error) => io::Error::to_string(&error).into_bytes(),
    }
}

/// apt's errors in one line.
fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let errors: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("E: "))
        .map(|line| line.trim_end_matches('.'))
        .collect();
    if errors.is_empty() {
        text.trim().replace('\n', ", ")
    } else {
        errors.join(", ")
    }
}

/// Reads a line such as `'URI' name_1%3a2.3_amd64.deb 1234 SHA256:abcd`.
fn parse(line: &str) -> Option<Listed> {
    let mut fields = line
        .strip_prefix('\'')?
        .split_once('\'')?
        .1
        .split_whitespace();
    let (file, size, digest) = (fields.next()?, fields.next()?, fields.next()?);
    let mut parts = file.split('_');
    let (name, version) = (parts.next()?, parts.next()?);
    Some(Listed {
        name: name.to_owned(),
        version: version.replace("%3a", ":"),
        file: file.to_owned(),
        size: size.parse().ok()?,
        sha256: digest.strip_prefix("SHA256:")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_list_of_uris_is_understood() {
        let line = "'http://mirror/pool/b/busybox-static_1.35%2bb1_amd64.deb' busybox-static_1%3a1.35+b1_amd64.deb 928188 SHA256:3d3f";
        let expected = Listed {
            name: "busybox-static".into(),
            version: "1:1.35+b1".into(),
            file: "busybox-static_1%3a1.35+b1_amd64.deb".into(),
            size: 928_188,
            sha256: "3d3f".into(),
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(
            parse("'http://mirror/x.deb' x_1_amd64.deb 12 MD5Sum:00"),
            None,
            "a digest that proves nothing"
        );
        assert_eq!(parse("W: something else"), None);
    }

    #[test]
    fn complaints_are_apts_errors_in_one_line() {
        assert_eq!(
            complaint(b"W: noise\nE: Unable to locate package x\nE: Second.\n"),
            "Unable to locate package x, Second"
        );
        assert_eq!(complaint(b"died\nhard\n"), "died, hard");
    }
}
