// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! 256 bytes of registers, little-endian, in which no offset is out of bounds.

use crate::spec::CONFIG_SPACE_SIZE;

/// Bytes of one configuration space: values, or a mask over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegisterFile([u8; CONFIG_SPACE_SIZE]);

impl RegisterFile {
    pub(crate) const ZERO: Self = Self([0; CONFIG_SPACE_SIZE]);

    /// Bytes from `offset` on; bytes after the end read as `beyond`.
    pub(crate) fn read(&self, offset: u16, data: &mut [u8], beyond: u8) {
        let source = self.0.iter().copied().skip(offset.into());
        for (byte, value) in data.iter_mut().zip(source.chain(std::iter::repeat(beyond))) {
            *byte = value;
        }
    }

    fn array<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes, 0);
        bytes
    }

    pub(crate) fn u8(&self, offset: u16) -> u8 {
        u8::from_le_bytes(self.array(offset))
    }

    pub(crate) fn u16(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.array(offset))
    }

    pub(crate) fn u32(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    pub(crate) fn u64(&self, offset: u16) -> u64 {
        u64::from_le_bytes(self.array(offset))
    }

    /// Stores bytes; those after the end are dropped.
    pub(crate) fn put(&mut self, offset: u16, data: &[u8]) {
        for (byte, &value) in self.0.iter_mut().skip(offset.into()).zip(data) {
            *byte = value;
        }
    }

    /// Stores those bits of `data` that `mask` has.
    pub(crate) fn put_masked(&mut self, offset: u16, data: &[u8], mask: &Self) {
        let pairs = self.0.iter_mut().zip(&mask.0).skip(offset.into());
        for ((byte, &mask), &value) in pairs.zip(data) {
            *byte = (*byte & !mask) | (value & mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_respected() {
        let mut file = RegisterFile::ZERO;
        file.put(0xfe, &[1, 2, 3, 4]);
        let mut data = [9; 4];
        file.read(0xfe, &mut data, 0xff);
        assert_eq!(data, [1, 2, 0xff, 0xff]);
        file.read(u16::MAX, &mut data, 0xee);
        assert_eq!(data, [0xee; 4]);
        assert_eq!(file.u32(0xfe), 0x0201);
    }

    #[test]
    fn only_masked_bits_change() {
        let mut file = RegisterFile::ZERO;
        file.put(4, &[0xa5, 0xa5, 0xa5]);
        let mut mask = RegisterFile::ZERO;
        mask.put(4, &[0x00, 0x0f, 0xff]);
        file.put_masked(3, &[0x3c; 4], &mask);
        assert_eq!(file.u32(3), 0x3c_ac_a5_00);
    }
}
