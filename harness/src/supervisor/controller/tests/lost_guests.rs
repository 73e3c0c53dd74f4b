// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Attempts that fail since their guest was reset or has ended, in every order in which the supervisor
//! can hear of the two.

use kennel_vmm::config::WatchdogAction;
use kennel_vmm::mailbox::ResetCause;
use kennel_vmm::protocol::WatchdogReport;

use super::*;

const BOTH: &str = "livenessProbe: {httpGet: {port: 80}, periodSeconds: 1, failureThreshold: 1}, \
    readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1, failureThreshold: 1},";
const KINDS: [ProbeKind; 2] = [ProbeKind::Liveness, ProbeKind::Readiness];

/// What is heard of a guest that is no more.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// A reset, by this cause; so many at once if notices were merged.
    Reset(ResetCause, u64),
    Ended(Ending),
    /// Its process was killed: no last notice.
    Gone,
}

const LOSSES: [Loss; 6] = [
    Loss::Reset(ResetCause::ResetControl, 1),
    Loss::Reset(ResetCause::Watchdog, 1),
    Loss::Reset(ResetCause::TripleFault, 300),
    Loss::Ended(Ending::GuestPowerOff),
    Loss::Ended(Ending::WatchdogPowerOff),
    Loss::Gone,
];

/// An instance both of whose probes have an attempt under way.
fn asked() -> Hand {
    let mut hand = hand("VirtualMachine", ALWAYS, BOTH);
    hand.runs(0);
    assert_eq!(hand.wants(), ["attempt 1", "attempt 1"]);
    hand
}

fn outcomes() -> [Outcome; 2] {
    [
        Outcome::Failure("EOF".into()),
        Outcome::Error("the VM process closed it".into()),
    ]
}

impl Hand {
    fn loses(&mut self, loss: Loss) {
        match loss {
            Loss::Reset(cause, count) => drop(self.news(0, News::Reset { cause, count }).to_vec()),
            Loss::Ended(ending) => drop(self.news(0, News::Ended(ending)).to_vec()),
            Loss::Gone => drop(self.gone(0).to_vec()),
        }
    }

    /// Neither probe is blamed for anything.
    fn assert_nothing_counted(&self, story: &str) {
        for reason in self.reasons() {
            assert!(
                !["Unhealthy", "Killing"].contains(&reason.as_str()),
                "{story}: {:?}",
                self.told()
            );
        }
    }
}

#[test]
fn a_failure_counts_for_nothing_once_its_guest_is_no_more_whatever_is_heard_first() {
    for loss in LOSSES {
        for kind in KINDS {
            for outcome in outcomes() {
                let story = format!("{loss:?}, {kind:?}, {outcome:?}");
                // The loss is heard first; the VM process, if it lives, answers for the new boot.
                let mut hand = asked();
                hand.loses(loss);
                hand.assert_nothing_counted(&story);
                if let Some(token) = hand.fails(0, kind, 1, outcome.clone()) {
                    hand.assert_nothing_counted(&story);
                    hand.news(0, News::Synced { token });
                }
                hand.assert_nothing_counted(&story);

                // The failure is heard first, then the loss, then the answer if there is one.
                let mut hand = asked();
                let token = hand.fails(0, kind, 1, outcome);
                let token = token.expect("it asks");
                hand.assert_nothing_counted(&story);
                hand.loses(loss);
                hand.assert_nothing_counted(&story);
                if matches!(loss, Loss::Reset(..)) {
                    hand.news(0, News::Synced { token });
                    hand.assert_nothing_counted(&story);
                }
            }
        }
    }
}

#[test]
fn a_failure_of_one_instance_does_not_reach_its_replacement() {
    for kind in KINDS {
        let mut hand = asked();
        let token = hand.fails(0, kind, 1, Outcome::Failure("EOF".into()));
        hand.gone(0);
        hand.runs(1);
        assert_eq!(hand.wants(), ["attempt 1", "attempt 1"]);
        for instance in [0, 1] {
            let token = token.expect("it asks");
            hand.news(instance, News::Synced { token });
            hand.assert_nothing_counted("replaced");
        }
    }
}

#[test]
fn the_boot_after_a_reset_is_probed_and_its_failures_count() {
    for late_answer in [true, false] {
        let mut hand = asked();
        let token = hand.fails(0, ProbeKind::Liveness, 1, Outcome::Failure("EOF".into()));
        hand.loses(Loss::Reset(ResetCause::Watchdog, 1));
        assert_eq!(hand.wants(), ["attempt 2"], "liveness, at once");
        if late_answer {
            let token = token.expect("it asks");
            hand.news(0, News::Synced { token });
        }
        hand.probed(2, Outcome::Failure("refused".into()));
        assert_eq!(hand.reasons(), ["Unhealthy", "Killing"]);
    }
}

#[test]
fn a_failure_of_a_guest_that_runs_on_counts_after_the_answer() {
    let mut hand = asked();
    let token = hand.fails(0, ProbeKind::Liveness, 1, Outcome::Failure("EOF".into()));
    hand.assert_nothing_counted("not yet");
    // Another's answer is none.
    hand.news(0, News::Synced { token: 77 });
    hand.assert_nothing_counted("not yet");
    let token = token.expect("it asks");
    hand.news(0, News::Synced { token });
    assert_eq!(hand.reasons(), ["Unhealthy", "Killing"]);
    assert_eq!(hand.news(0, News::Synced { token }), [], "once");
}

#[test]
fn a_failure_is_forgiven_if_the_vm_process_did_not_run() {
    let mut hand = asked();
    let token = hand.fails(0, ProbeKind::Liveness, 1, Outcome::Failure("late".into()));
    hand.later(Duration::from_secs(60));
    let token = token.expect("it asks");
    hand.news(0, News::Synced { token });
    let told = hand.told();
    assert_eq!(hand.reasons(), ["Unhealthy"], "and not Killing");
    assert!(told[0]["data"].get("streak").is_none(), "{told:?}");
    assert_eq!(hand.wants(), ["attempt 2"], "the next, at once");
}

/// As the freezer of a control group does it.
#[test]
fn a_failure_is_forgiven_if_all_of_kennel_did_not_run() {
    for (late, reasons) in [
        (Duration::from_secs(2), &["Unhealthy", "Killing"][..]),
        (Duration::from_millis(2_001), &["Unhealthy"]),
    ] {
        let mut hand = asked();
        // The deadline is one second away.
        hand.now = hand.now.after(late);
        hand.probed(1, Outcome::Failure("no answer within 1 s".into()));
        assert_eq!(hand.reasons(), reasons, "{late:?}");
    }
}

#[test]
fn a_vm_process_that_does_not_answer_is_asked_again() {
    let mut hand = asked();
    let token = hand.fails(0, ProbeKind::Liveness, 1, Outcome::Failure("late".into()));
    let token = token.expect("it asks");
    let again = format!("tell Sync {{ token: {token} }}");
    for _ in 0..3 {
        hand.later(Duration::from_millis(9_999));
        assert!(!hand.wants().contains(&again), "{:?}", hand.wants());
        hand.later(Duration::from_millis(1));
        assert!(hand.wants().contains(&again), "{:?}", hand.wants());
    }
    hand.news(0, News::Synced { token });
    hand.later(Duration::from_secs(10));
    assert!(!hand.wants().contains(&again), "{:?}", hand.wants());
}

#[test]
fn merged_notices_are_told_with_their_counts_and_void_one_attempt() {
    let mut hand = asked();
    hand.loses(Loss::Reset(ResetCause::TripleFault, 300));
    assert_eq!(hand.told()[0]["data"]["count"], 300);
    hand.news(
        0,
        News::Watchdog(WatchdogReport {
            action: WatchdogAction::None,
            timeout_ns: 1,
            since_ping_ns: 1,
            lateness_ns: 1,
            bites: 12,
        }),
    );
    assert_eq!(hand.told()[0]["data"]["bites"], 12);
    hand.loses(Loss::Reset(ResetCause::TripleFault, 600));
    hand.later(Duration::from_secs(10));
    hand.assert_nothing_counted("merged");
}
