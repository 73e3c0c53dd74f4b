// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A minimal KVM machine around the i6300esb watchdog.

pub mod boot;
pub mod config;
pub mod layout;
