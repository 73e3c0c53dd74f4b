// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel demo`: the watchdog's action by action, and the probes'. Each checks its own promises.

use kennel_tests::workers::Need;
use kennel_vmm::config::WatchdogAction;

use crate::guest::kennel;
use crate::{Body, Image, LinuxCase, group};

pub(crate) fn tests() -> Vec<LinuxCase> {
    let probes: (_, Body) = ("probes", Box::new(probes));
    let actions = WatchdogAction::ALL.map(|action| -> (_, Body) {
        (
            action.name(),
            Box::new(move |image| watchdog(image, action)),
        )
    });
    let mut tests = group("demo", [probes]);
    for test in &mut tests {
        // It gives its guest 45 s to come up.
        test.need = Need::SMALL.alone();
    }
    tests.extend(group("demo", actions));
    tests
}

fn watchdog(image: &Image, action: WatchdogAction) {
    let summary = summary(image, &["watchdog", "--action", action.name()]);
    let scenes = if action == WatchdogAction::Shutdown {
        2
    } else {
        1
    };
    assert_eq!(
        summary.matches("timeout programmed  10.066 s").count(),
        scenes,
        "{summary}"
    );
}

fn probes(image: &Image) {
    let summary = summary(image, &["probes"]);
    for line in [
        "  liveness failures   3, from ",
        "  ok     the guest was not ready before there was a file",
        "  ok     it was not ready without it, after 2 failures in a row",
        "  ok     the machine ran through all of that",
        "  ok     for that, and no sooner than that, it was killed",
        "  ok     and was ready again",
    ] {
        assert!(summary.contains(line), "{line}:\n{summary}");
    }
}

/// What the demonstration prints in the end, with every promise kept.
fn summary(image: &Image, which: &[&str]) -> String {
    let output = kennel()
        .arg("demo")
        .args(which)
        .args(["--no-box", "--kernel"])
        .arg(&image.vmlinux)
        .arg("--initrd")
        .arg(&image.initrd)
        .output()
        .expect("this program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    assert!(
        !stdout.contains("BROKEN") && stdout.contains("ok  "),
        "{stdout}"
    );
    stdout
}
