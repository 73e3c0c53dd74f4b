// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices: the watchdog, disks and their volumes, interfaces and their networks.

use super::{Object, Shape, advised, inner, unattached, unused, used};

pub(super) static DEVICES: Object = Object {
    kind: "Devices",
    keys: &[
        advised(
            "watchdog",
            Shape::Object(&WATCHDOG),
            "a machine has one watchdog: write its name and i6300esb directly under watchdog",
        ),
        unattached("disks", Shape::List(&Shape::Object(&DISK))),
        unattached("filesystems", Shape::List(&Shape::Opaque)),
        used("interfaces", Shape::List(&Shape::Object(&INTERFACE))),
        unattached("inputs", Shape::List(&Shape::Opaque)),
        unattached("gpus", Shape::List(&Shape::Opaque)),
        unattached("hostDevices", Shape::List(&Shape::Opaque)),
        unattached("panicDevices", Shape::List(&Shape::Opaque)),
        unattached("rng", Shape::Opaque),
        unattached("sound", Shape::Opaque),
        unattached("tpm", Shape::Opaque),
        unattached("video", Shape::Opaque),
        unattached("downwardMetrics", Shape::Opaque),
        unattached("clientPassthrough", Shape::Opaque),
        unused("useVirtioTransitional", Shape::Flag),
        unused("disableHotplug", Shape::Flag),
        used("autoattachPodInterface", Shape::Flag),
        unused("autoattachGraphicsDevice", Shape::Flag),
        unused("autoattachSerialConsole", Shape::Flag),
        unused("autoattachMemBalloon", Shape::Flag),
        unused("autoattachInputDevice", Shape::Flag),
        unused("autoattachVSOCK", Shape::Flag),
        unused("logSerialConsole", Shape::Flag),
        unused("blockMultiQueue", Shape::Flag),
        unused("networkInterfaceMultiqueue", Shape::Flag),
    ],
};

static WATCHDOG: Object = Object {
    kind: "Watchdog",
    keys: &[
        inner("name", Shape::Text),
        inner("i6300esb", Shape::Object(&I6300ESB)),
        inner("diag288", Shape::Object(&DIAG288)),
    ],
};

static I6300ESB: Object = Object {
    kind: "I6300ESBWatchdog",
    keys: &[inner("action", Shape::Text)],
};

static DIAG288: Object = Object {
    kind: "Diag288Watchdog",
    keys: &[inner("action", Shape::Text)],
};

static DISK: Object = Object {
    kind: "Disk",
    keys: &[
        inner("name", Shape::Text),
        inner("disk", Shape::Object(&DISK_TARGET)),
        inner("lun", Shape::Object(&LUN_TARGET)),
        inner("cdrom", Shape::Object(&CDROM_TARGET)),
        inner("bootOrder", Shape::Count),
        inner("serial", Shape::Text),
        inner("dedicatedIOThread", Shape::Flag),
        inner("cache", Shape::Text),
        inner("io", Shape::Text),
        inner("tag", Shape::Text),
        inner("blockSize", Shape::Opaque),
        inner("shareable", Shape::Flag),
        inner("errorPolicy", Shape::Text),
        inner("changedBlockTracking", Shape::Flag),
    ],
};

static DISK_TARGET: Object = Object {
    kind: "DiskTarget",
    keys: &[
        inner("bus", Shape::Text),
        inner("readonly", Shape::Flag),
        inner("pciAddress", Shape::Text),
    ],
};

static LUN_TARGET: Object = Object {
    kind: "LunTarget",
    keys: &[
        inner("bus", Shape::Text),
        inner("readonly", Shape::Flag),
        inner("reservation", Shape::Flag),
    ],
};

static CDROM_TARGET: Object = Object {
    kind: "CDRomTarget",
    keys: &[
        inner("bus", Shape::Text),
        inner("readonly", Shape::Flag),
        inner("tray", Shape::Text),
    ],
};

static INTERFACE: Object = Object {
    kind: "Interface",
    keys: &[
        used("name", Shape::Text),
        used("model", Shape::Text),
        used("bridge", Shape::Opaque),
        used("slirp", Shape::Opaque),
        used("masquerade", Shape::Opaque),
        used("sriov", Shape::Opaque),
        used("macvtap", Shape::Opaque),
        used("passt", Shape::Opaque),
        used("passtBinding", Shape::Opaque),
        used("binding", Shape::Opaque),
        used("ports", Shape::List(&Shape::Object(&PORT))),
        unused("portRanges", Shape::List(&Shape::Opaque)),
        unused("macAddress", Shape::Text),
        unused("bootOrder", Shape::Count),
        unused("pciAddress", Shape::Text),
        unused("dhcpOptions", Shape::Opaque),
        unused("tag", Shape::Text),
        unused("acpiIndex", Shape::Count),
        unused("state", Shape::Text),
    ],
};

static PORT: Object = Object {
    kind: "Port",
    keys: &[
        inner("name", Shape::Text),
        inner("protocol", Shape::Text),
        inner("port", Shape::Integer),
    ],
};

/// Volume; `registryDisk` is the former name of `containerDisk`.
pub(super) static DISK_VOLUME: Object = Object {
    kind: "Volume",
    keys: &[
        inner("name", Shape::Text),
        inner("hostDisk", Shape::Opaque),
        inner("persistentVolumeClaim", Shape::Opaque),
        inner("cloudInitNoCloud", Shape::Opaque),
        inner("cloudInitConfigDrive", Shape::Opaque),
        inner("sysprep", Shape::Opaque),
        inner("containerDisk", Shape::Opaque),
        inner("registryDisk", Shape::Opaque),
        inner("containerPath", Shape::Opaque),
        inner("ephemeral", Shape::Opaque),
        inner("emptyDisk", Shape::Opaque),
        inner("dataVolume", Shape::Opaque),
        inner("configMap", Shape::Opaque),
        inner("secret", Shape::Opaque),
        inner("downwardAPI", Shape::Opaque),
        inner("serviceAccount", Shape::Opaque),
        inner("downwardMetrics", Shape::Opaque),
        inner("memoryDump", Shape::Opaque),
    ],
};

pub(super) static NETWORK: Object = Object {
    kind: "Network",
    keys: &[
        used("name", Shape::Text),
        used("pod", Shape::Object(&POD_NETWORK)),
        used("multus", Shape::Opaque),
        used("resourceClaim", Shape::Opaque),
    ],
};

static POD_NETWORK: Object = Object {
    kind: "PodNetwork",
    keys: &[
        unused("vmNetworkCIDR", Shape::Text),
        unused("vmIPv6NetworkCIDR", Shape::Text),
    ],
};
