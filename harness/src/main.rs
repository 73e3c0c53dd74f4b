// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The `kennel` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kennel::cli::main()
}
