// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The watch over a VM process that is played in steps of 10 ms.

use std::ops::Range;

use kennel_vmm::protocol::WatchdogReport;
use kennel_vmm::pulse::Sender;

use super::*;

const SECOND: u64 = 1_000;
const STEP: usize = 10;

/// A VM process, its supervisor, and what both did. Times are in ms.
#[derive(Default)]
struct World {
    /// The supervisor does not run.
    supervisor_stopped: Vec<Range<u64>>,
    /// The VM process does not run.
    process_stopped: Vec<Range<u64>>,
    /// The event loop answers nobody.
    loop_silent: Vec<Range<u64>>,
    /// What the event loop is at from an instant on, idle before. Each is a step of progress.
    phases: Vec<(u64, Phase)>,
    /// Bites that the event loop tells.
    bites: Vec<u64>,
    action: Option<WatchdogAction>,
    armed: bool,
    reset: Option<ResetCause>,
    /// The link is behind from then on, and has done something 7 s later.
    behind_from: Option<u64>,
    behind_gets_on: bool,
    /// What came of it.
    found: Vec<(u64, Finding)>,
    asked_loop: Vec<u64>,
    asked_second: Vec<u64>,
}

fn within(ranges: &[Range<u64>], at: u64) -> bool {
    ranges.iter().any(|range| range.contains(&at))
}

fn moment(millis: u64) -> Moment {
    Moment::ZERO.after(Duration::from_millis(millis))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("a short time")
}

const BITE: WatchdogReport = WatchdogReport {
    action: WatchdogAction::Reset,
    timeout_ns: 1,
    since_ping_ns: 1,
    lateness_ns: 0,
    bites: 1,
};

impl World {
    fn pulse(&self, sender: Sender, number: u64, at: u64) -> Pulse {
        let mut past = self.phases.iter().filter(|(from, _)| *from <= at);
        Pulse {
            number,
            sender,
            progress: 1 + u64::try_from(past.clone().count()).expect("few"),
            phase: past.next_back().map_or(Phase::Idle, |(_, phase)| *phase),
            armed: self.armed,
            bitten: false,
            action: self.action,
            reset: self.reset,
            behind: self
                .behind_from
                .filter(|from| *from <= at && sender == Sender::EventLoop)
                .map(|from| {
                    (
                        Phase::WaitForLink,
                        u16::from(self.behind_gets_on && at > from + 7_000),
                    )
                }),
        }
    }

    /// Up to `end`, or to the first time that the process is found to be stuck.
    fn play(mut self, end: u64) -> Self {
        let mut watch = ProcessWatch::new(moment(0));
        let (mut to_loop, mut to_second) = (None, None);
        let mut answers = Answers::default();
        // What is told waits for a supervisor that does not run.
        let mut told = 0;
        for at in (0..=end).step_by(STEP) {
            if !within(&self.process_stopped, at) {
                if let Some(number) = to_second.take() {
                    answers.from_second_thread = Some(self.pulse(Sender::SecondThread, number, at));
                }
                if !within(&self.loop_silent, at)
                    && let Some(number) = to_loop.take()
                {
                    answers.from_loop = Some(self.pulse(Sender::EventLoop, number, at));
                }
            }
            if within(&self.supervisor_stopped, at) {
                continue;
            }
            let now = moment(at);
            while self.bites.get(told).is_some_and(|bite| *bite <= at) {
                let action = self.action.unwrap_or_default();
                watch.heard(now, &News::Watchdog(WatchdogReport { action, ..BITE }));
                told += 1;
            }
            if !watch.due(now) {
                continue;
            }
            answers.state = Some(if within(&self.process_stopped, at) {
                'T'
            } else {
                'S'
            });
            let (found, questions) = watch.look(now, std::mem::take(&mut answers));
            assert!(watch.next_due() > now, "it looks without end");
            if let Some(number) = questions.to_loop {
                assert_eq!(to_loop, None, "one question at a time");
                to_loop = Some(number);
                self.asked_loop.push(at);
            }
            if let Some(number) = questions.to_second_thread {
                assert_eq!(to_second, None, "one question at a time");
                to_second = Some(number);
                self.asked_second.push(at);
            }
            self.found.extend(found.map(|found| (at, found)));
            if matches!(found, Some(Finding::Stuck(_))) {
                break;
            }
        }
        self
    }

    fn stuck(&self) -> (u64, Stuck) {
        match self.found.as_slice() {
            [(at, Finding::Stuck(stuck))] => (*at, *stuck),
            other => panic!("{other:?}"),
        }
    }

    /// When it was told that the process does not run, if nothing else was.
    fn stops(&self) -> Vec<u64> {
        let stop = |(at, found): &(u64, Finding)| match found {
            Finding::DoesNotRun { state, silent } => {
                assert!(*state == Some('T') && *silent >= BOUND, "{found:?}");
                *at
            }
            Finding::Stuck(stuck) => panic!("at {at}: {stuck:?}"),
        };
        self.found.iter().map(stop).collect()
    }
}

#[test]
fn an_idle_process_is_asked_once_in_five_seconds_and_its_second_thread_never() {
    let world = World::default().play(3_600 * SECOND);
    assert_eq!(world.found, []);
    assert_eq!(world.asked_second, [0; 0]);
    let gaps = world.asked_loop.windows(2).map(|pair| pair[1] - pair[0]);
    assert_eq!(gaps.min(), Some(millis(PERIOD)));
    assert!(world.asked_loop.len() > 700);
}

#[test]
fn a_loop_that_hangs_is_found_whenever_it_hangs() {
    for from in (20_000..26_000).step_by(130) {
        let world = World {
            loop_silent: vec![from..u64::MAX],
            armed: true,
            action: Some(WatchdogAction::Reset),
            ..World::default()
        };
        let (at, stuck) = world.play(60 * SECOND).stuck();
        assert!((from + 4_000..=from + 12_000).contains(&at), "{from}: {at}");
        assert!(stuck.silent >= BOUND && stuck.silent < BOUND + Duration::from_secs(2));
        assert_eq!(stuck.duty, Duty::Bite(WatchdogAction::Reset));
        assert_eq!((stuck.what(), stuck.phase), ("event loop", Phase::Idle));
    }
}

#[test]
fn a_loop_that_hangs_for_less_is_left_alone() {
    for from in (20_000..26_000).step_by(130) {
        let world = World {
            loop_silent: vec![from..from + 3_900],
            ..World::default()
        };
        assert_eq!(world.play(60 * SECOND).found, [], "{from}");
    }
}

#[test]
fn a_process_that_is_stopped_is_told_once_a_stop_and_never_stuck() {
    let stops = vec![21_000..81_000, 100_000..160_000];
    let world = World {
        process_stopped: stops.clone(),
        ..World::default()
    };
    let told = world.play(200 * SECOND).stops();
    assert_eq!(told.len(), stops.len(), "{told:?}");
    for (at, stop) in told.iter().zip(stops) {
        let bound = stop.start + 4_000..stop.start + 13_000;
        assert!(bound.contains(at), "{at} {stop:?}");
    }
}

/// The event loop is slower to come back than the second thread.
#[test]
fn a_process_may_go_on_at_any_instant() {
    for goes_on in (20_000..36_000).step_by(70) {
        for slow in [0, 10, 500, 3_000] {
            let world = World {
                process_stopped: vec![18_000..goes_on],
                loop_silent: vec![18_000..goes_on + slow],
                ..World::default()
            };
            assert!(world.play(70 * SECOND).stops().len() <= 1);
        }
    }
}

/// And its event loop may then need a while, as much as one that was never stopped.
#[test]
fn a_process_that_goes_on_begins_anew() {
    for goes_on in (30_000..40_000).step_by(130) {
        let world = World {
            process_stopped: vec![18_000..goes_on],
            loop_silent: vec![18_000..goes_on + 6_000],
            ..World::default()
        };
        assert!(world.play(70 * SECOND).stops().len() <= 1);
    }
}

/// It had looked closely already, since the event loop was slow.
#[test]
fn a_stop_of_both_while_an_answer_is_owed_counts_for_nothing() {
    for from in (20_000..26_000).step_by(130) {
        for until in (0..4_000).step_by(250) {
            let stop = from + until..from + until + 60_000;
            let world = World {
                supervisor_stopped: vec![stop.clone()],
                process_stopped: vec![stop.clone()],
                loop_silent: vec![from..stop.end + 500],
                ..World::default()
            };
            assert_eq!(world.play(140 * SECOND).found, [], "{from} {until}");
        }
    }
}

#[test]
fn stopped_again_and_again_it_is_no_loop_that_hangs() {
    // Runs for 1 s of every 5 s, and its event loop never gets to answer within that second.
    let stops: Vec<_> = (4..40)
        .map(|turn| turn * 5_000..turn * 5_000 + 4_000)
        .collect();
    let world = World {
        process_stopped: stops,
        loop_silent: vec![20_000..200_000],
        ..World::default()
    };
    let _told = world.play(200 * SECOND).stops();
}

#[test]
fn a_supervisor_that_does_not_run_does_not_count_its_absence() {
    for from in (10_000..16_000).step_by(130) {
        let world = World {
            supervisor_stopped: vec![from..from + 60_000],
            ..World::default()
        };
        assert_eq!(world.play(120 * SECOND).found, [], "{from}");
        // Nor with both of them stopped, whichever goes on first; a process that is seen not to run
        // afterwards is told.
        for late in [-9_000_i64, -500, 0, 500, 2_000, 9_000] {
            let goes_on = (from + 60_000).saturating_add_signed(late);
            let world = World {
                supervisor_stopped: vec![from..from + 60_000],
                process_stopped: vec![from..goes_on],
                loop_silent: vec![from..goes_on + 300],
                ..World::default()
            };
            let told = world.play(140 * SECOND).stops().len();
            assert!(told == 0 || late > 4_000, "{from} {late}");
        }
    }
}

#[test]
fn a_supervisor_that_was_stopped_finds_a_loop_that_hangs_after_its_own_ten_seconds() {
    let world = World {
        supervisor_stopped: vec![22_000..90_000],
        loop_silent: vec![21_000..u64::MAX],
        ..World::default()
    };
    let (at, stuck) = world.play(140 * SECOND).stuck();
    assert!((90_000 + 4_000..90_000 + 11_000).contains(&at), "{at}");
    assert_eq!(stuck.duty, Duty::Nothing);
}

#[test]
fn a_supervisor_that_is_starved_counts_what_it_planned() {
    // Runs for 20 ms of each 3 s.
    let starved: Vec<_> = (0..60)
        .map(|turn| turn * 3_000 + 20..turn * 3_000 + 3_000)
        .collect();
    let world = World {
        supervisor_stopped: starved,
        loop_silent: vec![20_000..24_000],
        ..World::default()
    };
    assert_eq!(world.play(120 * SECOND).found, []);
}

#[test]
fn each_action_that_gets_nowhere_is_found_ten_seconds_after_its_bite() {
    for (phase, what) in [
        (Phase::WaitForVcpus, "vCPU"),
        (Phase::ResetDevices, "event loop"),
        (Phase::Wipe, "event loop"),
        (Phase::LoadKernel, "kernel load"),
        (Phase::BuildVm, "event loop"),
        (Phase::End, "event loop"),
        // It hangs before it has said what it does.
        (Phase::Idle, "event loop"),
    ] {
        for answers in [true, false] {
            if answers && phase == Phase::Idle {
                continue;
            }
            for (bite, action) in (21_000..26_500).step_by(900).zip(WatchdogAction::ALL) {
                let world = World {
                    bites: vec![bite],
                    phases: vec![(bite, phase)],
                    loop_silent: if answers {
                        vec![]
                    } else {
                        vec![bite..u64::MAX]
                    },
                    action: Some(action),
                    ..World::default()
                };
                let (at, stuck) = world.play(60 * SECOND).stuck();
                assert!(
                    (bite + 10_000..bite + 12_000).contains(&at),
                    "{phase:?}: {at}"
                );
                assert_eq!(stuck.duty, Duty::Bite(action), "{phase:?}");
                assert_eq!(stuck.what(), what);
            }
        }
    }
}

/// While its machine is reset every second, without the link.
#[test]
fn a_link_that_is_behind_is_found_although_the_event_loop_gets_on() {
    let resets = (0..60).map(|turn| 20_000 + turn * 1_000);
    let world = |behind_gets_on| World {
        bites: resets.clone().collect(),
        phases: resets
            .clone()
            .flat_map(|at| [(at, Phase::LoadKernel), (at + 100, Phase::Idle)])
            .collect(),
        action: Some(WatchdogAction::Reset),
        behind_from: Some(20_000),
        behind_gets_on,
        ..World::default()
    };
    let (at, stuck) = world(false).play(60 * SECOND).stuck();
    assert!((30_000..32_000).contains(&at), "{at}");
    assert_eq!((stuck.what(), stuck.phase), ("link", Phase::WaitForLink));
    assert_eq!(stuck.duty, Duty::Bite(WatchdogAction::Reset));
    let (at, _) = world(true).play(60 * SECOND).stuck();
    assert!((37_000..39_500).contains(&at), "{at}");
}

#[test]
fn a_slow_reset_that_gets_on_is_not_stuck() {
    let phases = [
        Phase::WaitForVcpus,
        Phase::ResetDevices,
        Phase::Wipe,
        Phase::LoadKernel,
        Phase::LoadKernel,
        Phase::BuildVm,
        Phase::Idle,
    ];
    for bite in (21_000..26_500).step_by(310) {
        for answers in [true, false] {
            let end = bite + 9_000 * 6;
            let world = World {
                bites: vec![bite],
                phases: (0..).map(|n| bite + 9_000 * n).zip(phases).collect(),
                loop_silent: if answers { vec![] } else { vec![bite..end] },
                action: Some(WatchdogAction::Reset),
                ..World::default()
            };
            assert_eq!(world.play(120 * SECOND).found, [], "{bite}");
        }
    }
}

#[test]
fn a_bite_whose_action_is_done_at_once_is_over() {
    let world = World {
        bites: (0..300).map(|turn| 20_000 + turn * 1_000).collect(),
        action: Some(WatchdogAction::None),
        ..World::default()
    };
    let world = world.play(400 * SECOND);
    assert_eq!(world.found, []);
    assert_eq!(world.asked_second, [0; 0]);
    let after = world.asked_loop.iter().filter(|at| **at > 330_000).count();
    assert!(after <= 15, "it rests again: {after}");
}

/// What the event loop had said before the bite is not what it does about it.
#[test]
fn an_answer_from_before_the_bite_does_not_count() {
    let mut watch = ProcessWatch::new(moment(0));
    let (_, asked) = watch.look(moment(0), Answers::default());
    let before = asked.to_loop.expect("asked at once");
    let action = WatchdogAction::Reset;
    watch.heard(
        moment(10),
        &News::Watchdog(WatchdogReport { action, ..BITE }),
    );
    let world = World::default();
    let old = Answers {
        from_loop: Some(world.pulse(Sender::EventLoop, before, 0)),
        ..Answers::default()
    };
    assert!(watch.due(moment(10)));
    let (_, asked) = watch.look(moment(10), old);
    let next = asked.to_loop.expect("asked anew");
    assert_ne!(before, next);
    assert!(watch.busy, "the action is under way");
    let new = Answers {
        from_loop: Some(world.pulse(Sender::EventLoop, next, 0)),
        ..Answers::default()
    };
    let _found = watch.look(moment(300), new);
    assert!(!watch.busy);
}

#[test]
fn what_is_owed() {
    let action = Some(WatchdogAction::Poweroff);
    let cause = ResetCause::KeyboardController;
    let bite = Duty::Bite(WatchdogAction::Poweroff);
    for (armed, bites, reset, owed) in [
        (false, vec![], None, Duty::Nothing),
        (true, vec![], None, bite),
        (true, vec![], Some(cause), Duty::Reset(cause)),
        (false, vec![], Some(cause), Duty::Reset(cause)),
        (false, vec![21_000], Some(cause), bite),
    ] {
        let world = World {
            armed,
            action,
            bites,
            reset,
            loop_silent: vec![21_000..u64::MAX],
            ..World::default()
        };
        assert_eq!(world.play(60 * SECOND).stuck().1.duty, owed);
    }
    for (duty, instead) in [
        (Duty::Nothing, Instead::End),
        (bite, Instead::PowerOff),
        (Duty::Bite(WatchdogAction::Shutdown), Instead::PowerOff),
        (Duty::Bite(WatchdogAction::Pause), Instead::End),
        (Duty::Bite(WatchdogAction::InjectNmi), Instead::End),
        (Duty::Bite(WatchdogAction::None), Instead::End),
        (
            Duty::Bite(WatchdogAction::Reset),
            Instead::Reset(ResetCause::Watchdog),
        ),
        (Duty::Reset(cause), Instead::Reset(cause)),
    ] {
        assert_eq!(Instead::of(duty, true), instead);
        assert_eq!(Instead::of(duty, false), Instead::End);
    }
}
