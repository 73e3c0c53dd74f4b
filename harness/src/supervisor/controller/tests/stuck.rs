// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VM processes that hang or do not run, up to what becomes of their instances.

use kennel_vmm::config::WatchdogAction;
use kennel_vmm::mailbox::ResetCause;
use kennel_vmm::protocol::WatchdogReport;
use kennel_vmm::pulse::{Phase, Pulse, Sender};

use super::*;

/// What the VM process answers, if anything.
#[derive(Clone, Copy)]
struct Life {
    loop_answers: bool,
    second_answers: bool,
    phase: Phase,
    armed: bool,
    action: WatchdogAction,
}

/// It runs; its event loop hangs.
const HANGS: Life = Life {
    loop_answers: false,
    second_answers: true,
    phase: Phase::WaitForVcpus,
    armed: true,
    action: WatchdogAction::Reset,
};

impl Hand {
    fn created_as(&mut self, number: u64, pid: u32) {
        let (instance, pid) = (InstanceId(number), Some(pid));
        self.asked = Questions::default();
        self.happens(Happening::Created { instance, pid });
    }

    /// Goes from one instant that is due to the next, and answers as `life`, until the controller wants
    /// something or says something; false if it has not after a minute.
    fn lives(&mut self, life: Life) -> bool {
        let end = self.now.after(Duration::from_secs(60));
        while let Some(due) = self.controller.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.happens(Happening::TimePassed);
            let mut before = vec![];
            while let Some(Act::Look { instance }) =
                self.acts.iter().find(|act| matches!(act, Act::Look { .. }))
            {
                let pulse = |sender| {
                    move |number| Pulse {
                        number,
                        sender,
                        progress: 1,
                        phase: life.phase,
                        armed: life.armed,
                        bitten: false,
                        action: Some(life.action),
                        reset: None,
                        behind: None,
                    }
                };
                let answers = Answers {
                    from_loop: self
                        .asked
                        .to_loop
                        .take_if(|_| life.loop_answers)
                        .map(pulse(Sender::EventLoop)),
                    from_second_thread: self
                        .asked
                        .to_second_thread
                        .take_if(|_| life.second_answers)
                        .map(pulse(Sender::SecondThread)),
                    state: Some('T'),
                };
                let instance = *instance;
                before.append(&mut self.acts);
                self.happens(Happening::Looked { instance, answers });
                let asked = &mut self.asked;
                for act in &self.acts {
                    if let Act::AskForLife { questions, .. } = act {
                        asked.to_loop = questions.to_loop.or(asked.to_loop);
                        asked.to_second_thread =
                            questions.to_second_thread.or(asked.to_second_thread);
                    }
                }
            }
            self.acts.splice(0..0, before);
            if !self.wants().is_empty() || !self.told().is_empty() {
                return true;
            }
        }
        false
    }

    fn bitten(&mut self, number: u64, action: WatchdogAction) {
        let report = WatchdogReport {
            action,
            timeout_ns: 1,
            since_ping_ns: 1,
            lateness_ns: 0,
            bites: 1,
        };
        self.news(number, News::Watchdog(report));
    }
}

fn running() -> Hand {
    let mut hand = hand("VirtualMachineInstance", "", "");
    hand.created_as(0, 7);
    hand.news(0, News::Started);
    hand
}

#[test]
fn a_stuck_reset_goes_on_in_a_new_process() {
    let mut hand = running();
    let (cause, count) = (ResetCause::ResetControl, 4);
    hand.news(0, News::Reset { cause, count });
    hand.news(0, News::AgentConnected);
    hand.bitten(0, WatchdogAction::Reset);
    let bitten_at = hand.now;
    assert!(hand.lives(HANGS));
    assert_eq!(hand.reasons(), ["Stuck"]);
    assert_eq!(hand.wants(), ["kill"]);
    let told = &hand.told()[0];
    assert_eq!(
        (&told["type"], &told["data"]["what"]),
        (&"Warning".into(), &"vCPU".into())
    );
    assert_eq!(told["data"]["phase"], "wait-for-vcpus");
    assert_eq!(told["data"]["action"], "reset");
    assert_eq!(told["data"]["instead"], "reset");
    let late = hand.now.since(bitten_at);
    assert!((10..12).contains(&late.as_secs()), "{late:?}");
    // Nothing is asked of a process that is being killed.
    assert_eq!(hand.controller.next_due(), None);
    // What the old process still says of this is held back, and is then superseded.
    for _ in 0..8 {
        hand.news(0, News::Reset { cause, count });
    }
    hand.gone(0);
    let restart = "recreate Restart { timed_out: true, resets: 5 }";
    assert_eq!(hand.wants(), [restart]);
    hand.created_as(0, 8);
    assert_eq!(hand.reasons(), [""; 0], "it is the same instance");
    hand.news(0, News::Started);
    assert_eq!(hand.reasons(), ["Reset", "AgentDisconnected"]);
    let told = &hand.told()[0];
    assert_eq!(told["data"]["cause"], "watchdog");
    assert_eq!(told["data"]["new_process"], true);
    assert_eq!(
        (&told["data"]["count"], &told["data"]["pid"]),
        (&5.into(), &8.into())
    );
    assert_eq!(hand.controller.table().rows[0].restarts, 0);
    // And so on.
    hand.bitten(0, WatchdogAction::Reset);
    assert!(hand.lives(HANGS));
    hand.gone(0);
    assert_eq!(
        hand.wants(),
        ["recreate Restart { timed_out: true, resets: 6 }"]
    );
}

#[test]
fn the_other_actions_end_a_stuck_machine() {
    let ended = "finish Ended(WatchdogPowerOff)";
    for (action, verdict) in [
        (WatchdogAction::Poweroff, ended),
        (WatchdogAction::Shutdown, ended),
        (WatchdogAction::Pause, "finish Broken("),
        (WatchdogAction::InjectNmi, "finish Broken("),
        (WatchdogAction::None, "finish Broken("),
    ] {
        let mut hand = running();
        hand.bitten(0, action);
        assert!(hand.lives(Life { action, ..HANGS }));
        assert_eq!(hand.wants(), ["kill"], "{action:?}");
        hand.gone(0);
        assert!(hand.wants()[0].starts_with(verdict), "{:?}", hand.wants());
        assert_eq!(hand.told()[0]["data"]["phase"], "Failed");
    }
}

#[test]
fn an_armed_watchdog_bites_a_loop_that_hangs() {
    let mut hand = running();
    let phase = Phase::Idle;
    assert!(hand.lives(Life { phase, ..HANGS }));
    assert_eq!(
        (hand.wants(), hand.reasons()),
        (vec!["kill".into()], vec!["Stuck".into()])
    );
    hand.gone(0);
    assert_eq!(
        hand.wants(),
        ["recreate Restart { timed_out: true, resets: 1 }"]
    );
}

#[test]
fn a_loop_that_hangs_without_a_watchdog_fails_its_machine() {
    let mut hand = running();
    let armed = false;
    assert!(hand.lives(Life { armed, ..HANGS }));
    assert_eq!(hand.wants(), ["kill"]);
    hand.gone(0);
    let wants = hand.wants();
    assert!(wants[0].contains("its watchdog is not armed"), "{wants:?}");
}

#[test]
fn a_machine_that_hangs_before_it_runs_is_not_tried_in_another_process() {
    let mut hand = hand("VirtualMachineInstance", "", "");
    hand.created_as(0, 7);
    let phase = Phase::LoadKernel;
    assert!(hand.lives(Life { phase, ..HANGS }));
    assert_eq!(hand.wants(), ["kill"]);
    hand.gone(0);
    assert!(hand.wants()[0].starts_with("finish Broken("));
    // The same in the place of one that was stuck.
    let mut hand = running();
    hand.bitten(0, WatchdogAction::Reset);
    assert!(hand.lives(HANGS));
    hand.gone(0);
    hand.created_as(0, 8);
    assert!(hand.lives(Life { phase, ..HANGS }));
    hand.gone(0);
    assert!(
        hand.wants()[0].starts_with("finish Broken("),
        "{:?}",
        hand.wants()
    );
}

#[test]
fn a_new_process_that_cannot_be_had_ends_the_instance() {
    let mut hand = running();
    hand.bitten(0, WatchdogAction::Reset);
    assert!(hand.lives(HANGS));
    hand.gone(0);
    hand.happens(Happening::CreateFailed {
        instance: InstanceId(0),
        message: "no process".into(),
    });
    assert_eq!(hand.wants(), ["finish Broken(\"no process\")"]);
}

#[test]
fn a_process_that_does_not_run_is_told_and_goes_on() {
    let mut hand = running();
    let stopped = Life {
        second_answers: false,
        ..HANGS
    };
    assert!(hand.lives(stopped));
    assert_eq!(hand.reasons(), ["ProcessStopped"]);
    assert_eq!(hand.wants(), [""; 0]);
    let told = &hand.told()[0];
    assert_eq!(
        (&told["type"], &told["data"]["state"]),
        (&"Warning".into(), &"T".into())
    );
    assert!(!hand.lives(stopped), "told once");
    let runs = Life {
        loop_answers: true,
        phase: Phase::Idle,
        ..HANGS
    };
    assert!(!hand.lives(runs));
    assert!(hand.lives(stopped), "the next stop");
    assert_eq!(hand.reasons(), ["ProcessStopped"]);
}

/// Somebody ends all while the process is being killed, or its successor starts.
#[test]
fn an_end_overtakes_a_new_process() {
    for late in [false, true] {
        let mut hand = running();
        hand.bitten(0, WatchdogAction::Reset);
        assert!(hand.lives(HANGS));
        if late {
            hand.gone(0);
        }
        hand.happens(Happening::Stop(Cause::Signal(15)));
        if late {
            assert_eq!(hand.wants(), ["tell Stop"]);
            hand.created_as(0, 8);
            assert_eq!(hand.wants(), ["tell Stop"]);
        }
        hand.gone(0);
        assert_eq!(hand.wants(), ["finish Stopped(Signal(15))"], "{late}");
    }
}

#[test]
fn probes_hear_nothing_of_a_process_that_is_replaced() {
    let mut hand = hand("VirtualMachineInstance", "", PING);
    hand.created_as(0, 7);
    hand.news(0, News::Started);
    assert_eq!(hand.wants(), ["attempt 1"]);
    hand.probed(1, Outcome::Success);
    hand.bitten(0, WatchdogAction::Reset);
    while hand.lives(HANGS) && hand.reasons() != ["Stuck"] {
        for want in hand.wants() {
            let number = want.strip_prefix("attempt ").and_then(|it| it.parse().ok());
            hand.probed(number.expect("an attempt"), Outcome::Success);
        }
    }
    assert_eq!(hand.reasons(), ["Stuck"]);
    hand.later(Duration::from_secs(20));
    assert_eq!(hand.wants(), [""; 0], "not asked meanwhile");
    hand.gone(0);
    hand.created_as(0, 8);
    hand.news(0, News::Started);
    assert!(hand.wants()[0].starts_with("attempt"), "{:?}", hand.wants());
}
