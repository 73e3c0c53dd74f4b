// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel images made of nothing but their headers and a recognisable filling.

/// A bzImage; the fields are the setup header's.
#[derive(Clone, Copy, Debug)]
pub(super) struct BzImage {
    pub setup_sects: u8,
    pub protocol: u16,
    pub loadflags: u8,
    pub xloadflags: u16,
    pub cmdline_size: u32,
    pub initrd_addr_max: u32,
    pub pref_address: u64,
    pub init_size: u32,
    /// Bytes of protected-mode code, a multiple of 16.
    pub payload: usize,
}

impl Default for BzImage {
    fn default() -> Self {
        Self {
            setup_sects: 3,
            protocol: 0x020f,
            loadflags: 1,
            xloadflags: 1,
            cmdline_size: 2047,
            initrd_addr_max: 0x7fff_ffff,
            pref_address: 0x100_0000,
            init_size: 0x200_0000,
            payload: 0x3000,
        }
    }
}

impl BzImage {
    /// The protected-mode code that [`Self::build`] puts in.
    pub(super) fn code(&self) -> Vec<u8> {
        (0..self.payload)
            .map(|index| index.to_le_bytes()[0] ^ 0x5a)
            .collect()
    }

    pub(super) fn build(&self) -> Vec<u8> {
        self.around(&self.code(), 0..0)
    }

    /// One that packs `payload`.
    pub(super) fn packing(&self, payload: &[u8]) -> Vec<u8> {
        let mut code = [&[0xf4; Self::UNPACKER], payload].concat();
        let payload = Self::UNPACKER..code.len();
        code.resize(code.len().next_multiple_of(16), 0);
        self.around(&code, payload)
    }

    /// Bytes of code before what is packed.
    const UNPACKER: usize = 48;

    fn around(&self, code: &[u8], payload: std::ops::Range<usize>) -> Vec<u8> {
        let mut image = vec![0; (usize::from(self.setup_sects) + 1) * 512];
        let mut put = |offset: usize, bytes: &[u8]| {
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        let small = |number: usize| u32::try_from(number).expect("a small payload");
        let paragraphs = small(code.len() / 16);
        put(0x248, &small(payload.start).to_le_bytes());
        put(0x24c, &small(payload.len()).to_le_bytes());
        put(0x1f1, &[self.setup_sects]);
        put(0x1f4, &paragraphs.to_le_bytes());
        put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
        put(0x202, b"HdrS");
        put(0x206, &self.protocol.to_le_bytes());
        put(0x211, &[self.loadflags]);
        put(0x214, &0x10_0000u32.to_le_bytes());
        put(0x22c, &self.initrd_addr_max.to_le_bytes());
        put(0x230, &0x20_0000u32.to_le_bytes());
        put(0x234, &[1, 21]);
        put(0x236, &self.xloadflags.to_le_bytes());
        put(0x238, &self.cmdline_size.to_le_bytes());
        put(0x258, &self.pref_address.to_le_bytes());
        put(0x260, &self.init_size.to_le_bytes());
        image.extend(code);
        image
    }
}

/// An ELF file with one loaded segment, and a note segment if it has a PVH entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elf {
    pub class: u8,
    pub order: u8,
    pub kind: u16,
    pub machine: u16,
    pub entry: u64,
    pub physical: u64,
    pub memory_bytes: u64,
    pub pvh_entry: Option<u32>,
}

impl Default for Elf {
    fn default() -> Self {
        Self {
            class: 2,
            order: 1,
            kind: 2,
            machine: 62,
            entry: 0x100_0010,
            physical: 0x100_0000,
            memory_bytes: 0x8000,
            pvh_entry: None,
        }
    }
}

impl Elf {
    /// What the loaded segment is filled with.
    pub(super) const CODE: [u8; 0x100] = [0xc3; 0x100];
    const CODE_OFFSET: u16 = 0x200;
    const NOTE_OFFSET: u16 = 0x400;

    pub(super) fn build(&self) -> Vec<u8> {
        let segments = 1 + u16::from(self.pvh_entry.is_some());
        let mut image = vec![0x7f, b'E', b'L', b'F', self.class, self.order, 1];
        image.resize(16, 0);
        image.extend(self.kind.to_le_bytes());
        image.extend(self.machine.to_le_bytes());
        image.extend(1u32.to_le_bytes());
        image.extend(self.entry.to_le_bytes());
        image.extend(64u64.to_le_bytes());
        image.extend([0; 12]);
        for number in [64, 56, segments, 0, 0, 0] {
            image.extend(number.to_le_bytes());
        }
        let code_bytes = Self::CODE.len() as u64;
        let virtual_address = 0xffff_ffff_8000_0000 + self.physical;
        image.extend(segment(
            1,
            Self::CODE_OFFSET.into(),
            virtual_address,
            self.physical,
            [code_bytes, self.memory_bytes],
        ));
        let note = self.pvh_entry.map(note).unwrap_or_default();
        if self.pvh_entry.is_some() {
            let length = note.len() as u64;
            image.extend(segment(4, Self::NOTE_OFFSET.into(), 0, 0, [length, length]));
        }
        image.resize(Self::CODE_OFFSET.into(), 0);
        image.extend(Self::CODE);
        image.resize(Self::NOTE_OFFSET.into(), 0);
        image.extend(note);
        image
    }
}

fn segment(kind: u32, offset: u64, virtual_: u64, physical: u64, sizes: [u64; 2]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), 7u32.to_le_bytes()].concat();
    for number in [offset, virtual_, physical, sizes[0], sizes[1], 8] {
        bytes.extend(number.to_le_bytes());
    }
    bytes
}

/// Another producer's note, then `XEN_ELFNOTE_PHYS32_ENTRY`.
fn note(entry: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, value) in [(b"GNU\0", 3u32, 0x1234_5678), (b"Xen\0", 18, entry)] {
        for number in [4, 4, kind] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(name);
        bytes.extend(u32::to_le_bytes(value));
    }
    bytes
}
