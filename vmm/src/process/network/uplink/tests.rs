// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use event_manager::{EventManager, MutEventSubscriber, SubscriberId, SubscriberOps};
use tempfile::TempDir;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;

const SECOND: u64 = 1_000_000_000;
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DATA: Data = Data {
    frames: 0,
    messages: 1,
    exit: 2,
};
/// Wakes the rig when nothing else does, in ms; longer than anything a test waits for.
const BOUND: i32 = 30_000;

/// An uplink in a loop whose time is set by hand.
struct Rig {
    uplink: Uplink,
    now: u64,
    frames: Vec<Vec<u8>>,
    news: Vec<News>,
    sends: Vec<Vec<u8>>,
    timer: EventFd,
    turns: u64,
}

impl MutEventSubscriber for Rig {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let part = match events.data() {
            0 => Part::Frames,
            1 => Part::Messages,
            2 => Part::Exit,
            _ => {
                self.timer.read().expect("counted");
                self.turns += 1;
                return self.turn(ops);
            }
        };
        let frames = &mut self.frames;
        let mut sink = |frame: &[u8]| frames.push(frame.to_vec());
        self.uplink.event(part, self.now, ops, &mut sink);
        self.turn(ops);
    }

    fn init(&mut self, ops: &mut EventOps) {
        let timer = Events::with_data(&self.timer, 3, EventSet::IN);
        ops.add(timer).expect("watched");
        self.turn(ops);
    }
}

impl Rig {
    fn waits_until(&self, at: u64) -> bool {
        matches!(self.uplink.state, State::Waits { until } if until == at)
    }

    fn turn(&mut self, ops: &mut EventOps<'_>) {
        self.uplink.time_passed(self.now, ops);
        for frame in self.sends.drain(..) {
            self.uplink.send(&frame);
        }
        self.uplink.flush(ops);
        self.news.extend(self.uplink.take_news());
    }
}

struct Running {
    manager: EventManager<Rig>,
    id: SubscriberId,
}

impl Running {
    fn start(program: &Path) -> Self {
        let passt = config::Uplink::Passt;
        let mut uplink = Uplink::new(&passt, GUEST_MAC, HOST_MAC, DATA).expect("an uplink");
        uplink.kind = Kind::Passt(program.to_owned());
        let mut manager = EventManager::new().expect("epoll");
        let id = manager.add_subscriber(Rig {
            uplink,
            now: 0,
            frames: vec![],
            news: vec![],
            sends: vec![],
            timer: EventFd::new(EFD_NONBLOCK).expect("an eventfd"),
            turns: 0,
        });
        Self { manager, id }
    }

    fn rig(&mut self) -> &mut Rig {
        self.manager.subscriber_mut(self.id).expect("there")
    }

    /// Runs the loop until `is` holds.
    fn until(&mut self, is: impl Fn(&Rig) -> bool) {
        while !is(self.rig()) {
            let handled = self.manager.run_with_timeout(BOUND).expect("the loop runs");
            let told = &self.rig().news;
            assert!(handled > 0, "it never came; told: {told:?}");
        }
    }

    /// It is so late now, and the timer fires.
    fn at(&mut self, now: u64) {
        self.rig().now = now;
        self.rig().timer.write(1).expect("counted");
        let before = self.rig().turns;
        self.until(|rig| rig.turns > before);
    }

    /// What was told since the last call, once `count` news are there.
    fn news(&mut self, count: usize) -> Vec<News> {
        self.until(|rig| rig.news.len() >= count);
        std::mem::take(&mut self.rig().news)
    }

    /// The next news, which are that it does not work.
    fn down(&mut self) -> (String, Option<u64>) {
        match self.news(1).as_slice() {
            [News::UplinkDown { message, retry_ns }] => (message.clone(), *retry_ns),
            other => panic!("{other:?}"),
        }
    }
}

fn script(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("passt");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made a program");
    path
}

#[test]
fn one_that_answers_works_and_carries_frames_both_ways() {
    let folder = tempfile::tempdir().expect("a folder");
    // What it answers is what it was asked.
    let mut running = Running::start(&script(&folder, "exec cat <&3 >&3"));
    assert_eq!(running.news(1), [News::UplinkUp]);
    running.until(|rig| rig.frames.len() == 1);
    assert_eq!(running.rig().frames[0], passt::question(GUEST_MAC));
    assert_eq!(running.rig().frames[0].len(), 42);
    let sent: Vec<Vec<u8>> = (0..100).map(|fill| vec![fill; 1514]).collect();
    running.rig().sends = sent.clone();
    running.at(SECOND);
    running.until(|rig| rig.frames.len() == 101);
    assert_eq!(running.rig().frames[1..], sent);
    assert_eq!(running.news(0), [], "said once");
}

#[test]
fn one_that_ends_is_told_once_with_its_last_words_and_tried_again_later_and_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = script(&folder, "echo no interface >&2\nexit 3");
    let mut running = Running::start(&program);
    let expected = "passt ended (exit status: 3): no interface".to_owned();
    assert_eq!(running.down(), (expected.clone(), Some(SECOND)));
    let mut due = SECOND;
    for wait in [2, 4, 8] {
        running.at(due - 1);
        assert!(running.rig().waits_until(due), "not early");
        running.at(due);
        let next = due + wait * SECOND;
        running.until(|rig| rig.waits_until(next));
        due = next;
    }
    assert_eq!(running.news(0), [], "nothing has changed");
    script(&folder, "exec cat <&3 >&3");
    running.at(due);
    assert_eq!(running.news(1), [News::UplinkUp]);
}

#[test]
fn one_that_crashes_after_it_worked_is_told_and_started_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let crash = "head -c 46 <&3 >&3; head -c 46 <&3 >/dev/null; kill -SEGV $$";
    let mut running = Running::start(&script(&folder, crash));
    assert_eq!(running.news(1), [News::UplinkUp]);
    running.rig().sends = vec![vec![7; 42]];
    running.at(70 * SECOND);
    let (message, retry) = running.down();
    assert!(message.starts_with("passt ended (signal: 11"), "{message}");
    assert_eq!(retry, Some(SECOND));
    running.at(71 * SECOND);
    assert_eq!(running.news(1), [News::UplinkUp]);
}

#[test]
fn one_that_is_not_there_is_told_with_what_to_install() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut running = Running::start(&folder.path().join("passt"));
    let (message, retry) = running.down();
    assert!(
        message.contains("passt is not there: install the package passt"),
        "{message}"
    );
    assert!(message.contains("sudo apt-get install passt"), "{message}");
    assert_eq!(retry, Some(SECOND));
    script(&folder, "exec cat <&3 >&3");
    running.at(SECOND);
    assert_eq!(
        running.news(1),
        [News::UplinkUp],
        "it was installed meanwhile"
    );
}

#[test]
fn one_that_says_what_is_no_frame_is_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut running = Running::start(&script(
        &folder,
        "printf '\\0\\0\\0\\5' >&3; exec sleep 100",
    ));
    let (message, _) = running.down();
    assert!(message.starts_with("passt ended (signal: 9"), "{message}");
    assert!(message.contains("it sent a frame of 5 bytes"), "{message}");
}

#[test]
fn one_that_stays_works_also_if_it_does_not_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut running = Running::start(&script(&folder, "exec sleep 100"));
    running.at(SETTLED_NS - 1);
    assert_eq!(running.news(0), []);
    running.at(SETTLED_NS);
    assert_eq!(running.news(1), [News::UplinkUp]);
    // It reads nothing: what does not fit is dropped.
    running.rig().sends = vec![vec![1; 1514]; 1000];
    running.at(SETTLED_NS + 1);
    assert_eq!(running.news(0), []);
}

#[test]
fn one_without_an_uplink_has_none() {
    assert!(Uplink::new(&config::Uplink::None, GUEST_MAC, HOST_MAC, DATA).is_none());
}
