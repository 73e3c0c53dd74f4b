// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's first process and the scenario that it runs.
//!
//! A scenario is shell text. It reaches the guest as `/kennel/script`, in an archive of its own behind the image's
//! ([`overlay`]), and runs with busybox' `sh`, its output on the console. Without one the guest gives a shell on its
//! console. Lines that a scenario finds useful:
//!
//! - `cat /sys/class/watchdog/watchdog0/bootstatus`: 32 (WDIOF_CARDRESET) once after a reset by the watchdog, else 0;
//!   `wdctl` says the same in words.
//! - `busybox watchdog -t 2000ms -T 10000ms /dev/watchdog`: ping every 2 s, bite after 10 s. `killall` does not find a
//!   process started this way (its name is busybox): start it as `watchdog`, or with `-F … &` and use `$!`.
//! - `killall acpid`: the guest no longer obeys its power button.
//! - `poweroff -f`, `reboot -f`: at once, without a word to other processes; without `-f` they do the same here.
//! - `agent-stop`: ends the guest agent and returns when it is gone; `agent-start` starts it again. Nothing else starts
//!   it: one that was killed stays away (call `agent-stop` before `agent-start` even so: it waits for the end). Its
//!   process number is in `/run/qemu-ga.pid`, and what it complains of in `/var/log/qemu-ga.log`.
//! - `kill -STOP $(cat /run/qemu-ga.pid)`: the guest agent is there but answers no more, until `kill -CONT`.
//!
//! The guest agent is the distribution's `qemu-ga`. Init starts it where the machine has a virtio console device, on the
//! port called `org.qemu.guest_agent.0` as soon as that shows up (within 10 s of the start), and does not wait for it.
//! There is no udev: the link in `/dev/virtio-ports` is made by `agent-start`, and only that one. A virtio console that
//! the kernel's command line names (`console=hvc0`) is waited for, for 10 s at most, so that a scenario finds `/dev/hvc0`.
//!
//! A machine with a network has `eth0`. Init brings it up and does not wait for it: busybox' DHCP client asks for the
//! IPv4 address, router and name server (`/etc/resolv.conf`) behind its back, and the kernel makes its IPv6 address of
//! what routers announce. A scenario that needs the network says `until ip -4 addr show eth0 | grep -q inet; do sleep
//! 0.1; done`. It can serve with `httpd -p 8080 -h /www` (IPv4 and IPv6) or `nc -ll -p 9000 -e cat`.

use super::newc::{Archive, NewcError};

/// `/init` of the guest image.
const INIT: &str = include_str!("init.sh");

/// The small files that every guest image has: path, permissions, contents.
pub(super) const FILES: [(&str, u32, &str); 9] = [
    ("init", 0o755, INIT),
    ("etc/passwd", 0o644, "root::0:0:root:/root:/bin/sh\n"),
    ("etc/group", 0o644, "root:x:0:\n"),
    ("etc/os-release", 0o644, OS_RELEASE),
    ("etc/acpi/PWRF/00000080", 0o755, POWER_BUTTON),
    ("etc/udhcpc/default.script", 0o755, UDHCPC),
    ("bin/agent-start", 0o755, AGENT_START),
    ("bin/agent-stop", 0o755, AGENT_STOP),
    ("sbin/shutdown", 0o755, SHUTDOWN),
];

/// Starts the guest agent; `init` runs it once.
const AGENT_START: &str = include_str!("init/agent-start.sh");
/// Ends it.
const AGENT_STOP: &str = include_str!("init/agent-stop.sh");
/// Busybox has no `shutdown`, and the agent calls nothing else.
const SHUTDOWN: &str = include_str!("init/shutdown.sh");
/// What busybox' DHCP client calls when it has an address, or has one no more.
const UDHCPC: &str = include_str!("init/udhcpc.sh");
/// What the agent answers when it is asked for the operating system.
const OS_RELEASE: &str = "ID=kennel\nNAME=\"Kennel guest\"\nPRETTY_NAME=\"Kennel guest image\"\n";

/// `/etc/acpi/PWRF/00000080`: what acpid runs when the power button is pressed.
const POWER_BUTTON: &str = "#!/bin/busybox sh
echo 'kennel: power button pressed, powering off' >/dev/console
sync
poweroff -f
";

/// How an initrd's archive starts when it is not compressed.
const NEWC_MAGIC: &[u8] = b"070701";

/// The archive that gives a guest image the scenario `script`. Put it behind the image's initrd ([`with_overlay`]).
///
/// # Errors
/// The script has 4 GiB or more.
pub fn overlay(script: &str) -> Result<Vec<u8>, NewcError> {
    let mut archive = Archive::new();
    archive.file("kennel/script", 0o755, script.as_bytes())?;
    Ok(archive.finish())
}

/// The initrd with the scenario `script` behind it. Any initrd will do that Linux unpacks: it takes archives one behind
/// the other, each on a multiple of 4 bytes.
///
/// # Errors
/// The script has 4 GiB or more.
pub fn with_overlay(mut initrd: Vec<u8>, script: &str) -> Result<Vec<u8>, NewcError> {
    let overlay = overlay(script)?;
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    initrd.extend(overlay);
    Ok(initrd)
}

/// Whether the bytes can be an initrd at all: an archive, compressed in a way that Linux knows or not at all.
#[must_use]
pub fn is_initrd(bytes: &[u8]) -> bool {
    let magics: [&[u8]; 9] = [
        NEWC_MAGIC,
        b"070702",
        b"\x1f\x8b",
        b"BZh",
        b"\x5d\x00\x00",
        b"\xfd7zXZ\x00",
        b"\x89LZO",
        b"\x02\x21\x4c\x18",
        b"\x28\xb5\x2f\xfd",
    ];
    magics.iter().any(|magic| bytes.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenario_goes_behind_the_image_on_a_boundary() {
        let overlay = overlay("echo hello\n").expect("overlay");
        assert_eq!(overlay.len() % 512, 0);
        let both = with_overlay(vec![1; 1001], "echo hello\n").expect("overlay");
        assert_eq!(both[..1004], [vec![1; 1001], vec![0; 3]].concat());
        assert_eq!(both[1004..], overlay);
        let text = String::from_utf8_lossy(&overlay);
        assert!(text.contains("kennel/script\0") && text.contains("echo hello\n"));
    }

    #[test]
    fn an_initrd_is_told_from_something_else() {
        assert!(is_initrd(&overlay("").expect("overlay")));
        assert!(is_initrd(b"\x1f\x8b\x08"));
        assert!(!is_initrd(b"") && !is_initrd(b"\x7fELF"));
    }

    #[test]
    fn the_scripts_are_programs() {
        let programs = FILES.iter().filter(|(_, mode, _)| *mode == 0o755);
        for (path, _, script) in programs {
            let whole = script.starts_with("#!/bin/busybox sh\n") && script.ends_with('\n');
            assert!(whole, "{path}");
        }
    }
}
