// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The instances as a table, as `kubectl get` prints them.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::conditions::PrintableStatus;
use crate::moment::Moment;
use crate::supervisor::phase::Phase;

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name, without the namespace.
    pub name: String,
    /// When it was created.
    pub created_at: Moment,
    /// Its phase.
    pub phase: Phase,
    /// The address that its guest has shown: IPv4, else IPv6.
    pub ip: Option<IpAddr>,
    /// Its condition Ready.
    pub ready: bool,
    /// How many came before it in its place.
    pub restarts: u64,
    /// The printable status of the VirtualMachine whose instance it is.
    pub status: PrintableStatus,
}

impl Row {
    /// Whether nobody would see a difference.
    fn looks_like(&self, other: &Self, with_status: bool) -> bool {
        let seen = |row: &Self| (row.name.clone(), row.phase, row.ip, row.ready);
        let more = |row: &Self| (row.status, row.restarts);
        seen(self) == seen(other) && (!with_status || more(self) == more(other))
    }
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In the order of their places.
    pub rows: Vec<Row>,
    /// They belong to a VirtualMachine, so the status is worth a column.
    pub with_status: bool,
}

impl Table {
    /// What has changed since `before`, as `kubectl get vmi --watch` prints it: the header first of
    /// all, `NAME AGE PHASE IP NODENAME READY` and of a VirtualMachine `STATUS RESTARTS` after it,
    /// then a line for each instance that is not what it was.
    #[must_use]
    pub fn changes(&self, before: Option<&Self>, now: Moment, node: &str) -> String {
        let mut header = vec!["NAME", "AGE", "PHASE", "IP", "NODENAME", "READY"];
        if self.with_status {
            header.extend(["STATUS", "RESTARTS"]);
        }
        let mut lines = vec![own(&header)];
        for (place, row) in self.rows.iter().enumerate() {
            let before = before.and_then(|before| before.rows.get(place));
            if before.is_some_and(|before| before.looks_like(row, self.with_status)) {
                continue;
            }
            let mut line = vec![
                row.name.clone(),
                age(now.since(row.created_at)),
                row.phase.name().to_owned(),
                row.ip.map_or("<none>".to_owned(), |ip| ip.to_string()),
                node.to_owned(),
                truth(row.ready).to_owned(),
            ];
            if self.with_status {
                line.extend([row.status.name().to_owned(), row.restarts.to_string()]);
            }
            lines.push(line);
        }
        // Lines that come later must stand under those that came before.
        let names = self.rows.iter().map(|row| row.name.chars().count());
        let widths = [names.max().unwrap_or_default(), 5, 9, 8, 8, 5, 16];
        let text = aligned(&lines, &widths);
        match (before, text.split_once('\n')) {
            (Some(_), Some((_, rows))) => rows.to_owned(),
            _ => text,
        }
    }

    /// `NAME PHASE READY RESTARTS`; of a VirtualMachine, `STATUS` after it.
    #[must_use]
    pub fn closing(&self) -> String {
        let mut header = vec!["NAME", "PHASE", "READY", "RESTARTS"];
        if self.with_status {
            header.push("STATUS");
        }
        let mut lines = vec![own(&header)];
        for row in &self.rows {
            let mut line = vec![
                row.name.clone(),
                row.phase.name().to_owned(),
                truth(row.ready).to_owned(),
                row.restarts.to_string(),
            ];
            if self.with_status {
                line.push(row.status.name().to_owned());
            }
            lines.push(line);
        }
        aligned(&lines, &[])
    }
}

fn own(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn truth(ready: bool) -> &'static str {
    if ready { "True" } else { "False" }
}

/// Columns as wide as their widest word and `least`, three spaces apart, none behind the last.
fn aligned(lines: &[Vec<String>], least: &[usize]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let words = lines.iter().filter_map(|line| line.get(column));
        let words = words.map(|word| word.chars().count());
        words
            .chain(least.get(column).copied())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut shown = String::new();
        for (word, width) in line.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _written = write!(shown, "{word:<width$}   ");
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

/// An age as kubectl prints it: two units at most, the coarser the older.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        for (seconds, shown) in [
            (0, "0s"),
            (119, "119s"),
            (152, "2m32s"),
            (180, "3m"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_060, "3h21m"),
            (30_000, "8h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), shown, "{seconds}");
        }
    }

    #[test]
    fn columns_line_up() {
        let row = |name: &str, phase, ready| Row {
            name: name.to_owned(),
            created_at: Moment::ZERO,
            phase,
            ip: None,
            ready,
            restarts: 3,
            status: PrintableStatus::CrashLoopBackOff,
        };
        let mut table = Table {
            rows: vec![
                row("a", Phase::Running, true),
                row("longer", Phase::Failed, false),
            ],
            with_status: false,
        };
        let now = Moment::ZERO.after(Duration::from_secs(152));
        assert_eq!(
            table.changes(None, now, "host"),
            "NAME     AGE     PHASE       IP         NODENAME   READY\n\
             a        2m32s   Running     <none>     host       True\n\
             longer   2m32s   Failed      <none>     host       False\n"
        );
        let before = table.clone();
        assert_eq!(table.changes(Some(&before), now, "host"), "");
        table.rows[1].status = PrintableStatus::Stopped;
        table.rows[0].ready = false;
        assert_eq!(
            table.changes(Some(&before), now, "host"),
            "a        2m32s   Running     <none>     host       False\n"
        );
        let ready = table.clone();
        table.rows[0].ip = Some(kennel_vmm::dial::GUEST_IPV4.into());
        assert_eq!(
            table.changes(Some(&ready), now, "host"),
            "a        2m32s   Running     10.0.2.2   host       False\n"
        );
        table = before;
        table.with_status = true;
        assert_eq!(
            table.closing(),
            "NAME     PHASE     READY   RESTARTS   STATUS\n\
             a        Running   True    3          CrashLoopBackOff\n\
             longer   Failed    False   3          CrashLoopBackOff\n"
        );
    }
}
