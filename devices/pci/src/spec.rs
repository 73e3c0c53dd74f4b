// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Register facts of conventional PCI: offsets, bits and ports, each stated once.
//!
//! Source, unless said otherwise: PCI Local Bus Specification 3.0, chapter 6 (configuration space) and
//! section 3.2.2.3.2 (configuration mechanism #1).

/// Bytes of configuration space per function that mechanism #1 reaches.
pub const CONFIG_SPACE_SIZE: usize = 256;
/// Value of each byte read where no function answers (master abort).
pub const UNCLAIMED: u8 = 0xff;

/// Vendor ID, 16 bits, read-only.
pub const VENDOR_ID: u16 = 0x00;
/// Device ID, 16 bits, read-only.
pub const DEVICE_ID: u16 = 0x02;
/// Command register, 16 bits.
pub const COMMAND: u16 = 0x04;
/// Status register, 16 bits.
pub const STATUS: u16 = 0x06;
/// Revision ID, 8 bits, read-only.
pub const REVISION_ID: u16 = 0x08;
/// Programming interface, first of the three class code bytes, read-only.
pub const CLASS_CODE: u16 = 0x09;
/// Cache line size, 8 bits: scratch for a function that issues no memory-write-and-invalidate.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// Header type, 8 bits, read-only: layout in bits 6:0, [`HEADER_MULTIFUNCTION`] in bit 7.
pub const HEADER_TYPE: u16 = 0x0e;
/// First base address register, 32 bits; five more follow.
pub const BAR0: u16 = 0x10;
/// Base address registers of a type-0 header.
pub const BAR_COUNT: usize = 6;
/// Subsystem vendor ID, 16 bits, read-only.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Subsystem ID, 16 bits, read-only.
pub const SUBSYSTEM_ID: u16 = 0x2e;
/// Offset of the first capability, 8 bits, read-only.
pub const CAPABILITIES_POINTER: u16 = 0x34;
/// Interrupt line, 8 bits: scratch for firmware and operating system.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt pin, 8 bits, read-only: 0 none, 1..=4 INTA#..INTD#.
pub const INTERRUPT_PIN: u16 = 0x3d;
/// First byte after the header: capabilities and device-specific registers.
pub const HEADER_END: u16 = 0x40;

/// Header type bit 7: the device has functions beside function 0.
pub const HEADER_MULTIFUNCTION: u8 = 0x80;

/// Command bit 0: I/O BARs are decoded.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command bit 1: memory BARs are decoded.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command bit 2: the function may read and write memory (and send MSIs).
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command bit 6: parity error response.
pub const COMMAND_PARITY: u16 = 1 << 6;
/// Command bit 8: SERR# enable.
pub const COMMAND_SERR: u16 = 1 << 8;
/// Command bit 10: the function may not assert its INTx# line.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Command bits a guest can change; every other bit reads zero.
pub const COMMAND_WRITABLE: u16 = COMMAND_IO
    | COMMAND_MEMORY
    | COMMAND_BUS_MASTER
    | COMMAND_PARITY
    | COMMAND_SERR
    | COMMAND_INTX_DISABLE;

/// Status bit 3: the function wants its INTx# line asserted, whatever INTx disable says.
pub const STATUS_INTERRUPT: u16 = 1 << 3;
/// Status bit 4: a capability list starts at [`CAPABILITIES_POINTER`].
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// BAR bit 0: I/O space.
pub const BAR_IO: u32 = 1 << 0;
/// BAR bits 2:1 = 10: memory anywhere in 64 bits, the next BAR is the upper half.
pub const BAR_MEMORY_64: u32 = 1 << 2;
/// BAR bit 3: reads have no side effect, writes may be merged.
pub const BAR_PREFETCHABLE: u32 = 1 << 3;

/// CONFIG_ADDRESS, 32 bits, and the first port of mechanism #1.
pub const PORT_CONFIG_ADDRESS: u16 = 0xcf8;
/// Reset control register, 8 bits, inside CONFIG_ADDRESS' ports (Intel ICH datasheets, RST_CNT).
pub const PORT_RESET_CONTROL: u16 = 0xcf9;
/// CONFIG_DATA, 32 bits with byte lanes.
pub const PORT_CONFIG_DATA: u16 = 0xcfc;
/// Number of ports from [`PORT_CONFIG_ADDRESS`] on.
pub const PORT_COUNT: u16 = 8;

/// CONFIG_ADDRESS bit 31: CONFIG_DATA reaches configuration space.
pub const ADDRESS_ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS bits 30:24, reserved. AMD processors extend the register number with bits 27:24.
pub const ADDRESS_RESERVED: u32 = 0x7f00_0000;
/// CONFIG_ADDRESS bits 1:0 are hard-wired to zero.
pub const ADDRESS_KEPT: u32 = !0b11;

/// Reset control bit 1: a reset covers the platform (hard), not only the processors (soft).
pub const RESET_SYSTEM: u8 = 1 << 1;
/// Reset control bit 2: a change from 0 to 1 starts the reset.
pub const RESET_CPU: u8 = 1 << 2;
/// Reset control bit 3: a hard reset also cycles the power.
pub const RESET_FULL: u8 = 1 << 3;
/// Reset control bits that read back as written.
pub const RESET_WRITABLE: u8 = RESET_SYSTEM | RESET_CPU | RESET_FULL;
