// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel demo watchdog`, action by action: each scene checks its own promises.

use kennel_vmm::config::WatchdogAction;
use libtest_mimic::Trial;

use crate::guest::kennel;
use crate::{Body, Image, group};

pub(crate) fn tests(image: &Image) -> Vec<Trial> {
    let cases = WatchdogAction::ALL
        .map(|action| -> (_, Body) { (action.name(), Box::new(move |image| demo(image, action))) });
    group("demo", image, cases)
}

fn demo(image: &Image, action: WatchdogAction) {
    let output = kennel()
        .args([
            "demo",
            "watchdog",
            "--no-box",
            "--action",
            action.name(),
            "--kernel",
        ])
        .arg(&image.vmlinux)
        .arg("--initrd")
        .arg(&image.initrd)
        .output()
        .expect("this program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    let scenes = if action == WatchdogAction::Shutdown {
        2
    } else {
        1
    };
    assert_eq!(
        stdout.matches("timeout programmed  10.066 s").count(),
        scenes,
        "{stdout}"
    );
    assert!(
        !stdout.contains("BROKEN") && stdout.contains("ok  "),
        "{stdout}"
    );
}
