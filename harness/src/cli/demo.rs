// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel demo`: the demonstrations of [`crate::demo`], on the same controller as `run`.

use std::io::Write;

use kennel_vmm::config::MachineConfig;
use kennel_vmm::outlet::OutletWriter;
use kennel_vmm::protocol::Notice;

use super::args::{Action, Demo, StageArgs};
use super::progress::{print, say};
use super::venue::{self, Venue};
use super::{Answer, Failure, guest as guest_image, run, screen, teller};
use crate::demo::probes::{self, ProbesDirector};
use crate::demo::watchdog;
use crate::demo::{Director, Review};
use crate::guest;
use crate::runtime_dir::RuntimeDir;
use crate::spec::Document;
use crate::supervisor::asking::Asking;
use crate::supervisor::console::Console;
use crate::supervisor::controller::{Controller, Options};
use crate::supervisor::events::Event;
use crate::supervisor::publish::Ports;
use crate::supervisor::verdict::{Cause, EXIT_FAILURE, Verdict};
use crate::supervisor::{Order, Run, Watcher, supervise};

pub(super) fn demo(which: &Demo) -> Answer {
    match which {
        Demo::Watchdog { action, stage } => {
            on(stage, watchdog::MEMORY_BYTES, || watchdog(*action, stage))
        }
        Demo::Probes { stage } => {
            let document = probes::document().map_err(Failure::could_not)?;
            on(stage, document.vmi.memory_bytes, || {
                probes(&document, stage)
            })
        }
    }
}

/// Here, or this very command in a box.
fn on(stage: &StageArgs, memory_bytes: u64, here: impl FnOnce() -> Answer) -> Answer {
    match venue::choose(stage.venue)? {
        Venue::Here => here(),
        Venue::Box => {
            let image = match stage.image.kernel {
                Some(_) => vec![],
                None => run::built_image_args(&stage.image)?,
            };
            venue::again_in_box(image, memory_bytes)
        }
    }
}

fn watchdog(action: Action, stage: &StageArgs) -> Answer {
    let image = guest_image::obtain(&stage.image)?;
    let mut kept = true;
    for scene in watchdog::scenes(action.0) {
        say(&format!("kennel: {}", scene.title));
        let overlay = guest::overlay(scene.script).map_err(Failure::could_not)?;
        let config = MachineConfig {
            memory_bytes: watchdog::MEMORY_BYTES,
            vcpus: 1,
            kernel: image.fastest_kernel().to_owned(),
            initrd: Some(image.initrd.clone()),
            initrd_overlay: overlay,
            cmdline: crate::spec::CMDLINE.into(),
            watchdog: Some(scene.watchdog()),
            agent_socket: None,
            network: None,
            resets: 0,
        };
        match play(&mut scene.director(), |screen| scene_run(config, screen))? {
            Played::Review(review) => {
                print(&review.to_string());
                kept &= review.all_kept();
            }
            Played::Interrupted(status) => return Ok(status),
        }
    }
    Ok(status(kept))
}

fn scene_run(config: MachineConfig, console: Console) -> Run {
    Run {
        controller: Controller::single("demo"),
        namespace: "default".into(),
        config,
        console,
        asking: Asking::nobody(),
        runtime_dir: None,
        uplink: None,
        ports: Ports::default(),
        timeout: Some(crate::demo::LONGEST),
    }
}

/// As `kennel run` would run the document.
fn probes(document: &Document, stage: &StageArgs) -> Answer {
    let config = run::config(&document.vmi, &stage.image)?;
    say(&format!("kennel: {}", probes::TITLE));
    let options = Options::default();
    let run = |console| Run {
        controller: Controller::new(document, options),
        namespace: document.vmi.namespace.clone(),
        config,
        console,
        asking: Asking::of(document, options),
        runtime_dir: Some(RuntimeDir::of_this_user()),
        // What it shows goes through the agent.
        uplink: None,
        ports: Ports::default(),
        timeout: Some(crate::demo::LONGEST),
    };
    Ok(match play(&mut ProbesDirector::new(document), run)? {
        Played::Review(review) => {
            print(&review.to_string());
            status(review.all_kept())
        }
        Played::Interrupted(status) => status,
    })
}

const fn status(kept: bool) -> u8 {
    if kept { 0 } else { EXIT_FAILURE }
}

/// What came of a demonstration.
enum Played {
    Review(Review),
    /// By a signal, with this exit status.
    Interrupted(u8),
}

fn play(director: &mut dyn Director, run: impl FnOnce(Console) -> Run) -> Result<Played, Failure> {
    let screen = screen::start()?;
    let run = run(Console::Tapped(screen.clone()));
    let mut audience = Audience { director, screen };
    let verdict = supervise(run, &mut audience).map_err(Failure::could_not)?;
    match verdict {
        Verdict::Broken(message) => Err(Failure::CouldNot(message)),
        Verdict::Stopped(Cause::Signal(_)) => Ok(Played::Interrupted(verdict.exit_status())),
        verdict => Ok(Played::Review(director.review(&verdict))),
    }
}

/// Shows the events to people, and lets the director direct.
struct Audience<'a> {
    director: &'a mut dyn Director,
    screen: OutletWriter,
}

impl Watcher for Audience<'_> {
    fn event(&mut self, event: &Event) -> Vec<Order> {
        // It takes everything at once.
        let _taken = writeln!(self.screen, "{}", teller::sentence(event));
        self.director.event(event)
    }

    fn news(&mut self, notice: &Notice) -> Vec<Order> {
        self.director.news(notice)
    }

    fn console_line(&mut self, line: &str) -> Vec<Order> {
        self.director.console_line(line)
    }
}
