// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
mod connection;
mod multiplexed;
mod peer;
mod session;
