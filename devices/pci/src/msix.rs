// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MSI-X: a table of messages, each with a mask, and an array of pending bits, in memory BARs.
//!
//! *Emulated:* enable, function mask, per-vector mask, pending bits that are sent once nothing masks them any
//! more. Accesses to table and array of any length and alignment, each byte lane on its own.
//!
//! *Not emulated:* steering tags, extended message data.
//!
//! *Differs from hardware:* an interrupt wanted while the function may not master the bus is pending, too.
//! Pending bits are cleared when MSI-X is disabled (the specification leaves it open).
//!
//! Source: PCI Local Bus Specification 3.0, 6.8.2 and 6.8.3.

use crate::bar::AddressSpace;
use crate::config_space::{LayoutError, Type0};
use crate::msi::MsiMessage;

/// Capability ID.
const ID: u8 = 0x11;
/// Message control: enable.
const ENABLE: u16 = 1 << 15;
/// Message control: every vector is masked.
const FUNCTION_MASK: u16 = 1 << 14;
/// Largest table, vectors.
const MAX_VECTORS: u16 = 2048;
/// Message control, from the capability's start.
const CONTROL: u16 = 2;
/// Bytes of a table entry: address low, address high, data, vector control.
const ENTRY_BYTES: u64 = 16;
/// Pending bits in one unit of the array.
const PENDING_UNIT_BITS: u64 = 64;
/// Vector control: masked.
const VECTOR_MASK: u8 = 1;
/// Bits that the guest can change, of each byte of an entry. An address is a multiple of 4.
const ENTRY_WRITABLE: [u8; 16] = [
    0xfc,
    0xff,
    0xff,
    0xff,
    0xff,
    0xff,
    0xff,
    0xff,
    0xff,
    0xff,
    0xff,
    0xff,
    VECTOR_MASK,
    0,
    0,
    0,
];

/// How many vectors there are, and where the guest finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    /// Vectors, 1 to 2048.
    pub vectors: u16,
    /// Index of the memory BAR that holds table and pending bits; the header must have it already.
    pub bar: u8,
    /// Offset of the table in the BAR, bytes, a multiple of 8.
    pub table: u32,
    /// Offset of the pending bits in the BAR, bytes, a multiple of 8.
    pub pending: u32,
}

impl MsixLayout {
    /// Bytes of the table.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        u64::from(self.vectors).saturating_mul(ENTRY_BYTES)
    }

    /// Bytes of the array of pending bits, whole units of 8.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        u64::from(self.vectors)
            .div_ceil(PENDING_UNIT_BITS)
            .saturating_mul(8)
    }

    fn fits(&self, header: &Type0) -> bool {
        let Some(bar) = header.bar(self.bar.into()) else {
            return false;
        };
        let end = |start: u32, bytes: u64| u64::from(start).saturating_add(bytes);
        let table_end = end(self.table, self.table_bytes());
        let pending_end = end(self.pending, self.pending_bytes());
        (1..=MAX_VECTORS).contains(&self.vectors)
            && bar.space() == AddressSpace::Memory
            && self.table.is_multiple_of(8)
            && self.pending.is_multiple_of(8)
            && table_end <= bar.size()
            && pending_end <= bar.size()
            && (table_end <= self.pending.into() || pending_end <= self.table.into())
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    bytes: [u8; 16],
    pending: bool,
}

impl Entry {
    const RESET: Self = {
        let mut bytes = [0; 16];
        bytes[12] = VECTOR_MASK;
        Self {
            bytes,
            pending: false,
        }
    };

    fn masked(&self) -> bool {
        let [.., control, _, _, _] = self.bytes;
        control & VECTOR_MASK != 0
    }

    fn message(&self) -> MsiMessage {
        let [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3, ..] = self.bytes;
        MsiMessage {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            data: u32::from_le_bytes([d0, d1, d2, d3]),
        }
    }
}

/// The capability of one function with its table and pending bits.
///
/// Messages come back as data, at most one per vector and call. Not synchronised: the function that owns it
/// locks.
#[derive(Clone, Debug)]
pub struct MsiX {
    offset: u16,
    table: Vec<Entry>,
}

impl MsiX {
    /// Appends the capability to `header`, which must have the BAR already.
    ///
    /// # Errors
    /// [`LayoutError::MsixLayout`] if table and pending bits do not lie in a memory BAR of the header side by
    /// side, [`LayoutError::NoSpace`].
    pub fn add_to(header: &mut Type0, layout: MsixLayout) -> Result<Self, LayoutError> {
        if !layout.fits(header) {
            return Err(LayoutError::MsixLayout(layout));
        }
        let [size_low, size_high] = layout.vectors.saturating_sub(1).to_le_bytes();
        let place = |offset: u32| (offset | u32::from(layout.bar)).to_le_bytes();
        let ([t0, t1, t2, t3], [p0, p1, p2, p3]) = (place(layout.table), place(layout.pending));
        let body = [size_low, size_high, t0, t1, t2, t3, p0, p1, p2, p3];
        let [control_low, control_high] = (ENABLE | FUNCTION_MASK).to_le_bytes();
        let writable = [control_low, control_high, 0, 0, 0, 0, 0, 0, 0, 0];
        Ok(Self {
            offset: header.add_capability(ID, &body, &writable)?,
            table: vec![Entry::RESET; layout.vectors.into()],
        })
    }

    fn control(&self, header: &Type0) -> u16 {
        header.u16_at(self.offset.saturating_add(CONTROL))
    }

    /// Whether the guest has chosen messages instead of the line.
    #[must_use]
    pub fn enabled(&self, header: &Type0) -> bool {
        self.control(header) & ENABLE != 0
    }

    /// Number of vectors.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.table.len()).unwrap_or(MAX_VECTORS)
    }

    /// Whether messages may leave the function, the vector's own mask aside.
    fn open(&self, header: &Type0) -> bool {
        self.control(header) & (ENABLE | FUNCTION_MASK) == ENABLE && header.bus_master()
    }

    /// The function wants to interrupt with `vector`: the message to send now, or `None` if it is pending from
    /// now on, the vector does not exist, or MSI-X is disabled.
    #[must_use = "the message must be sent"]
    pub fn signal(&mut self, header: &Type0, vector: u16) -> Option<MsiMessage> {
        if !self.enabled(header) {
            return None;
        }
        let open = self.open(header);
        let entry = self.table.get_mut(usize::from(vector))?;
        entry.pending = !open || entry.masked();
        (!entry.pending).then(|| entry.message())
    }

    /// Reads the table from byte `offset` of it on; bytes after the table are zero.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in lanes(offset).zip(data) {
            let entry = index(at / ENTRY_BYTES).and_then(|index| self.table.get(index));
            let value = entry
                .zip(index(at % ENTRY_BYTES))
                .and_then(|(entry, lane)| entry.bytes.get(lane));
            *byte = value.copied().unwrap_or(0);
        }
    }

    /// Writes the table from byte `offset` of it on; the messages that were pending and are to be sent now.
    #[must_use = "the messages must be sent"]
    pub fn table_write(&mut self, header: &Type0, offset: u64, data: &[u8]) -> Vec<MsiMessage> {
        for (at, &value) in lanes(offset).zip(data) {
            let entry = index(at / ENTRY_BYTES).and_then(|index| self.table.get_mut(index));
            let lane = index(at % ENTRY_BYTES);
            if let Some((entry, lane)) = entry.zip(lane)
                && let Some((byte, mask)) = entry.bytes.get_mut(lane).zip(ENTRY_WRITABLE.get(lane))
            {
                *byte = (*byte & !mask) | (value & mask);
            }
        }
        self.release(header)
    }

    /// Reads the pending bits from byte `offset` of their array on.
    pub fn pending_read(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in lanes(offset).zip(data) {
            let first = index(at.saturating_mul(8)).unwrap_or(usize::MAX);
            let bits = self.table.iter().skip(first).take(8);
            *byte = bits.enumerate().fold(0, |byte, (bit, entry)| {
                byte | u8::from(entry.pending).wrapping_shl(u32::try_from(bit).unwrap_or(0))
            });
        }
    }

    /// To be called after each write to `header`: the messages that were pending and are to be sent now.
    #[must_use = "the messages must be sent"]
    pub fn header_written(&mut self, header: &Type0) -> Vec<MsiMessage> {
        if !self.enabled(header) {
            for entry in &mut self.table {
                entry.pending = false;
            }
        }
        self.release(header)
    }

    fn release(&mut self, header: &Type0) -> Vec<MsiMessage> {
        if !self.open(header) {
            return Vec::new();
        }
        let ready = |entry: &&mut Entry| entry.pending && !entry.masked();
        self.table
            .iter_mut()
            .filter(ready)
            .map(|entry| {
                entry.pending = false;
                entry.message()
            })
            .collect()
    }

    /// Masks every vector, forgets messages and pending bits. The header is reset by its owner.
    pub fn reset(&mut self) {
        self.table.fill(Entry::RESET);
    }
}

/// Byte offsets from `offset` on, which may be anything.
fn lanes(offset: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(offset), |at| at.checked_add(1))
}

fn index(value: u64) -> Option<usize> {
    usize::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bar::Bar;
    use crate::config_space::Identity;
    use crate::spec;

    const LAYOUT: MsixLayout = MsixLayout {
        vectors: 2,
        bar: 0,
        table: 0x4000,
        pending: 0x5000,
    };
    const MESSAGE: MsiMessage = MsiMessage {
        address: 0x1_fee0_0000,
        data: 0x0001_4041,
    };

    fn function() -> (Type0, MsiX) {
        let mut header = Type0::new(Identity::default());
        header
            .add_bar(0, Bar::memory32(0x8000).expect("size"))
            .expect("free");
        let msix = MsiX::add_to(&mut header, LAYOUT).expect("room");
        (header, msix)
    }

    fn control(header: &mut Type0, msix: &MsiX, value: u16) {
        let _ = header.write(msix.offset + CONTROL, &value.to_le_bytes());
    }

    fn program(header: &Type0, msix: &mut MsiX, vector: u64, masked: bool) -> Vec<MsiMessage> {
        let mut entry = MESSAGE.address.to_le_bytes().to_vec();
        entry.extend(MESSAGE.data.to_le_bytes());
        entry.extend([u8::from(masked), 0xff, 0xff, 0xff]);
        msix.table_write(header, vector * 16, &entry)
    }

    fn live() -> (Type0, MsiX) {
        let (mut header, mut msix) = function();
        control(&mut header, &msix, ENABLE);
        let _ = header.write(spec::COMMAND, &spec::COMMAND_BUS_MASTER.to_le_bytes());
        assert_eq!(program(&header, &mut msix, 1, false), []);
        (header, msix)
    }

    fn pending(msix: &MsiX) -> u8 {
        let mut byte = [0];
        msix.pending_read(0, &mut byte);
        byte[0]
    }

    #[test]
    fn the_capability_says_where_two_vectors_are() {
        let (mut header, msix) = function();
        let at = u16::from(header.u8_at(spec::CAPABILITIES_POINTER));
        assert_eq!(header.u32_at(at), 0x0001_0011);
        assert_eq!(header.u32_at(at + 4), 0x4000);
        assert_eq!(header.u32_at(at + 8), 0x5000);
        control(&mut header, &msix, 0xffff);
        assert_eq!(header.u16_at(at + 2), 0xc001, "the size is read-only");
        let _ = header.write(at + 4, &[0xff; 8]);
        assert_eq!(header.u32_at(at + 4), 0x4000);
        assert_eq!(msix.vectors(), 2);
    }

    #[test]
    fn a_layout_that_does_not_fit_is_refused() {
        let bad = [
            MsixLayout {
                vectors: 0,
                ..LAYOUT
            },
            MsixLayout { bar: 1, ..LAYOUT },
            MsixLayout {
                pending: 0x4010,
                ..LAYOUT
            },
            MsixLayout {
                table: 0x7ff0,
                ..LAYOUT
            },
            MsixLayout {
                table: 0x4004,
                ..LAYOUT
            },
            MsixLayout {
                vectors: 2049,
                table: 0,
                pending: 0,
                ..LAYOUT
            },
        ];
        for layout in bad {
            let (mut header, _) = function();
            assert_eq!(
                MsiX::add_to(&mut header, layout).err(),
                Some(LayoutError::MsixLayout(layout))
            );
        }
    }

    #[test]
    fn an_entry_reads_back_what_can_be_written() {
        let (header, mut msix) = function();
        let mut entry = [0; 16];
        msix.table_read(16, &mut entry);
        assert_eq!(entry[12..], [1, 0, 0, 0], "masked after reset");
        assert_eq!(msix.table_write(&header, 16, &[0xff; 16]), []);
        msix.table_read(16, &mut entry);
        assert_eq!(entry, ENTRY_WRITABLE);
        let mut beyond = [0xaa; 4];
        msix.table_read(32, &mut beyond);
        assert_eq!(beyond, [0; 4]);
        assert_eq!(msix.table_write(&header, u64::MAX - 1, &[1; 2]), []);
        msix.reset();
        msix.table_read(16, &mut entry);
        assert_eq!(entry, Entry::RESET.bytes);
    }

    #[test]
    fn an_unmasked_vector_is_sent_at_once() {
        let (mut header, mut msix) = live();
        assert_eq!(msix.signal(&header, 1), Some(MESSAGE));
        assert_eq!(pending(&msix), 0);
        assert_eq!(msix.signal(&header, 2), None, "no such vector");
        control(&mut header, &msix, 0);
        assert_eq!(msix.signal(&header, 1), None);
        assert_eq!(pending(&msix), 0, "disabled: not even pending");
    }

    #[test]
    fn a_masked_vector_pends_and_fires_on_unmask() {
        let (header, mut msix) = live();
        assert_eq!(program(&header, &mut msix, 1, true), []);
        assert_eq!(msix.signal(&header, 1), None);
        assert_eq!(msix.signal(&header, 1), None);
        assert_eq!(pending(&msix), 0b10);
        assert_eq!(program(&header, &mut msix, 0, false), [], "another vector");
        assert_eq!(
            msix.table_write(&header, 16 + 12, &[0; 4]),
            [MESSAGE],
            "once, however often it was wanted"
        );
        assert_eq!(pending(&msix), 0);
        assert_eq!(msix.table_write(&header, 16 + 12, &[0; 4]), []);
    }

    #[test]
    fn the_function_mask_and_the_bus_master_bit_hold_messages_back() {
        let (mut header, mut msix) = live();
        control(&mut header, &msix, ENABLE | FUNCTION_MASK);
        assert_eq!(msix.header_written(&header), []);
        assert_eq!(msix.signal(&header, 1), None);
        let _ = header.write(spec::COMMAND, &[0, 0]);
        control(&mut header, &msix, ENABLE);
        assert_eq!(msix.header_written(&header), [], "no bus master");
        let _ = header.write(spec::COMMAND, &spec::COMMAND_BUS_MASTER.to_le_bytes());
        assert_eq!(msix.header_written(&header), [MESSAGE]);
        control(&mut header, &msix, ENABLE | FUNCTION_MASK);
        assert_eq!(msix.signal(&header, 1), None);
        control(&mut header, &msix, 0);
        assert_eq!(msix.header_written(&header), []);
        assert_eq!(pending(&msix), 0, "forgotten with MSI-X disabled");
    }

    #[test]
    fn pending_bits_of_many_vectors_are_found_in_their_bytes() {
        let (mut header, _) = function();
        let layout = MsixLayout {
            vectors: 70,
            table: 0,
            ..LAYOUT
        };
        assert_eq!((layout.table_bytes(), layout.pending_bytes()), (1120, 16));
        let mut msix = MsiX::add_to(&mut header, layout).expect("room");
        control(&mut header, &msix, ENABLE);
        assert_eq!(msix.signal(&header, 69), None);
        assert_eq!(msix.signal(&header, 3), None);
        let mut bits = [0; 18];
        msix.pending_read(0, &mut bits);
        let mut expected = [0; 18];
        (expected[0], expected[8]) = (1 << 3, 1 << 5);
        assert_eq!(bits, expected);
        msix.pending_read(u64::MAX - 20, &mut bits);
        assert_eq!(bits, [0; 18]);
    }
}
