// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory and CPUs.

use kennel_vmm::layout::PAGE_SIZE;

use super::problem::{Fault, NoteKind, Place, quoted};
use super::quantity::Quantity;
use super::walk::Cursor;

/// Least guest RAM: below it no Linux kernel unpacks itself.
pub const MIN_MEMORY_BYTES: u64 = 32 << 20;
/// Most vCPUs: what a KVM of today is built for.
pub const MAX_VCPUS: u32 = 1024;

/// A value and where it stands, for later checks.
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Guest RAM. As in KubeVirt `memory.guest` decides, then the request, then the limit.
pub(super) fn memory(domain: Option<&Cursor<'_>>, document: &Cursor<'_>) -> Placed<u64> {
    let Some(domain) = domain else {
        return Placed {
            value: MIN_MEMORY_BYTES,
            place: document.place(),
        };
    };
    let sources = [
        &["memory", "guest"][..],
        &["resources", "requests", "memory"],
        &["resources", "limits", "memory"],
    ];
    let sources: Vec<_> = sources
        .into_iter()
        .filter_map(|path| domain.descend(path))
        .collect();
    let mut values = sources.iter().map(|at| (at, quantity(at)));
    let first = values.next();
    // The others decide nothing, but must be quantities.
    values.for_each(drop);
    let Some((at, quantity)) = first else {
        missing_memory(domain);
        return Placed {
            value: MIN_MEMORY_BYTES,
            place: domain.place(),
        };
    };
    Placed {
        value: quantity.map_or(MIN_MEMORY_BYTES, |quantity| whole_pages(at, quantity)),
        place: at.place(),
    }
}

fn missing_memory(domain: &Cursor<'_>) {
    const HINT: &str =
        "write how much memory the guest has, such as domain.resources.requests.memory: 512Mi";
    let requests = domain.descend(&["resources", "requests"]);
    let resources = domain.get("resources");
    match (requests, resources) {
        (Some(requests), _) => requests.missing("memory", HINT),
        (None, Some(resources)) => resources.missing("requests", HINT),
        (None, None) => domain.missing("resources", HINT),
    }
}

fn quantity(at: &Cursor<'_>) -> Option<Quantity> {
    Quantity::parse(&at.text_or_number()?)
        .map_err(|fault| at.refuse(fault))
        .ok()
}

/// Rounded up to whole pages, which is what a machine is made of.
fn whole_pages(at: &Cursor<'_>, quantity: Quantity) -> u64 {
    let text = at.text_or_number().unwrap_or_default();
    let text = text.as_ref();
    let bytes = match u64::try_from(quantity.floor()) {
        Ok(bytes) if bytes >= MIN_MEMORY_BYTES => bytes,
        Ok(bytes) => {
            at.refuse(too_small(text, bytes));
            return MIN_MEMORY_BYTES;
        }
        Err(_) => {
            at.refuse(Fault::new(format!("memory {} is negative", quoted(text))).allowed(MINIMUM));
            return MIN_MEMORY_BYTES;
        }
    };
    let whole = bytes.next_multiple_of(PAGE_SIZE);
    if whole != bytes {
        at.note(
            NoteKind::Rounded,
            &format!("rounded up to whole pages, {whole} bytes"),
        );
    }
    whole
}

const MINIMUM: &str = "32Mi or more";

fn too_small(text: &str, bytes: u64) -> Fault {
    let fault = match bytes {
        0 => Fault::new(format!("memory {} is no memory", quoted(text))),
        _ => Fault::new(format!(
            "memory {} is {bytes} bytes, too few for a guest kernel",
            quoted(text)
        )),
    };
    let fault = fault.allowed(MINIMUM);
    if bytes > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        fault.hint(format!(
            "a number without a unit counts bytes: write {text}Mi or {text}Gi"
        ))
    } else if let Some(number) = text.strip_suffix('m') {
        fault.hint(format!(
            "m means thousandths: write {number}M or {number}Mi"
        ))
    } else {
        fault
    }
}

/// vCPUs: cores × sockets × threads. As in KubeVirt, without any of them the CPU limit decides,
/// then the request.
pub(super) fn vcpus(domain: Option<&Cursor<'_>>, document: &Cursor<'_>) -> Placed<u32> {
    let Some(domain) = domain else {
        return Placed {
            value: 1,
            place: document.place(),
        };
    };
    let cpu = domain.get("cpu");
    let factors = ["cores", "sockets", "threads"].into_iter();
    let factors: Vec<_> = factors
        .filter_map(|key| factor(cpu.as_ref()?, key))
        .collect();
    let resources = ["limits", "requests"].map(|key| domain.descend(&["resources", key, "cpu"]));
    let resources: Vec<_> = resources
        .into_iter()
        .flatten()
        .map(|at| (quantity(&at), at))
        .collect();
    let (count, at) = if !factors.is_empty() {
        (topology(&factors), cpu.unwrap_or_else(|| domain.clone()))
    } else if let Some((quantity, at)) = resources.into_iter().next() {
        (quantity.map_or(1, |quantity| whole_cpus(&at, quantity)), at)
    } else {
        (1, domain.clone())
    };
    let value = match u32::try_from(count) {
        Ok(count) if count <= MAX_VCPUS => count,
        _ => {
            at.refuse(
                Fault::new(format!("{count} vCPUs are too many"))
                    .allowed(format!("1 to {MAX_VCPUS}")),
            );
            1
        }
    };
    Placed {
        value,
        place: at.place(),
    }
}

fn topology(factors: &[u64]) -> u64 {
    factors
        .iter()
        .fold(1, |product: u64, count| product.saturating_mul(*count))
}

/// How many of a kind; none where the document says nothing or, as in KubeVirt, 0.
fn factor(cpu: &Cursor<'_>, key: &str) -> Option<u64> {
    let at = cpu.get(key)?;
    let count = at.count()?;
    if count == 0 {
        at.note(NoteKind::Defaulted, "0 counts as not given, as in KubeVirt");
    }
    Some(count).filter(|count| *count > 0)
}

fn whole_cpus(at: &Cursor<'_>, quantity: Quantity) -> u64 {
    let count = u64::try_from(quantity.ceil()).unwrap_or(0);
    if count == 0 {
        let text = at.scalar().unwrap_or_default();
        at.refuse(
            Fault::new(format!("{} leaves the guest without a CPU", quoted(text)))
                .allowed("1 or more"),
        );
    }
    count.max(1)
}
