// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How an instance is made to end: its agent is asked, then its power button is pressed, then its
//! machine is stopped, and a VM process that outlives that is killed.

use std::time::Duration;

use crate::moment::Moment;

/// How long the guest may take after its agent was asked, before the button is pressed as well.
/// Half the grace, if that is shorter: the button needs time to be obeyed, too.
pub(super) const AGENT_BOUND: Duration = Duration::from_secs(5);
/// How long a VM process may take to be gone after its machine has ended or was told to.
pub(super) const GONE_BOUND: Duration = Duration::from_millis(1_500);

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the agent to shut the guest down; its answer counts until `deadline`.
    AskAgent { deadline: Moment },
    /// Press the ACPI power button.
    PressButton,
    /// End the machine.
    Stop,
    /// Kill the VM process.
    Kill,
}

/// The rung that an ending instance stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ladder {
    rung: Rung,
    /// When the machine is stopped.
    stop_at: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Agent { until: Moment },
    Button,
    Stopped { until: Moment },
    Killed,
}

impl Ladder {
    /// With `grace` for the guest to shut down by itself; zero gives it none.
    pub(super) fn graceful(now: Moment, grace: Duration, agent_connected: bool) -> (Self, Step) {
        if grace.is_zero() {
            return Self::at_once(now);
        }
        let stop_at = now.after(grace);
        let (rung, step) = if agent_connected {
            let deadline = now.after(AGENT_BOUND.min(grace / 2));
            (Rung::Agent { until: deadline }, Step::AskAgent { deadline })
        } else {
            (Rung::Button, Step::PressButton)
        };
        (Self { rung, stop_at }, step)
    }

    /// Without asking the guest.
    pub(super) fn at_once(now: Moment) -> (Self, Step) {
        (Self::ended(now), Step::Stop)
    }

    /// The machine has ended; only its process is left.
    pub(super) fn ended(now: Moment) -> Self {
        let until = now.after(GONE_BOUND);
        Self {
            rung: Rung::Stopped { until },
            stop_at: now,
        }
    }

    /// The agent did not do it.
    pub(super) fn agent_failed(&mut self) -> Option<Step> {
        matches!(self.rung, Rung::Agent { .. }).then(|| {
            self.rung = Rung::Button;
            Step::PressButton
        })
    }

    /// When [`Self::due`] has something to do.
    pub(super) fn next_due(&self) -> Option<Moment> {
        match self.rung {
            Rung::Agent { until } | Rung::Stopped { until } => Some(until),
            Rung::Button => Some(self.stop_at),
            Rung::Killed => None,
        }
    }

    /// The next rung, when its time has come.
    pub(super) fn due(&mut self, now: Moment) -> Option<Step> {
        if self.next_due().is_none_or(|at| now < at) {
            return None;
        }
        let (rung, step) = match self.rung {
            Rung::Agent { .. } => (Rung::Button, Step::PressButton),
            Rung::Button => {
                let until = now.after(GONE_BOUND);
                (Rung::Stopped { until }, Step::Stop)
            }
            Rung::Stopped { .. } | Rung::Killed => (Rung::Killed, Step::Kill),
        };
        self.rung = rung;
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn at(millis: u64) -> Moment {
        Moment::ZERO.after(Duration::from_millis(millis))
    }

    /// All steps of a guest that obeys nothing, with their instants.
    fn climb(mut ladder: Ladder) -> Vec<(Moment, Step)> {
        let mut steps = vec![];
        while let Some(due) = ladder.next_due() {
            let early = Moment::from_nanos(due.as_nanos() - 1);
            assert_eq!(ladder.due(early), None, "never early");
            steps.extend(ladder.due(due).map(|step| (due, step)));
        }
        steps
    }

    #[test]
    fn agent_then_button_then_stop_then_kill() {
        let (ladder, step) = Ladder::graceful(at(1_000), GRACE, true);
        assert_eq!(
            step,
            Step::AskAgent {
                deadline: at(6_000)
            }
        );
        let expected = [
            (at(6_000), Step::PressButton),
            (at(31_000), Step::Stop),
            (at(32_500), Step::Kill),
        ];
        assert_eq!(climb(ladder), expected);
    }

    #[test]
    fn without_an_agent_the_button_comes_first() {
        let (ladder, step) = Ladder::graceful(at(0), GRACE, false);
        assert_eq!(step, Step::PressButton);
        let expected = [(at(30_000), Step::Stop), (at(31_500), Step::Kill)];
        assert_eq!(climb(ladder), expected);
    }

    #[test]
    fn an_agent_that_fails_is_not_waited_for() {
        let (mut ladder, _) = Ladder::graceful(at(0), GRACE, true);
        assert_eq!(ladder.agent_failed(), Some(Step::PressButton));
        assert_eq!(ladder.agent_failed(), None);
        assert_eq!(ladder.next_due(), Some(at(30_000)));
    }

    #[test]
    fn a_short_grace_leaves_half_of_it_to_the_button() {
        let (_, step) = Ladder::graceful(at(0), Duration::from_secs(2), true);
        assert_eq!(
            step,
            Step::AskAgent {
                deadline: at(1_000)
            }
        );
    }

    #[test]
    fn no_grace_is_no_question() {
        let (ladder, step) = Ladder::graceful(at(0), Duration::ZERO, true);
        assert_eq!(step, Step::Stop);
        assert_eq!(climb(ladder), [(at(1_500), Step::Kill)]);
    }
}
