// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest on a VM process of its own, whose shell is its agent, so that it obeys without a network,
//! and what probes of its ports tell.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use kennel::guest::overlay;
use kennel::probe::Outcome;
use kennel::probe::network::NetworkRunner;
use kennel::spec::{self, Handler, IpFamily};
use kennel_tests::machine::{Machine, Seen};
use kennel_tests::tier::ACT_AS_KENNEL;
use kennel_vmm::config::{MachineConfig, NetworkConfig, Uplink};
use kennel_vmm::dial::{GUEST_IPV4, HOST_IPV6};
use kennel_vmm::protocol::{Command, Ending, News};
use tempfile::TempDir;

use crate::Image;
use crate::guest::kennel;

/// For what is answered: longer than a guest takes, on any machine.
const PATIENT: Duration = Duration::from_secs(60);
/// For what is not.
const SHORT: Duration = Duration::from_secs(10);

/// What an attempt is to tell.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Well,
    /// With words of its message.
    Warns(&'static str),
    Fails(&'static str),
    /// The same, for it waits until its time is over.
    Late(&'static str),
    /// It cannot be told.
    Untold(&'static str),
}

impl Verdict {
    fn timeout(self) -> Duration {
        match self {
            Self::Late(_) | Self::Untold(_) => SHORT,
            Self::Well | Self::Warns(_) | Self::Fails(_) => PATIENT,
        }
    }

    fn is(self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Well, Outcome::Success) => true,
            (Self::Warns(words), Outcome::Warning(why))
            | (Self::Fails(words) | Self::Late(words), Outcome::Failure(why))
            | (Self::Untold(words), Outcome::Error(why)) => why.contains(words),
            _ => false,
        }
    }
}

/// What is asked: words for the reader, a handler as a document has it, and what it is to tell.
pub(super) type Question = (&'static str, String, IpFamily, Verdict);

/// The guest.
pub(super) struct Guest {
    pub(super) machine: Machine,
    place: TempDir,
}

impl Guest {
    /// Starts one with this script, and waits until it has both of its addresses, its agent and a
    /// line `reachable` on its console.
    pub(super) fn start(image: &Image, uplink: Uplink, script: &str) -> Self {
        let place = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let place = tempfile::tempdir_in(place.unwrap_or_else(std::env::temp_dir));
        let place = place.expect("a folder");
        let config = MachineConfig {
            memory_bytes: 256 << 20,
            vcpus: 1,
            kernel: image.vmlinux.clone(),
            initrd: Some(image.initrd.clone()),
            initrd_overlay: overlay(script).expect("an archive"),
            cmdline: "console=ttyS0 quiet panic=-1 cryptomgr.notests".into(),
            watchdog: None,
            agent_socket: Some(place.path().join("agent")),
            resets: 0,
            network: Some(NetworkConfig {
                uplink,
                dial_socket: place.path().join("dial"),
            }),
        };
        let mut machine = Machine::start_as(config);
        machine.news("the guest's addresses", |news| {
            let News::GuestAddresses { ipv4, ipv6 } = news else {
                return None;
            };
            let prefix = &HOST_IPV6.segments()[..4];
            let ipv6 = ipv6.filter(|address| address.segments().starts_with(prefix));
            (*ipv4 == Some(GUEST_IPV4) && ipv6.is_some()).then_some(())
        });
        let mut guest = Self { machine, place };
        guest.has_told(&News::AgentConnected);
        guest.seen(
            "script",
            |seen| matches!(seen, Seen::Line(line) if line == "reachable"),
        );
        guest
    }

    /// Waits for something, unless it has come already.
    fn seen(&mut self, what: &str, is: impl Fn(&Seen) -> bool) {
        if !self.machine.log().iter().any(&is) {
            self.machine.wait_for(what, |seen| is(seen).then_some(()));
        }
    }

    /// Waits for these news, unless they have come already.
    pub(super) fn has_told(&mut self, told: &News) {
        self.seen(
            "news",
            |seen| matches!(seen, Seen::Notice(notice) if notice.news == *told),
        );
    }

    /// Lines of shell in the guest, by its agent.
    pub(super) fn shell(&self, lines: &str) {
        let mut command = kennel();
        command
            .env(ACT_AS_KENNEL, "1")
            .args(["probe", "--agent"])
            .arg(self.place.path().join("agent"))
            .args(["--timeoutSeconds", "60", "--command", "sh", "--"])
            .args(["-c", lines]);
        let output = command.output().expect("this program runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}: {said}");
    }

    /// Asks all of it at once, and gives what was told otherwise than it should.
    pub(super) fn ask(&self, state: &str, questions: &[Question]) -> Vec<String> {
        let socket = self.place.path().join("dial");
        let one = |(what, handler, family, verdict): &Question| {
            let timeout = verdict.timeout();
            let mut runner = NetworkRunner::new(read(handler), timeout, *family, &socket);
            let outcome = runner.attempt(Instant::now() + timeout);
            eprintln!("{state}, {what}, {family:?}: {outcome:?}");
            let wrong = !verdict.is(&outcome);
            wrong.then(|| format!("{state}, {what}, {family:?}: {outcome:?}, not {verdict:?}"))
        };
        thread::scope(|scope| {
            let asked = questions
                .iter()
                .map(|question| scope.spawn(move || one(question)));
            let asked: Vec<_> = asked.collect();
            let told = asked.into_iter().map(|asked| asked.join().expect("told"));
            told.flatten().collect()
        })
    }

    pub(super) fn pause(&mut self) {
        self.machine.tell(&Command::Pause);
        self.machine.news("the pause", |news| {
            matches!(news, News::Paused { .. }).then_some(())
        });
    }

    pub(super) fn stop(mut self) {
        self.machine.tell(&Command::Stop);
        self.machine.news("the end", |news| {
            (*news == News::Ended(Ending::Stopped)).then_some(())
        });
    }
}

/// A handler as a document has it, in one line.
fn read(handler: &str) -> Handler {
    let text = format!(
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {{name: asked}}\n\
         spec:\n  domain: {{memory: {{guest: 64Mi}}, devices: {{}}}}\n  readinessProbe:\n    {handler}\n"
    );
    let document = spec::parse(&text, "asked.yaml");
    let document = document.unwrap_or_else(|problems| panic!("{problems}"));
    document.vmi.readiness.expect("it has one").handler
}
