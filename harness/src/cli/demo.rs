// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel demo`: the scenes of [`crate::demo`], one after the other.

use std::io::{self, Write};

use kennel_vmm::config::MachineConfig;
use kennel_vmm::outlet::{Outlet, OutletWriter};

use super::args::{Demo, DemoArgs};
use super::progress::{print, say};
use super::venue::{self, Venue};
use super::{Answer, Failure, guest as guest_image, run, teller};
use crate::demo::{Director, Review, Scene, scenes};
use crate::guest;
use crate::supervisor::asking::Asking;
use crate::supervisor::console::Console;
use crate::supervisor::controller::Controller;
use crate::supervisor::events::Event;
use crate::supervisor::verdict::{Cause, EXIT_FAILURE, Verdict};
use crate::supervisor::{Order, Run, Watcher, supervise};
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
            agent_socket: None,
        };
        match play(&scene, config)? {
            Played::Review(review) => {
                print(&review.to_string());
                kept &= review.all_kept();
            }
            Played::Interrupted(status) => return Ok(status),
        }
    }
    Ok(if kept { 0 } else { EXIT_FAILURE })
}

/// What came of a scene.
enum Played {
    Review(Review),
    /// By a signal, with this exit status.
    Interrupted(u8),
}

fn play(scene: &Scene, config: MachineConfig) -> Result<Played, Failure> {
    let screen = Outlet::start("screen", Box::new(io::stderr())).map_err(Failure::could_not)?;
    let run = Run {
        controller: Controller::single("demo"),
        namespace: "default".into(),
        config,
        console: Console::Tapped(screen.writer()),
        asking: Asking::nobody(),
        runtime_dir: None,
        timeout: Some(crate::demo::LONGEST_SCENE),
    };
    let mut audience = Audience {
        director: scene.director(),
        screen: screen.writer(),
    };
    let verdict = supervise(run, &mut audience);
    screen.close();
    let verdict = verdict.map_err(Failure::could_not)?;
    match verdict {
        Verdict::Broken(message) => Err(Failure::CouldNot(message)),
        Verdict::Stopped(Cause::Signal(_)) => Ok(Played::Interrupted(verdict.exit_status())),
        verdict => Ok(Played::Review(audience.director.review(&verdict))),
    }
}

/// Shows the events to people, and lets the director direct.
struct Audience {
    director: Director,
    screen: OutletWriter,
}

impl Watcher for Audience {
    fn event(&mut self, event: &Event) {
        // It takes everything at once.
        let _taken = writeln!(self.screen, "{}", teller::sentence(event));
    }

    fn news(&mut self, notice: &Notice) -> Vec<Order> {
        self.director.news(notice)
    }

    fn console_line(&mut self, line: &str) -> Vec<Order> {
        self.director.console_line(line)
    }
}
