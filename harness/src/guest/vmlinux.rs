// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Takes the kernel proper (an ELF file) out of a bzImage: a machine that can start it boots seconds sooner where the
//! CPU is emulated, since the bzImage unpacks itself there.
//!
//! Source of the offsets: Linux' documentation "The Linux/x86 Boot Protocol" (2.08 and later).

use std::io::Read;

/// Number of 512-byte set-up sectors behind the first; 0 means 4.
const SETUP_SECTS: usize = 0x1f1;
/// "HdrS".
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
/// Where the compressed kernel lies, from the start of the protected-mode code; 32 bits each.
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// The ELF file in `bzimage`; None if it is no bzImage or packed in a way not known here (xz, gzip and zstd are).
#[must_use]
pub fn from_bzimage(bzimage: &[u8]) -> Option<Vec<u8>> {
    let payload = payload(bzimage)?;
    let mut elf = Vec::new();
    // A reader may find fault with what follows the kernel (its length); what matters is that the ELF file is whole.
    let _ = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            lzma_rust2::XzReader::new(payload, false).read_to_end(&mut elf)
        }
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(payload).read_to_end(&mut elf),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ruzstd::decoding::StreamingDecoder::new(payload)
            .ok()?
            .read_to_end(&mut elf),
        _ => return None,
    };
    (elf.starts_with(ELF_MAGIC) && elf.len() == unpacked_length(payload)?).then_some(elf)
}

fn payload(bzimage: &[u8]) -> Option<&[u8]> {
    if bzimage.get(MAGIC..MAGIC + 4)? != b"HdrS" || word(bzimage, VERSION)? < 0x0208 {
        return None;
    }
    let sectors = match *bzimage.get(SETUP_SECTS)? {
        0 => 4,
        count => usize::from(count),
    };
    let start = (sectors + 1) * SECTOR;
    let start = start.checked_add(double_word(bzimage, PAYLOAD_OFFSET)?)?;
    let end = start.checked_add(double_word(bzimage, PAYLOAD_LENGTH)?)?;
    bzimage.get(start..end)
}

/// The kernel's build puts the unpacked length behind every payload (little endian).
fn unpacked_length(payload: &[u8]) -> Option<usize> {
    double_word(payload, payload.len().checked_sub(4)?)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn double_word(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR];
        image[SETUP_SECTS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).expect("small");
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend([0; 16]);
        image.extend(payload);
        image.extend(b"behind the payload");
        image
    }

    fn gzipped(elf: &[u8], length: usize) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(elf).expect("in memory");
        let mut payload = encoder.finish().expect("in memory");
        // gzip's own trailer ends with the length already; the kernel's build relies on that.
        let at = payload.len() - 4;
        payload[at..].copy_from_slice(&u32::try_from(length).expect("small").to_le_bytes());
        payload
    }

    #[test]
    fn the_kernel_comes_out_whole_or_not_at_all() {
        let elf = [ELF_MAGIC, &[7; 5000]].concat();
        let whole = bzimage(&gzipped(&elf, elf.len()));
        assert_eq!(from_bzimage(&whole), Some(elf.clone()));
        assert_eq!(from_bzimage(&bzimage(&gzipped(&elf, 17))), None);
        assert_eq!(from_bzimage(&bzimage(b"\x04\x22\x4d\x18 lz4")), None);
        for end in [0, 0x1f0, 0x204, 600, 1030, whole.len() - 40] {
            assert_eq!(from_bzimage(&whole[..end]), None, "cut at {end}");
        }
    }
}
