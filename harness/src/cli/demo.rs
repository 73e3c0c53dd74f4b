// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel demo`: the scenes of [`crate::demo`], one after the other.

use kennel_vmm::config::MachineConfig;

use super::args::{Demo, DemoArgs};
use super::progress::{print, say};
use super::venue::{self, Venue};
use super::{Answer, Failure, guest as guest_image, run};
use crate::demo::{Director, Scene, scenes};
use crate::guest;
use crate::supervisor::events::Event;
use crate::supervisor::verdict::{EXIT_FAILURE, Verdict};
use crate::supervisor::{Console, Order, Run, Watcher, supervise};
use kennel_vmm::protocol::Notice;

pub(super) fn demo(which: &Demo) -> Answer {
    let Demo::Watchdog(args) = which;
    match venue::choose(args.venue)? {
        Venue::Here => here(args),
        Venue::Box => {
            let image = match args.image.kernel {
                Some(_) => vec![],
                None => run::built_image_args(&args.image)?,
            };
            venue::again_in_box(image, crate::demo::MEMORY_BYTES)
        }
    }
}

fn here(args: &DemoArgs) -> Answer {
    let image = guest_image::obtain(&args.image)?;
    let mut kept = true;
    for scene in scenes(args.action.0) {
        say(&format!("kennel: {}", scene.title));
        let overlay = guest::overlay(scene.script).map_err(Failure::could_not)?;
        let config = MachineConfig {
            memory_bytes: crate::demo::MEMORY_BYTES,
            vcpus: 1,
            kernel: image.fastest_kernel().to_owned(),
            initrd: Some(image.initrd.clone()),
            initrd_overlay: overlay,
            cmdline: run::CMDLINE.into(),
            watchdog: Some(scene.watchdog()),
        };
        kept &= play(&scene, config)?;
    }
    Ok(if kept { 0 } else { EXIT_FAILURE })
}

/// Plays one scene; true when everything was as promised.
fn play(scene: &Scene, config: MachineConfig) -> Result<bool, Failure> {
    let run = Run {
        object: "default/demo".into(),
        config,
        console: Console::Tapped,
        timeout: Some(crate::demo::LONGEST_SCENE),
    };
    let mut audience = Audience {
        director: scene.director(),
    };
    let verdict = supervise(run, &mut audience).map_err(Failure::could_not)?;
    match verdict {
        Verdict::Broken(message) => return Err(Failure::CouldNot(message)),
        Verdict::Stopped(crate::supervisor::verdict::Cause::Signal(_)) => {
            return Err(Failure::CouldNot("interrupted".into()));
        }
        _ => {}
    }
    let review = audience.director.review(&verdict);
    print(&review.to_string());
    Ok(review.all_kept())
}

/// Shows the events to people, and lets the director direct.
struct Audience {
    director: Director,
}

impl Watcher for Audience {
    fn event(&mut self, event: &Event) {
        say(&run::sentence(event));
    }

    fn news(&mut self, notice: &Notice) -> Vec<Order> {
        self.director.news(notice)
    }

    fn console_line(&mut self, line: &str) -> Vec<Order> {
        self.director.console_line(line)
    }
}
