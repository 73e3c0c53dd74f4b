// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! DomainSpec: memory, CPU, firmware, clock and features.

use super::devices::DEVICES;
use super::{Object, Shape, inner, unused, used};

pub(super) static DOMAIN_SPEC: Object = Object {
    kind: "DomainSpec",
    keys: &[
        used("resources", Shape::Object(&RESOURCES)),
        used("cpu", Shape::Object(&CPU)),
        used("memory", Shape::Object(&MEMORY)),
        used("firmware", Shape::Object(&FIRMWARE)),
        used("devices", Shape::Object(&DEVICES)),
        unused("machine", Shape::Object(&MACHINE)),
        unused("clock", Shape::Object(&CLOCK)),
        unused("features", Shape::Object(&FEATURES)),
        unused("ioThreadsPolicy", Shape::Text),
        unused("ioThreads", Shape::Opaque),
        unused("chassis", Shape::Opaque),
        unused("launchSecurity", Shape::Opaque),
        unused("rebootPolicy", Shape::Text),
    ],
};

static RESOURCES: Object = Object {
    kind: "ResourceRequirements",
    keys: &[
        used("requests", Shape::Object(&RESOURCE_LIST)),
        used("limits", Shape::Object(&RESOURCE_LIST)),
        unused("overcommitGuestOverhead", Shape::Flag),
    ],
};

static RESOURCE_LIST: Object = Object {
    kind: "ResourceList",
    keys: &[
        used("memory", Shape::Quantity),
        used("cpu", Shape::Quantity),
        unused("ephemeral-storage", Shape::Quantity),
        unused("hugepages-2Mi", Shape::Quantity),
        unused("hugepages-1Gi", Shape::Quantity),
    ],
};

static CPU: Object = Object {
    kind: "CPU",
    keys: &[
        used("cores", Shape::Count),
        used("sockets", Shape::Count),
        used("threads", Shape::Count),
        unused("maxSockets", Shape::Count),
        unused("model", Shape::Text),
        unused("features", Shape::List(&Shape::Opaque)),
        unused("dedicatedCpuPlacement", Shape::Flag),
        unused("isolateEmulatorThread", Shape::Flag),
        unused("numa", Shape::Opaque),
        unused("realtime", Shape::Opaque),
    ],
};

static MEMORY: Object = Object {
    kind: "Memory",
    keys: &[
        used("guest", Shape::Quantity),
        unused("maxGuest", Shape::Quantity),
        unused("hugepages", Shape::Opaque),
        unused("reservedOverhead", Shape::Opaque),
    ],
};

static FIRMWARE: Object = Object {
    kind: "Firmware",
    keys: &[
        used("kernelBoot", Shape::Object(&KERNEL_BOOT)),
        unused("bootloader", Shape::Opaque),
        unused("uuid", Shape::Text),
        unused("serial", Shape::Text),
        unused("acpi", Shape::Opaque),
    ],
};

static KERNEL_BOOT: Object = Object {
    kind: "KernelBoot",
    keys: &[
        used("container", Shape::Object(&KERNEL_BOOT_CONTAINER)),
        used("kernelArgs", Shape::Text),
    ],
};

static KERNEL_BOOT_CONTAINER: Object = Object {
    kind: "KernelBootContainer",
    keys: &[
        used("image", Shape::Text),
        used("kernelPath", Shape::Text),
        used("initrdPath", Shape::Text),
        unused("imagePullPolicy", Shape::Text),
        unused("imagePullSecret", Shape::Text),
    ],
};

static MACHINE: Object = Object {
    kind: "Machine",
    keys: &[inner("type", Shape::Text)],
};

static CLOCK: Object = Object {
    kind: "Clock",
    keys: &[
        inner("utc", Shape::Opaque),
        inner("timezone", Shape::Text),
        inner("timer", Shape::Object(&TIMER)),
    ],
};

static TIMER: Object = Object {
    kind: "Timer",
    keys: &[
        inner("hpet", Shape::Opaque),
        inner("kvm", Shape::Opaque),
        inner("pit", Shape::Opaque),
        inner("rtc", Shape::Opaque),
        inner("hyperv", Shape::Opaque),
    ],
};

static FEATURES: Object = Object {
    kind: "Features",
    keys: &[
        inner("acpi", Shape::Opaque),
        inner("apic", Shape::Opaque),
        inner("hyperv", Shape::Opaque),
        inner("hypervPassthrough", Shape::Opaque),
        inner("smm", Shape::Opaque),
        inner("kvm", Shape::Opaque),
        inner("pvspinlock", Shape::Opaque),
    ],
};
