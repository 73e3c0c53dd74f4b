// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The watchdog's demonstrations: a [`Scene`] or two for each action.

mod director;

use std::time::Duration;

use kennel_vmm::config::{WatchdogAction, WatchdogConfig};

pub use director::SceneDirector;

/// Guest memory of a scene.
pub const MEMORY_BYTES: u64 = 256 << 20;

/// `-T 10000ms` as the guest's driver programs it: 2 stages of 10 << 9 ticks of 983,040 ns.
pub const TIMEOUT_NS: u64 = 2 * (10 << 9) * 983_040;
/// How long a watchdog's pause lasts before the machine goes on.
pub const PAUSE: Duration = Duration::from_secs(5);
/// How long a guest may take to shut down.
const GRACE: Duration = Duration::from_secs(8);

/// The feeder, and its end.
const FEED_AND_KILL: &str = "\
echo 'demo: busybox watchdog -t 2000ms -T 10000ms /dev/watchdog'
busybox watchdog -t 2000ms -T 10000ms /dev/watchdog
sleep 5
echo 'demo: killing the feeder with -9'
kill -9 $(ps | awk '/[b]usybox watchdog/ { print $1 }')
";
const FEED_AND_HANG: &str = "\
echo 'demo: busybox watchdog -t 2000ms -T 10000ms /dev/watchdog'
busybox watchdog -t 2000ms -T 10000ms /dev/watchdog
sleep 5
echo 'demo: no acpid, and the feeder gets a SIGSTOP: a hung guest'
killall -9 acpid
kill -STOP $(ps | awk '/[b]usybox watchdog/ { print $1 }')
";
/// Feeds, kills, and then tells the guest's own time for ever.
const FEED_KILL_AND_TICK: &str = "\
echo 'demo: busybox watchdog -t 2000ms -T 10000ms /dev/watchdog'
busybox watchdog -t 2000ms -T 10000ms /dev/watchdog
sleep 5
echo 'demo: killing the feeder with -9'
kill -9 $(ps | awk '/[b]usybox watchdog/ { print $1 }')
while :; do read -r up idle </proc/uptime; echo \"demo: guest uptime $up\"; sleep 1; done
";
/// The boot that finds CARDRESET reboots once more, to see that it is told once only.
const FEED_AND_REBOOT: &str = "\
read -r status </sys/class/watchdog/watchdog0/bootstatus
if [ \"$status\" = 32 ]; then
    echo 'demo: the watchdog driver says CARDRESET; an ordinary reboot must not say it again'
    wdctl 2>/dev/null | grep CARDRESET
    reboot -f
fi
echo 'demo: busybox watchdog -t 2000ms -T 10000ms /dev/watchdog'
busybox watchdog -t 2000ms -T 10000ms /dev/watchdog
sleep 5
echo 'demo: killing the feeder with -9'
kill -9 $(ps | awk '/[b]usybox watchdog/ { print $1 }')
";

/// What a scene shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plot {
    /// The machine is powered off.
    PowerOff,
    /// The machine is reset, and the next boot knows why.
    Reset,
    /// A live guest obeys the power button.
    ObeyedShutdown,
    /// A hung one does not, and is powered off.
    IgnoredShutdown,
    /// VM time stands still, then goes on, and the watchdog starts over.
    Pause,
    /// The guest gets an NMI and is bitten again.
    Nmi,
    /// Nothing but the event, and the guest stays protected.
    EventOnly,
}

/// One demonstration.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// What is about to be seen.
    pub title: &'static str,
    /// What the guest does.
    pub script: &'static str,
    action: WatchdogAction,
    plot: Plot,
}

impl Scene {
    /// The machine's watchdog.
    #[must_use]
    pub fn watchdog(&self) -> WatchdogConfig {
        WatchdogConfig {
            action: self.action,
            shutdown_grace: GRACE,
            ..WatchdogConfig::default()
        }
    }

    /// Somebody to watch it.
    #[must_use]
    pub fn director(&self) -> SceneDirector {
        SceneDirector::new(self.title, self.action, self.plot)
    }
}

/// What shows `action`.
#[must_use]
pub fn scenes(action: WatchdogAction) -> Vec<Scene> {
    let scene = |title, script, plot| Scene {
        title,
        script,
        action,
        plot,
    };
    match action {
        WatchdogAction::Reset => vec![scene(
            "the feeder dies, the machine is reset, and the next boot knows why",
            FEED_AND_REBOOT,
            Plot::Reset,
        )],
        WatchdogAction::Shutdown => vec![
            scene(
                "the feeder dies, and the guest obeys the power button",
                FEED_AND_KILL,
                Plot::ObeyedShutdown,
            ),
            scene(
                "the guest hangs, ignores the power button, and is powered off",
                FEED_AND_HANG,
                Plot::IgnoredShutdown,
            ),
        ],
        WatchdogAction::Pause => vec![scene(
            "the feeder dies, VM time stands still for 5 s and goes on",
            FEED_KILL_AND_TICK,
            Plot::Pause,
        )],
        WatchdogAction::InjectNmi => vec![scene(
            "the feeder dies, and the guest gets an NMI at every bite",
            FEED_KILL_AND_TICK,
            Plot::Nmi,
        )],
        WatchdogAction::None => vec![scene(
            "the feeder dies, and nothing but an event comes of it",
            FEED_KILL_AND_TICK,
            Plot::EventOnly,
        )],
        _ => vec![scene(
            "the feeder dies, and the machine is powered off",
            FEED_AND_KILL,
            Plot::PowerOff,
        )],
    }
}
