// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The words of the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kennel_vmm::config::WatchdogAction;

use crate::supervisor::publish::Publish;

/// Runs KubeVirt documents on a minimal KVM machine and acts on their watchdog and probes.
#[derive(Debug, Parser)]
#[command(name = "kennel", version, about, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub(super) struct Cli {
    /// Say what is done and why, on standard error.
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

const AFTER_HELP: &str = "\
Start here:
  kennel demo watchdog         everything from the kernel to the bite, nothing to prepare
  kennel demo probes           a stock guest agent, asked whether its guest is alive and ready
  kennel host check            can this machine run Linux guests, and how?
  kennel validate vm.yaml      every problem of a document, with its line
  kennel simulate vm.yaml --script s.yaml
                               what its probes and policy come to, in virtual time
  kennel run vm.yaml           run it; Ctrl-C ends the machine

A guest runs on this machine's own KVM where that can run Linux, else in \"the box\": a KVM host inside
a QEMU virtual machine, made for one command and gone with it.

Exit status:
  0    the machine Succeeded; demo: everything was as promised; validate: no problem
  1    Kennel could not do it; demo: not as promised; host check: no Linux guests here
  2    bad usage or a bad document
  3    the machine Failed
  124  --timeout ran out
  130  interrupted (128 and the signal's number)";

const RUN_STATUS: &str = "\
Exit status: 0 the machine Succeeded, 3 it Failed, 124 --timeout ran out, 1 Kennel could not run it,
2 bad usage or a bad document, 130 interrupted. What is started again when it has ended, a
VirtualMachine with runStrategy Always or a set, runs until it is interrupted or --timeout.";

const PROBE_STATUS: &str = "\
Options and exit statuses are those of KubeVirt's virt-probe.

  kennel probe --domainName default_dog --guestAgentPing
  kennel probe --domainName default_dog --timeoutSeconds 5 --command cat -- /tmp/healthy
  kennel probe --agent /run/vm/qga.sock --guestAgentPing       any other VMM's machine, QEMU's for one

Exit status: 0 the guest is well; the command's own exit status, 128 and the signal's number if one
killed it; 1 the agent's socket cannot be reached; 2 the agent refused or did not answer in time, or
bad usage.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the VirtualMachineInstance, VirtualMachine or VirtualMachineInstanceReplicaSet in FILE, in
    /// the foreground.
    #[command(after_help = RUN_STATUS)]
    Run(RunArgs),
    /// Show the watchdog or probes at work on a stock Debian guest; nothing to prepare.
    Demo {
        #[command(subcommand)]
        which: Demo,
    },
    /// Say everything that is wrong with the document in FILE.
    Validate(ValidateArgs),
    /// Play a script of probe outcomes to the document in FILE, in virtual time, and print the timeline.
    Simulate(SimulateArgs),
    /// Ask a running machine's guest once: does its agent answer, does a command succeed there?
    #[command(after_help = PROBE_STATUS)]
    Probe(ProbeArgs),
    /// Build the guest image `kennel/guest`: a kernel and an initramfs.
    Guest {
        #[command(subcommand)]
        what: Guest,
    },
    /// Can this machine run Linux guests? Run a command where they can run.
    Host {
        #[command(subcommand)]
        what: Host,
    },
    /// One VM, for `run`.
    #[command(hide = true)]
    VmProcess,
    /// The box's side of `host run --box`.
    #[command(hide = true)]
    BoxAgent,
}

#[derive(Clone, Debug, Args)]
pub(super) struct RunArgs {
    /// The KubeVirt document, a YAML or JSON file.
    pub(super) file: PathBuf,
    /// Write events to this file, one JSON object a line; - is standard output. Without it they are
    /// told on standard error, a sentence each.
    #[arg(long, value_name = "FILE|-", overrides_with = "events")]
    pub(super) events: Option<PathBuf>,
    /// Write what the guest prints to this file; - is standard output. Without it that goes to
    /// standard error. Of a set, each guest has its own file, its name behind this one.
    #[arg(long, value_name = "FILE|-", overrides_with = "console")]
    pub(super) console: Option<PathBuf>,
    /// Let a console file grow to SIZE and no further, as in 10Mi: then it becomes FILE.1, in the place
    /// of an older one, and FILE begins anew.
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "console",
        overrides_with = "console_limit")]
    pub(super) console_limit: Option<u64>,
    /// Run probes by KubeVirt's own numbers: 10 s more of initial delay, and 1 s more of timeout for
    /// exec and guestAgentPing.
    #[arg(long)]
    pub(super) compat: bool,
    /// Let PORT of this host lead to the guest's TCP port GUESTPORT while it runs, or, with ready, while
    /// it is Ready. ADDR is 127.0.0.1 if not given, and stands in brackets if it is IPv6; PORT 0 is any
    /// that is free. Guests of a set get connections in turn. May be given several times.
    #[arg(long, value_name = "[ADDR:]PORT:GUESTPORT[,ready]")]
    pub(super) publish: Vec<Publish>,
    /// End the machine after so long: seconds, or a number with a unit as in 90s or 5m.
    #[arg(long, value_name = "S", value_parser = duration, overrides_with = "timeout")]
    pub(super) timeout: Option<Duration>,
    #[command(flatten)]
    pub(super) image: ImageArgs,
    #[command(flatten)]
    pub(super) venue: VenueArgs,
}

/// `virt-probe`'s own spelling of its options.
#[derive(Clone, Debug, Args)]
#[command(rename_all = "camelCase")]
pub(super) struct ProbeArgs {
    /// The guest agent's socket, of any VMM.
    #[arg(long, visible_alias = "socket", value_name = "SOCKET")]
    pub(super) agent: Option<PathBuf>,
    /// The machine, one that this user runs with `kennel run`: NAMESPACE_NAME.
    #[arg(long, value_name = "NAMESPACE_NAME", required_unless_present = "agent",
        value_parser = domain_name)]
    pub(super) domain_name: Option<String>,
    /// Ask whether the guest agent answers.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", hide_possible_values = true, hide_default_value = true,
        value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(super) guest_agent_ping: bool,
    /// Run this program in the guest, without a shell. Its arguments follow after --.
    #[arg(long, value_name = "CMD")]
    pub(super) command: Option<String>,
    /// How long all of it may take, in seconds; fractions count.
    #[arg(long, value_name = "T", default_value = "1", value_parser = duration)]
    pub(super) timeout_seconds: Duration,
    /// For virt-probe's sake; does nothing.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "", hide = true)]
    mem_profile: Option<String>,
    /// The program's arguments.
    #[arg(last = true, value_name = "ARGS")]
    pub(super) arguments: Vec<String>,
}

/// A name that is a file's name and no path.
fn domain_name(text: &str) -> Result<String, String> {
    if text.contains('/') || !text.contains('_') {
        return Err("it is NAMESPACE_NAME, as in default_dog".into());
    }
    Ok(text.into())
}

#[derive(Debug, Subcommand)]
pub(super) enum Demo {
    /// A watchdog whose feeder is killed, and what is done about it.
    Watchdog {
        /// What the bite does.
        #[arg(long, value_enum, default_value = "poweroff")]
        action: Action,
        #[command(flatten)]
        stage: StageArgs,
    },
    /// A machine whose probes go well and badly, and what is done about it.
    Probes {
        #[command(flatten)]
        stage: StageArgs,
    },
}

/// What a demonstration runs on.
#[derive(Clone, Debug, Args)]
pub(super) struct StageArgs {
    #[command(flatten)]
    pub(super) image: ImageArgs,
    #[command(flatten)]
    pub(super) venue: VenueArgs,
}

/// [`WatchdogAction`] by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Action(pub(super) WatchdogAction);

impl ValueEnum for Action {
    fn value_variants<'a>() -> &'a [Self] {
        use WatchdogAction::{InjectNmi, None, Pause, Poweroff, Reset, Shutdown};
        const ALL: [Action; 6] = [
            Action(Reset),
            Action(Poweroff),
            Action(Shutdown),
            Action(Pause),
            Action(InjectNmi),
            Action(None),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.name()))
    }
}

const IMAGE: &str = "Guest image";
const VENUE: &str = "Where (found out if not given)";

/// Which kernel and initrd stand for the image `kennel/guest`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ImageArgs {
    /// Let the guest image `kennel/guest` have this kernel (bzImage or ELF vmlinux), not the
    /// distribution's; needs --initrd.
    #[arg(long, value_name = "FILE", requires = "initrd", help_heading = IMAGE)]
    pub(super) kernel: Option<PathBuf>,
    /// Its initrd; needs --kernel.
    #[arg(long, value_name = "FILE", requires = "kernel", help_heading = IMAGE)]
    pub(super) initrd: Option<PathBuf>,
    /// Build the guest image with the kernel that this machine runs, and its modules.
    #[arg(long, conflicts_with = "kernel", help_heading = IMAGE)]
    pub(super) host_kernel: bool,
}

/// Where guests run.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct VenueArgs {
    /// In the box, a KVM host inside a QEMU virtual machine, even if this machine's KVM could.
    #[arg(long = "box", overrides_with = "no_box", help_heading = VENUE)]
    pub(super) in_box: bool,
    /// On this machine's KVM, even if it looks unable to run Linux.
    #[arg(long, overrides_with = "in_box", help_heading = VENUE)]
    pub(super) no_box: bool,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// The KubeVirt document, a YAML or JSON file.
    pub(super) file: PathBuf,
    /// Say too with which numbers KubeVirt would run each probe: 10 s more of initial delay, and 1 s
    /// more of timeout for exec and guestAgentPing.
    #[arg(long)]
    pub(super) compat: bool,
}

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// The KubeVirt document, a YAML or JSON file.
    pub(super) file: PathBuf,
    /// What probes find and guests do, and when: a YAML file with `until` and `events`.
    #[arg(long)]
    pub(super) script: PathBuf,
    /// By KubeVirt's own numbers: 10 s more of initial delay, and 1 s more of timeout for exec and
    /// guestAgentPing.
    #[arg(long)]
    pub(super) compat: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Guest {
    /// Build the guest image, or take it from the cache, and print where it is.
    Build {
        /// Copy kernel and initrd into this directory.
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        #[command(flatten)]
        image: ImageArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Host {
    /// Can this machine run Linux guests, and how?
    Check,
    /// Run a command on a host that can run Linux guests: this machine, or a box.
    Run {
        #[command(flatten)]
        venue: VenueArgs,
        /// Memory of the box in MiB, if it becomes one.
        #[arg(long, value_name = "MIB")]
        memory: Option<u32>,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// The smallest file that a console may be limited to, in bytes.
const LEAST_LIMIT: u64 = 4096;

fn size(text: &str) -> Result<u64, String> {
    let bytes = crate::spec::bytes(text)?;
    if bytes < LEAST_LIMIT {
        return Err(format!("the least is {LEAST_LIMIT} bytes"));
    }
    Ok(bytes)
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    };
    parsed
        .and_then(|time| {
            if time.is_zero() {
                Err("it is zero".into())
            } else {
                Ok(time)
            }
        })
        .map_err(|why| format!("{why}; write seconds, or a number with a unit as in 90s or 5m"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn words_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_seconds_or_have_a_unit() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "-1", "0", "1e400", "5 apples", "NaN"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_console_limit_is_a_quantity_for_a_console_file() {
        let run = |words: &str| {
            let line = format!("kennel run x {words}");
            match Cli::try_parse_from(line.split(' '))
                .map_err(|error| error.to_string())?
                .command
            {
                Command::Run(args) => Ok(args.console_limit),
                other => Err(format!("{other:?}")),
            }
        };
        for (size, bytes) in [("4096", 4096), ("10Mi", 10 << 20), ("5M", 5_000_000)] {
            let words = format!("--console c --console-limit {size}");
            assert_eq!(run(&words), Ok(Some(bytes)));
        }
        for (words, why) in [
            ("--console-limit 10Mi", "--console"),
            ("--console c --console-limit 4095", "4096"),
            ("--console c --console-limit=-1Mi", "negative"),
            ("--console c --console-limit 10MiB", "MiB"),
        ] {
            let error = run(words).expect_err(words);
            assert!(error.contains(why), "{words}: {error}");
        }
    }

    #[test]
    fn a_later_venue_wins() {
        let cli = Cli::parse_from(["kennel", "run", "x", "--box", "--no-box"]);
        let Command::Run(args) = cli.command else {
            panic!("run")
        };
        assert!(args.venue.no_box && !args.venue.in_box);
    }

    #[test]
    fn ports_are_published_as_often_as_asked() {
        let line = "kennel run x --publish 8080:80 --publish [::1]:0:22,ready";
        let cli = Cli::parse_from(line.split(' '));
        let Command::Run(args) = cli.command else {
            panic!("run")
        };
        let parsed = ["8080:80", "[::1]:0:22,ready"].map(|text| text.parse().expect(text));
        assert_eq!(args.publish, parsed);
        let error = Cli::try_parse_from("kennel run x --publish 8080".split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("as in 8080:80"), "{error}");
    }

    fn probe(words: &[&str]) -> Result<ProbeArgs, String> {
        let words = ["kennel", "probe"].iter().chain(words);
        match Cli::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .command
        {
            Command::Probe(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_words_of_virt_probe_are_understood() {
        let args = probe(&["--domainName", "lab_vm", "--guestAgentPing"]).unwrap();
        assert!(args.guest_agent_ping);
        assert_eq!(args.domain_name.as_deref(), Some("lab_vm"));
        assert_eq!(args.timeout_seconds, Duration::from_secs(1));

        let line = "--domainName lab_vm --timeoutSeconds 5 --command cat -- -A --guestAgentPing";
        let args = probe(&line.split(' ').collect::<Vec<_>>()).unwrap();
        assert!(!args.guest_agent_ping);
        assert_eq!(args.command.as_deref(), Some("cat"));
        assert_eq!(args.arguments, ["-A", "--guestAgentPing"]);
        assert_eq!(args.timeout_seconds, Duration::from_secs(5));

        let line = "--socket /s --command true --memProfile=/x --guestAgentPing=false -v --";
        let args = probe(&line.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!(args.agent, Some("/s".into()));
        assert!(!args.guest_agent_ping);
        assert!(probe(&["--agent", "/s", "--memProfile", "--guestAgentPing=true"]).is_ok());
    }

    #[test]
    fn a_probe_says_whom_and_what() {
        for (words, names) in [
            (&["--guestAgentPing"][..], "--domainName"),
            (
                &["--domainName", "vm", "--guestAgentPing"],
                "NAMESPACE_NAME",
            ),
            (
                &["--domainName", "a_b/../x", "--guestAgentPing"],
                "NAMESPACE_NAME",
            ),
            (
                &["--agent", "/s", "--guestAgentPing", "--timeoutSeconds", "0"],
                "zero",
            ),
        ] {
            let error = probe(words).unwrap_err();
            assert!(error.contains(names), "{words:?}: {error}");
        }
    }

    #[test]
    fn every_action_can_be_asked_for() {
        for action in WatchdogAction::ALL {
            let cli = ["kennel", "demo", "watchdog", "--action", action.name()];
            let Command::Demo {
                which: Demo::Watchdog { action: asked, .. },
            } = Cli::parse_from(cli).command
            else {
                panic!("demo")
            };
            assert_eq!(asked.0, action);
        }
    }
}
