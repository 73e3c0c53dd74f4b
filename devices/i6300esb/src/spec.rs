// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The register vocabulary of the Intel 6300ESB watchdog: every offset, bit, reset value, unlock value and clock.
//!
//! Sources are named per item and never blended:
//!
//! * *datasheet*: Intel 6300ESB I/O Controller Hub Datasheet (300641-004), watchdog chapter, and the board manuals that restate it;
//! * *Linux*, *FreeBSD*, *OpenBSD*, *EFI Boot Guard*: what those drivers rely on;
//! * *QEMU behaviour*: what `hw/watchdog/wdt_i6300esb.c` does;
//! * *unconfirmed*: common knowledge about the part for which no page of the datasheet was at hand.

/// PCI vendor ID: Intel (datasheet).
pub const VENDOR_ID: u16 = 0x8086;
/// PCI device ID of the watchdog function (datasheet; `PCI_DEVICE_ID_INTEL_ESB_9` in Linux).
pub const DEVICE_ID: u16 = 0x25ab;
/// PCI class code, 24 bits: base class 08, subclass 80, interface 00, "other system peripheral" (datasheet).
pub const CLASS_CODE: u32 = 0x08_80_00;
/// Revision ID shown unless [`Config::revision`](crate::Config::revision) says otherwise (QEMU behaviour; real parts show 02, unconfirmed).
pub const DEFAULT_REVISION: u8 = 0x00;
/// Size in bytes of BAR 0: 32-bit memory, not prefetchable (datasheet).
pub const BAR_SIZE: u64 = 16;

/// First byte of PCI config space that belongs to the device itself and not to the generic header.
pub const CONFIG_FIRST: u16 = 0x60;
/// Last byte (inclusive) of PCI config space that belongs to the device itself.
pub const CONFIG_LAST: u16 = 0x6b;

/// WDT configuration register in PCI config space, 16 bits, R/W, reset 0000 (datasheet). Not covered by the lock.
pub const CONFIG_WDT: u16 = 0x60;
/// Live down-counter, 20 bits, read-only (undocumented; Linux 2.6 read it to tell the time left).
pub const CONFIG_COUNT: u16 = 0x64;
/// WDT lock register in PCI config space, 8 bits, R/W until locked, reset 00 (datasheet).
pub const CONFIG_LOCK: u16 = 0x68;

/// `CONFIG_WDT` bits 1:0: what the end of the first stage raises (datasheet; FreeBSD and OpenBSD headers).
pub const INT_TYPE_MASK: u16 = 0b11;
/// `CONFIG_WDT` bit 2: 0 = the clock is divided by 2^15 (about 1 kHz), 1 = by 2^5 (about 1 MHz) (datasheet).
pub const PRE_SEL: u16 = 1 << 2;
/// `CONFIG_WDT` bit 5: 1 = the WDT_TOUT# output is disabled, so that the second stage acts on nothing (datasheet).
pub const OUTPUT_DISABLE: u16 = 1 << 5;
/// All writable bits of `CONFIG_WDT`; the others are reserved and read 0.
pub const CONFIG_WDT_WRITABLE: u16 = INT_TYPE_MASK | PRE_SEL | OUTPUT_DISABLE;

/// `CONFIG_LOCK` bit 0: write 1 once; the register then ignores writes until a platform reset (datasheet; Linux `nowayout`).
pub const LOCK: u8 = 1 << 0;
/// `CONFIG_LOCK` bit 1: the counter runs (datasheet).
pub const ENABLE: u8 = 1 << 1;
/// `CONFIG_LOCK` bit 2 (WDT_TOUT_CNF): 0 = two-stage watchdog, 1 = free-running (datasheet).
pub const FREE_RUN: u8 = 1 << 2;
/// All writable bits of `CONFIG_LOCK`.
pub const CONFIG_LOCK_WRITABLE: u8 = LOCK | ENABLE | FREE_RUN;

/// BAR 0: preload value of the first stage, 20 bits, R/W after unlock (datasheet: TIMER1).
pub const PRELOAD1: u64 = 0x00;
/// BAR 0: preload value of the second stage, 20 bits, R/W after unlock (datasheet: TIMER2).
pub const PRELOAD2: u64 = 0x04;
/// BAR 0: general interrupt status; bit 0 is write-1-to-clear and needs no unlock (datasheet: GINTSR).
pub const GINTSR: u64 = 0x08;
/// BAR 0: unlock keys in the low byte, reload and timed-out bits in the next (datasheet: RELOAD).
pub const RELOAD: u64 = 0x0c;

/// Bits of a preload value that exist; the others read 0 (datasheet).
pub const PRELOAD_MASK: u32 = 0x000f_ffff;
/// Both preloads after reset (QEMU behaviour; unconfirmed for hardware).
pub const PRELOAD_RESET: u32 = 0x000f_ffff;
/// `GINTSR` bit 0: the first stage has ended; sticky (datasheet).
pub const INT_ACTIVE: u32 = 1 << 0;
/// `RELOAD` bit 8: writing 1 after unlock is a ping (datasheet).
pub const RELOAD_PING: u32 = 1 << 8;
/// `RELOAD` bit 9: the watchdog has timed out; write 1 after unlock to clear (datasheet).
pub const RELOAD_TIMEOUT: u32 = 1 << 9;
/// `RELOAD` bit 12: reserved, but Linux 2.6 wrote it meaning bit 9. Taken as a second way to clear the flag (QEMU behaviour).
pub const RELOAD_TIMEOUT_LINUX_2_6: u32 = 1 << 12;
/// First value of the unlock sequence, written to `RELOAD` (datasheet).
pub const UNLOCK_KEY1: u32 = 0x80;
/// Second value of the unlock sequence (datasheet).
pub const UNLOCK_KEY2: u32 = 0x86;

/// Power of two that divides the clock while `PRE_SEL` is 0 (datasheet: the preload sits in bits 34:15 of a 35-bit counter).
pub const DIVIDER_SHIFT_1KHZ: u32 = 15;
/// Power of two that divides the clock while `PRE_SEL` is 1 (datasheet: the preload sits in bits 24:5).
pub const DIVIDER_SHIFT_1MHZ: u32 = 5;
