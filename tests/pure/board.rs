// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The whole board, every device on its buses, without KVM: a guest's accesses come straight from
//! the test, VM time and the watchdog's timer are the real ones.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use i6300esb::{Bite, Event, VmInstant, spec};
use kennel_pci::HostBridge;
use kennel_vmm::board::Board;
use kennel_vmm::config::{AfterBite, WatchdogConfig};
use kennel_vmm::layout;
use kennel_vmm::mailbox::{Request, ResetCause};
use kennel_vmm::virtio_net::GUEST_MAC;
use kennel_vmm::watchdog::Watchdog;
use libtest_mimic::Trial;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::driver::{
    BAR0, COMMAND, Driver, Function, INTERRUPT_STATUS, MEMORY_ENABLE, STATUS, find_watchdog, ins,
    mmio_read, outs,
};
use crate::test;

/// What the driver itself writes to 0x60: no interrupt, about 1 kHz.
const LINUX_CONFIG: u16 = 0x0003;
/// About 1 MHz: 960 ns a tick, so that a bite takes milliseconds.
const FAST: u16 = LINUX_CONFIG | spec::PRE_SEL;
const FAST_TICK_NS: u64 = 960;
/// Ticks a stage: with [`FAST`] 0.96 ms.
const PRELOAD: u32 = 1000;
const STAGE_NS: u64 = PRELOAD as u64 * FAST_TICK_NS;
/// Ticks a stage of the driver's default of 30 s.
const LINUX_PRELOAD: u32 = 30 << 9;
/// Longer than any timer here, on any machine; in milliseconds.
const BOUND_MS: i32 = 60_000;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("board_bus_has_bridge_watchdog_and_console_alone", scan),
        test("board_without_a_watchdog_has_none", scan_without_watchdog),
        test("board_with_a_network_has_its_card", scan_with_network),
        test("board_bar_is_sized_moved_and_only_then_decoded", bar),
        test("board_linux_probe_and_keepalive", keepalive),
        test("board_linux_stop_and_nowayout", stop_and_lock),
        test("board_32_bit_accesses_drive_it_too", wide_accesses),
        test("board_bite_reaches_the_mailbox_through_the_timer", bite),
        test("board_ping_puts_the_armed_timer_off", ping_beats_the_timer),
        test("board_first_stage_interrupt_until_acknowledged", interrupt),
        test("board_frozen_time_neither_bites_nor_forgets", frozen),
        test("board_bite_policies_rearm_disarm_halt", after_bite),
        test("board_reset_disarms_unlocks_and_remembers_the_bite", reset),
        test("board_reset_keeps_a_late_bite_in_its_own_boot", late_bite),
        test("board_ports_reset_and_power_off", reset_ports),
        test("board_unclaimed_addresses_are_all_ones", unclaimed),
    ]
}

/// A board whose VM time runs.
fn board(after_bite: AfterBite) -> Board {
    let config = WatchdogConfig {
        after_bite,
        ..WatchdogConfig::default()
    };
    let board = Board::new(Some(&config), false, Box::new(std::io::sink())).expect("a board");
    board.clock.resume();
    board
}

fn watchdog(board: &Board) -> Arc<Watchdog> {
    board.watchdog.clone().expect("built with one")
}

/// Whether the watchdog's timer goes off within so many milliseconds.
fn goes_off(board: &Board, bound_ms: i32) -> bool {
    let watchdog = watchdog(board);
    let epoll = Epoll::new().expect("an epoll descriptor");
    let readable = EpollEvent::new(EventSet::IN, 0);
    epoll
        .ctl(ControlOperation::Add, watchdog.as_raw_fd(), readable)
        .expect("a timer can be waited for");
    let mut ready = [EpollEvent::default()];
    epoll.wait(bound_ms, &mut ready).expect("a wait") == 1
}

fn is_armed(board: &Board) -> bool {
    watchdog(board).status().armed
}

/// What the machine's event loop does when the timer is readable.
fn serve_timer(board: &Board) {
    assert!(goes_off(board, BOUND_MS), "the timer never went off");
    watchdog(board).timer_fired();
}

/// What the watchdog told since; nothing else asked for anything.
fn events(board: &Board) -> Vec<Event> {
    let requests = std::iter::from_fn(|| board.mailbox.take());
    let requests = requests.filter(|request| *request != Request::WatchdogChanged);
    let event = |request| match request {
        Request::Watchdog(event) => Some(event),
        _ => None,
    };
    let events: Option<_> = requests.map(event).collect();
    events.expect("no request but the watchdog's")
}

/// Serves the timer until the watchdog bites; gives what else happened before.
fn wait_for_bite(board: &Board) -> (Vec<Event>, Bite, VmInstant) {
    let mut before = vec![];
    loop {
        serve_timer(board);
        for event in events(board) {
            match event {
                Event::Bite(bite) => return (before, bite, board.clock.now()),
                other => before.push(other),
            }
        }
    }
}

fn found(board: &Board) -> Vec<(u8, u8, u16, u16)> {
    let mut found = vec![];
    for device in 0..layout::PCI_SLOTS {
        for function in 0..8 {
            if let Some((vendor, id)) = Function::new(&board.bus, device, function).identity() {
                found.push((device, function, vendor, id));
            }
        }
    }
    found
}

const BRIDGE: (u8, u8, u16, u16) = (
    layout::HOST_BRIDGE_SLOT,
    0,
    HostBridge::IDENTITY.vendor,
    HostBridge::IDENTITY.device,
);

/// Virtio's vendor, and a console of the modern interface.
const CONSOLE: (u8, u8, u16, u16) = (layout::CONSOLE_SLOT, 0, 0x1af4, 0x1043);

fn scan() {
    let board = board(AfterBite::Rearm);
    let esb = (layout::WATCHDOG_SLOT, 0, 0x8086, 0x25ab);
    assert_eq!(found(&board), [BRIDGE, esb, CONSOLE]);
    let function = find_watchdog(&board.bus);
    assert_eq!(function.read::<u32>(0x08) >> 8, 0x08_80_00, "class");
    assert_eq!(
        function.read::<u8>(0x0e),
        0,
        "a type-0 header, one function"
    );
    assert_eq!(function.read::<u8>(0x3d), 1, "INTA#");
    assert_eq!(
        u32::from(function.read::<u8>(0x3c)),
        layout::pci_intx_gsi(layout::WATCHDOG_SLOT, 0)
    );
}

fn scan_without_watchdog() {
    let board = Board::new(None, false, Box::new(std::io::sink())).expect("a board");
    assert_eq!(found(&board), [BRIDGE, CONSOLE]);
    assert!(board.watchdog.is_none());
    let unclaimed: u32 = mmio_read(&board.bus, layout::WATCHDOG_BAR.into());
    assert_eq!(unclaimed, u32::MAX);
}

fn scan_with_network() {
    let board = Board::new(None, true, Box::new(std::io::sink())).expect("a board");
    let card = (layout::NET_SLOT, 0, 0x1af4, 0x1041);
    assert_eq!(found(&board), [BRIDGE, CONSOLE, card]);
    let function = Function::new(&board.bus, layout::NET_SLOT, 0);
    assert_eq!(function.read::<u32>(0x08) >> 8, 0x02_00_00, "class");
    assert_eq!(function.read::<u32>(BAR0), layout::NET_BAR);
    function.enable_memory();
    let device_config = u64::from(layout::NET_BAR) + 0x2000;
    let mac = GUEST_MAC.map(u64::from);
    for (offset, expected) in (device_config..).zip(mac) {
        assert_eq!(u64::from(mmio_read::<u8>(&board.bus, offset)), expected);
    }
}

fn bar() {
    const ELSEWHERE: u32 = 0xd000_0000;
    let board = board(AfterBite::Rearm);
    let function = find_watchdog(&board.bus);
    let preload = |place: u32| mmio_read::<u32>(&board.bus, place.into());

    assert_eq!(function.size_bar0(), 0xffff_fff0, "16 bytes of memory");
    assert_eq!(function.read::<u32>(BAR0), layout::WATCHDOG_BAR);
    assert_eq!(function.read::<u16>(COMMAND) & MEMORY_ENABLE, 0);
    assert_eq!(preload(layout::WATCHDOG_BAR), u32::MAX, "not decoded yet");

    function.enable_memory();
    assert_eq!(preload(layout::WATCHDOG_BAR), spec::PRELOAD_RESET);
    assert_eq!(function.size_bar0(), 0xffff_fff0);
    assert_eq!(preload(layout::WATCHDOG_BAR), spec::PRELOAD_RESET);

    function.write(BAR0, ELSEWHERE);
    assert_eq!(preload(layout::WATCHDOG_BAR), u32::MAX);
    assert_eq!(preload(ELSEWHERE), spec::PRELOAD_RESET);
    assert_eq!(preload(ELSEWHERE + 0x10), u32::MAX, "behind its 16 bytes");
    function.write(COMMAND, 0_u16);
    assert_eq!(preload(ELSEWHERE), u32::MAX, "memory disabled");
}

fn keepalive() {
    let board = board(AfterBite::Rearm);
    let driver = Driver::probe(&board.bus, LINUX_CONFIG, LINUX_PRELOAD);
    assert!(!driver.card_reset, "the first boot has no past");
    assert_eq!(driver.base, u64::from(layout::WATCHDOG_BAR));
    assert_eq!(driver.read::<u32>(spec::PRELOAD1), LINUX_PRELOAD);
    assert_eq!(driver.read::<u32>(spec::PRELOAD2), LINUX_PRELOAD);
    assert!(!is_armed(&board), "the probe starts nothing");
    assert_eq!(events(&board), []);

    driver.start(false);
    assert_eq!(events(&board), [Event::Armed]);
    for _ in 0..1000 {
        driver.ping();
    }
    let device = watchdog(&board);
    let status = device.status();
    assert!(status.armed && !status.locked && !status.timed_out);
    assert_eq!(status.pings, 1000);
    assert_eq!(status.ignored_writes, 0, "the driver wastes no write");
    // 30 s are 15,360 ticks of 983,040 ns, twice.
    assert_eq!(status.timeout_ns, 30_198_988_800);
    assert_eq!(status.bites, 0);
    assert_eq!(events(&board), []);

    driver.set_preloads(60 << 9);
    assert_eq!(device.status().timeout_ns, 60_397_977_600);
}

fn stop_and_lock() {
    let board = board(AfterBite::Rearm);
    let driver = Driver::probe(&board.bus, LINUX_CONFIG, LINUX_PRELOAD);
    driver.start(false);
    assert!(driver.stop());
    assert_eq!(events(&board), [Event::Armed, Event::Disarmed]);
    assert_eq!(watchdog(&board).status().time_left_ns, None);

    let driver = Driver::probe(&board.bus, FAST, PRELOAD);
    driver.start(true);
    assert!(!driver.stop(), "nowayout");
    let lock: u8 = driver.function.read(spec::CONFIG_LOCK);
    assert_eq!(lock, spec::LOCK | spec::ENABLE);
    let (before, _, _) = wait_for_bite(&board);
    assert!(before.contains(&Event::Locked), "{before:?}");
    assert!(!before.contains(&Event::Disarmed), "{before:?}");
}

/// 32 bits everywhere, as OpenBSD and EFI Boot Guard do.
fn wide_accesses() {
    let board = board(AfterBite::Rearm);
    let driver = Driver::attach(&board.bus);
    let function = driver.function;
    let unlock = || {
        driver.write(spec::RELOAD, 0x80_u32);
        driver.write(spec::RELOAD, 0x86_u32);
    };
    function.write(spec::CONFIG_WDT, u32::from(FAST));
    for register in [spec::PRELOAD1, spec::PRELOAD2] {
        unlock();
        driver.write(register, PRELOAD);
    }
    function.write(spec::CONFIG_LOCK, u32::from(spec::ENABLE));
    assert_eq!(events(&board), [Event::Armed]);
    unlock();
    driver.write(spec::RELOAD, spec::RELOAD_PING);
    assert_eq!(watchdog(&board).status().pings, 1);
    wait_for_bite(&board);
    assert_eq!(driver.read::<u32>(spec::RELOAD), spec::RELOAD_TIMEOUT);
    assert_eq!(
        function.read::<u32>(spec::CONFIG_LOCK),
        u32::from(spec::ENABLE)
    );
}

fn bite() {
    let board = board(AfterBite::Rearm);
    let driver = Driver::probe(&board.bus, FAST, PRELOAD);
    driver.start(false);
    let (before, bite, now) = wait_for_bite(&board);
    assert_eq!(before.first(), Some(&Event::Armed));
    assert_eq!(bite.armed_to_due_ns, 2 * STAGE_NS, "two stages, exactly");
    assert_eq!(bite.timeout_ns, 2 * STAGE_NS);
    assert_eq!(bite.ping_to_due_ns, None);
    assert!(now >= bite.due, "never early");
    let flag = u32::from(driver.read::<u16>(spec::RELOAD)) & spec::RELOAD_TIMEOUT;
    assert_ne!(flag, 0, "the guest can read that it was bitten");
}

fn ping_beats_the_timer() {
    let board = board(AfterBite::Rearm);
    let driver = Driver::probe(&board.bus, FAST, PRELOAD);
    driver.start(false);
    let started = board.clock.now();
    // Far beyond one timeout, with a timer that is served as it goes off.
    while board.clock.now().nanos_since(started) < 10 * STAGE_NS {
        driver.ping();
        if goes_off(&board, 0) {
            serve_timer(&board);
        }
    }
    driver.ping();
    let last_ping = board.clock.now();
    let device = watchdog(&board);
    // A test thread that lost the CPU for a whole timeout may have been bitten, and rightly.
    let pinged = device.status().pings;
    assert!(pinged >= 2, "{pinged}");
    let bites_before = device.status().bites;
    let reported = events(&board);
    let told = reported
        .iter()
        .filter(|event| matches!(event, Event::Bite(_)));
    assert!(told.count() as u64 <= bites_before, "{reported:?}");
    let (_, bite, _) = wait_for_bite(&board);
    if bites_before == 0 {
        let ping_to_due = bite.ping_to_due_ns.expect("there were pings");
        assert_eq!(ping_to_due, 2 * STAGE_NS, "the last ping counts");
        assert!(bite.due <= last_ping.saturating_add(2 * STAGE_NS));
    }
}

fn interrupt() {
    let board = board(AfterBite::Rearm);
    // Interrupt type 0: the end of stage 1 raises the pin. Stage 2 is a second long.
    let driver = Driver::probe(&board.bus, spec::PRE_SEL, PRELOAD);
    driver.write(spec::RELOAD, 0x80_u16);
    driver.write(spec::RELOAD, 0x86_u16);
    driver.write(spec::PRELOAD2, spec::PRELOAD_MASK);
    let pending = || driver.function.read::<u16>(STATUS) & INTERRUPT_STATUS != 0;
    assert!(!pending());
    driver.start(false);
    let end_of_stage_1 = |board: &Board| {
        serve_timer(board);
        let happened = events(board);
        happened
            .iter()
            .any(|event| matches!(event, Event::FirstStage(_)))
    };
    while !end_of_stage_1(&board) {}
    assert!(pending(), "the function says it interrupts");
    assert_eq!(driver.read::<u32>(spec::GINTSR), spec::INT_ACTIVE);
    driver.ping();
    assert!(pending(), "a ping is no acknowledgement");
    assert!(driver.stop());
    driver.write(spec::GINTSR, spec::INT_ACTIVE);
    assert!(!pending());
    assert_eq!(driver.read::<u32>(spec::GINTSR), 0);
}

fn frozen() {
    let board = board(AfterBite::Rearm);
    let driver = Driver::probe(&board.bus, FAST, PRELOAD);
    let device = watchdog(&board);
    board.clock.freeze();
    device.follow_clock();
    driver.start(false);
    assert_eq!(device.status().time_left_ns, Some(2 * STAGE_NS));
    // Host time passes: ten times what a bite would take.
    assert!(!goes_off(&board, 20));
    assert_eq!(device.status().time_left_ns, Some(2 * STAGE_NS));
    assert_eq!(events(&board), [Event::Armed]);
    board.clock.resume();
    device.follow_clock();
    let (_, bite, _) = wait_for_bite(&board);
    assert_eq!(bite.armed_to_due_ns, 2 * STAGE_NS, "in VM time");
}

fn after_bite() {
    for (policy, armed, enabled, events_after) in [
        (AfterBite::Rearm, true, spec::ENABLE, &[][..]),
        (AfterBite::Disarm, false, 0, &[Event::Disarmed][..]),
        (AfterBite::Halt, true, spec::ENABLE, &[][..]),
    ] {
        let board = board(policy);
        let driver = Driver::probe(&board.bus, FAST, PRELOAD);
        driver.start(false);
        loop {
            serve_timer(&board);
            let seen = events(&board);
            if let Some(at) = seen
                .iter()
                .position(|event| matches!(event, Event::Bite(_)))
            {
                assert_eq!(&seen[at + 1..], events_after, "{policy:?}");
                break;
            }
        }
        let lock: u8 = driver.function.read(spec::CONFIG_LOCK);
        assert_eq!(lock, enabled, "{policy:?}");
        assert_eq!(is_armed(&board), armed, "{policy:?}");
        let status = watchdog(&board).status();
        let counts = status.stage.is_some();
        assert_eq!(counts, policy == AfterBite::Rearm, "{policy:?}");
    }
}

fn reset() {
    const ELSEWHERE: u32 = 0xd000_0000;
    let board = board(AfterBite::Rearm);
    let driver = Driver::probe(&board.bus, FAST, PRELOAD);
    driver.start(true);
    wait_for_bite(&board);
    driver.function.write(BAR0, ELSEWHERE);

    // What the machine does, its vCPUs ended.
    board.reset();
    board.mailbox.next_boot();

    let device = watchdog(&board);
    let status = device.status();
    assert!(!status.armed && !status.locked, "{status:?}");
    assert_eq!(status.time_left_ns, None);
    assert!(!goes_off(&board, 0), "timer disarmed");
    for place in [ELSEWHERE, layout::WATCHDOG_BAR] {
        let value: u32 = mmio_read(&board.bus, place.into());
        assert_eq!(value, u32::MAX, "{place:#x} is not decoded");
    }
    let latch: u32 = ins(&board.bus, layout::PCI_CONFIG_ADDRESS_PORT);
    assert_eq!(latch, 0, "no register is selected");
    assert_eq!(driver.function.read::<u32>(BAR0), layout::WATCHDOG_BAR);
    assert_eq!(driver.function.read::<u16>(spec::CONFIG_WDT), 0);

    let second_boot = Driver::probe(&board.bus, LINUX_CONFIG, LINUX_PRELOAD);
    assert!(second_boot.card_reset, "the bite is remembered");
    board.reset();
    let third_boot = Driver::probe(&board.bus, LINUX_CONFIG, LINUX_PRELOAD);
    assert!(!third_boot.card_reset, "and only once");
}

/// A deadline that passes between the reset's request and the reset itself is the old boot's.
fn late_bite() {
    let board = board(AfterBite::Rearm);
    Driver::probe(&board.bus, FAST, PRELOAD).start(false);
    while board.mailbox.take().is_some() {}
    // Both stages are over, and nobody serves the timer.
    assert!(goes_off(&board, BOUND_MS));
    let device = watchdog(&board);
    let bound = board.clock.now().saturating_add(60_000_000_000);
    while device.status().bites == 0 {
        assert!(board.clock.now() < bound, "it never bit");
    }
    board.reset();
    board.mailbox.next_boot();
    assert_eq!(board.mailbox.take(), None);
}

fn reset_ports() {
    let asks = |write: &dyn Fn(&Board)| {
        let board = board(AfterBite::Rearm);
        write(&board);
        let asked: Vec<_> = std::iter::from_fn(|| board.mailbox.take()).collect();
        assert_eq!(board.mailbox.boot_is_over(), !asked.is_empty());
        asked
    };
    let cf9 = |value: u8| move |board: &Board| outs(&board.bus, layout::RESET_PORT, value);
    assert_eq!(asks(&cf9(0x02)), [], "only says which kind");
    assert_eq!(
        asks(&cf9(layout::RESET_VALUE)),
        [Request::Reset(ResetCause::ResetControl)]
    );
    let i8042 =
        |value: u8| move |board: &Board| outs(&board.bus, layout::I8042_COMMAND_PORT, value);
    assert_eq!(asks(&i8042(0x20)), []);
    assert_eq!(
        asks(&i8042(0xfe)),
        [Request::Reset(ResetCause::KeyboardController)]
    );
    let pm1 = |value: u16| move |board: &Board| outs(&board.bus, layout::PM1A_CONTROL_PORT, value);
    let sleep_type = u16::from(layout::S5_SLEEP_TYPE) << 10;
    assert_eq!(asks(&pm1(sleep_type)), [], "no sleep enable");
    assert_eq!(asks(&pm1(sleep_type | 1 << 13)), [Request::PowerOff]);
}

fn unclaimed() {
    let board = board(AfterBite::Rearm);
    assert_eq!(ins::<u8>(&board.bus, 0x2f8), 0xff, "no second serial port");
    assert_eq!(ins::<u16>(&board.bus, 0x1ce), 0xffff);
    assert_eq!(mmio_read::<u32>(&board.bus, 0xdead_0000), u32::MAX);
    // Nothing is selected while bit 31 is clear.
    outs(&board.bus, layout::PCI_CONFIG_ADDRESS_PORT, 0_u32);
    assert_eq!(
        ins::<u32>(&board.bus, layout::PCI_CONFIG_DATA_PORT),
        u32::MAX
    );
}
