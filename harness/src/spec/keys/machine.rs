// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceReplicaSet, their specs and metadata.

use super::devices::{DISK_VOLUME, NETWORK};
use super::domain::DOMAIN_SPEC;
use super::probe::PROBE;
use super::{Object, Shape, inner, unattached, unused, used};

/// Kind VirtualMachineInstance.
pub(in crate::spec) static VIRTUAL_MACHINE_INSTANCE: Object = Object {
    kind: "VirtualMachineInstance",
    keys: &[
        used("apiVersion", Shape::Text),
        used("kind", Shape::Text),
        used("metadata", Shape::Object(&OBJECT_META)),
        used("spec", Shape::Object(&VIRTUAL_MACHINE_INSTANCE_SPEC)),
        unused("status", Shape::Opaque),
    ],
};

/// Kind VirtualMachine.
pub(in crate::spec) static VIRTUAL_MACHINE: Object = Object {
    kind: "VirtualMachine",
    keys: &[
        used("apiVersion", Shape::Text),
        used("kind", Shape::Text),
        used("metadata", Shape::Object(&OBJECT_META)),
        used("spec", Shape::Object(&VIRTUAL_MACHINE_SPEC)),
        unused("status", Shape::Opaque),
    ],
};

static VIRTUAL_MACHINE_SPEC: Object = Object {
    kind: "VirtualMachineSpec",
    keys: &[
        used("running", Shape::Flag),
        used("runStrategy", Shape::Text),
        used("template", Shape::Object(&TEMPLATE)),
        unused("instancetype", Shape::Opaque),
        unused("preference", Shape::Opaque),
        unattached("dataVolumeTemplates", Shape::List(&Shape::Opaque)),
        unused("updateVolumesStrategy", Shape::Text),
    ],
};

/// Kind VirtualMachineInstanceReplicaSet.
pub(in crate::spec) static REPLICA_SET: Object = Object {
    kind: "VirtualMachineInstanceReplicaSet",
    keys: &[
        used("apiVersion", Shape::Text),
        used("kind", Shape::Text),
        used("metadata", Shape::Object(&OBJECT_META)),
        used("spec", Shape::Object(&REPLICA_SET_SPEC)),
        unused("status", Shape::Opaque),
    ],
};

static REPLICA_SET_SPEC: Object = Object {
    kind: "VirtualMachineInstanceReplicaSetSpec",
    keys: &[
        used("replicas", Shape::Integer),
        used("selector", Shape::Object(&LABEL_SELECTOR)),
        used("paused", Shape::Flag),
        used("template", Shape::Object(&TEMPLATE)),
    ],
};

static LABEL_SELECTOR: Object = Object {
    kind: "LabelSelector",
    keys: &[
        inner("matchLabels", Shape::Strings),
        inner(
            "matchExpressions",
            Shape::List(&Shape::Object(&LABEL_SELECTOR_REQUIREMENT)),
        ),
    ],
};

static LABEL_SELECTOR_REQUIREMENT: Object = Object {
    kind: "LabelSelectorRequirement",
    keys: &[
        inner("key", Shape::Text),
        inner("operator", Shape::Text),
        inner("values", Shape::List(&Shape::Text)),
    ],
};

static TEMPLATE: Object = Object {
    kind: "VirtualMachineInstanceTemplateSpec",
    keys: &[
        used("metadata", Shape::Object(&OBJECT_META)),
        used("spec", Shape::Object(&VIRTUAL_MACHINE_INSTANCE_SPEC)),
    ],
};

static OBJECT_META: Object = Object {
    kind: "ObjectMeta",
    keys: &[
        used("name", Shape::Text),
        used("namespace", Shape::Text),
        used("labels", Shape::Strings),
        used("annotations", Shape::Strings),
        unused("generateName", Shape::Text),
        unused("uid", Shape::Text),
        unused("selfLink", Shape::Text),
        unused("resourceVersion", Shape::Text),
        unused("generation", Shape::Count),
        unused("creationTimestamp", Shape::Opaque),
        unused("deletionTimestamp", Shape::Opaque),
        unused("deletionGracePeriodSeconds", Shape::Count),
        unused("ownerReferences", Shape::List(&Shape::Opaque)),
        unused("finalizers", Shape::List(&Shape::Text)),
        unused("managedFields", Shape::List(&Shape::Opaque)),
    ],
};

static VIRTUAL_MACHINE_INSTANCE_SPEC: Object = Object {
    kind: "VirtualMachineInstanceSpec",
    keys: &[
        used("domain", Shape::Object(&DOMAIN_SPEC)),
        used("terminationGracePeriodSeconds", Shape::Count),
        used("livenessProbe", Shape::Object(&PROBE)),
        used("readinessProbe", Shape::Object(&PROBE)),
        unattached("volumes", Shape::List(&Shape::Object(&DISK_VOLUME))),
        used("networks", Shape::List(&Shape::Object(&NETWORK))),
        unused("utilityVolumes", Shape::List(&Shape::Opaque)),
        unused("accessCredentials", Shape::List(&Shape::Opaque)),
        unused("resourceClaims", Shape::List(&Shape::Opaque)),
        unused("architecture", Shape::Text),
        used("startStrategy", Shape::Text),
        unused("evictionStrategy", Shape::Text),
        unused("hostname", Shape::Text),
        unused("subdomain", Shape::Text),
        unused("dnsPolicy", Shape::Text),
        unused("dnsConfig", Shape::Opaque),
        unused("priorityClassName", Shape::Text),
        unused("schedulerName", Shape::Text),
        unused("serviceAccountName", Shape::Text),
        unused("nodeSelector", Shape::Strings),
        unused("affinity", Shape::Opaque),
        unused("tolerations", Shape::List(&Shape::Opaque)),
        unused("topologySpreadConstraints", Shape::List(&Shape::Opaque)),
    ],
};
