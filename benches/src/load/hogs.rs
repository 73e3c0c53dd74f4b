// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whoever else wants the CPUs.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Threads that compute until this is dropped.
pub(crate) struct Hogs(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Hogs {
    pub(crate) fn start(count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let hog = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    spin_loop();
                }
            })
        };
        let hogs = (0..count).map(hog).collect();
        Self(stop, hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for hog in self.1.drain(..) {
            let _ended = hog.join();
        }
    }
}
