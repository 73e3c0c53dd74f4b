// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A value stored without padding: a host keeps thousands of watchdogs, each for as long as its machine runs.

/// A value at any address. An `Option` of it, or a flag beside it, takes a byte more and not eight.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(Rust, packed)]
pub(crate) struct Packed<T: Copy>(T);

impl<T: Copy> Packed<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }

    pub(crate) const fn get(self) -> T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Packed;

    #[test]
    fn a_flag_takes_one_byte_more() {
        assert_eq!(size_of::<Option<Packed<u64>>>(), 9);
        assert_eq!(Packed::new(7_u64).get(), 7);
    }
}
