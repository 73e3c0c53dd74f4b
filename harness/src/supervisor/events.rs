// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Events in Kubernetes' words, as one JSON object a line: what a VM process tells, and (`told`)
//! what the supervisor says by itself.

mod told;

use std::time::{Duration, UNIX_EPOCH};

use kennel_vmm::mailbox::ResetCause;
use kennel_vmm::protocol::{Ending, News, Notice, WatchdogReport};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use told::Streak;

use crate::words::without_error_numbers;

/// Kubernetes' two event types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// VM time in ns.
    pub uptime_ns: u64,
    /// `namespace/name`.
    pub object: String,
    /// Normal or Warning.
    #[serde(rename = "type")]
    pub severity: Severity,
    /// One word.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// Figures, by name.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub data: Map<String, Value>,
}

/// What an event says, before it says when and of whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    severity: Severity,
    reason: &'static str,
    message: String,
    data: Map<String, Value>,
}

impl Said {
    fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Normal,
            reason,
            message: message.into(),
            data: Map::new(),
        }
    }

    fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::normal(reason, message)
        }
    }

    fn with(mut self, data: Value) -> Self {
        if let Value::Object(data) = data {
            self.data = data;
        }
        self
    }

    /// What `news` is as an event; `None` for news that are not events.
    #[must_use]
    pub fn of(news: &News) -> Option<Self> {
        Some(match news {
            News::Started => Self::normal("Started", "The vCPUs run"),
            News::Watchdog(report) => watchdog(report),
            News::WatchdogArmed { timeout_ns } => Self::normal(
                "WatchdogArmed",
                format!(
                    "The guest armed its watchdog: it bites {:.3} s after the last ping",
                    Duration::from_nanos(*timeout_ns).as_secs_f64()
                ),
            )
            .with(json!({ "timeout_ns": timeout_ns })),
            News::WatchdogDisarmed => {
                Self::normal("WatchdogDisarmed", "The guest disarmed its watchdog")
            }
            News::Pretimeout {
                lead_ns,
                lateness_ns,
                nmi,
            } => {
                let then = if *nmi { "; NMI injected" } else { "" };
                Self::warning(
                    "WatchdogPretimeout",
                    format!(
                        "The watchdog bites in {:.3} s unless the guest pings it{then}",
                        Duration::from_nanos(lead_ns.saturating_sub(*lateness_ns)).as_secs_f64()
                    ),
                )
                .with(json!({ "lead_ns": lead_ns, "lateness_ns": lateness_ns, "nmi": nmi }))
            }
            News::StallForgiven { stalled_ns } => Self::warning(
                "StallForgiven",
                format!(
                    "The VM process did not run for {:.3} s or longer: the guest gets the time it could \
                     not use",
                    Duration::from_nanos(*stalled_ns).as_secs_f64()
                ),
            )
            .with(json!({ "stalled_ns": stalled_ns })),
            News::ShutdownAsked { grace_ns } => {
                let grace = humantime::format_duration(Duration::from_nanos(*grace_ns));
                Self::normal(
                    "Shutdown",
                    format!("Power button pressed; the guest has {grace}"),
                )
                .with(json!({ "grace_ns": grace_ns }))
            }
            News::Reset { cause, count } => Self::normal(
                "Reset",
                format!("The machine was reset by {}", reset_cause(*cause)),
            )
            .with(json!({ "cause": cause, "count": count })),
            News::Paused { by_watchdog } => {
                let who = if *by_watchdog {
                    "the watchdog"
                } else {
                    "the host"
                };
                let message =
                    format!("vCPUs and VM time stopped by {who}; SIGCONT lets them go on");
                Self::normal("Paused", message).with(json!({ "by_watchdog": by_watchdog }))
            }
            News::Resumed => Self::normal("Resumed", "vCPUs and VM time go on"),
            News::UplinkUp => Self::normal("UplinkUp", "The uplink works"),
            News::UplinkDown { message, retry_ns } => {
                let again = retry_ns.map(Duration::from_nanos).map(|wait| {
                    let wait = humantime::format_duration(wait);
                    format!("; tried again in {wait}")
                });
                let message = format!("{message}{}", again.unwrap_or_default());
                Self::warning("UplinkDown", message).with(json!({ "retry_ns": retry_ns }))
            }
            News::NetworkDown { message } => Self::warning("NetworkDown", message),
            _ => return None,
        })
    }

    /// The event, for `object` at the time of `notice`.
    #[must_use]
    pub fn at(self, object: &str, realtime_ns: u64, uptime_ns: u64) -> Event {
        let time = UNIX_EPOCH
            .checked_add(Duration::from_nanos(realtime_ns))
            .unwrap_or(UNIX_EPOCH);
        Event {
            time: humantime::format_rfc3339_nanos(time).to_string(),
            uptime_ns,
            object: object.to_owned(),
            severity: self.severity,
            reason: self.reason,
            message: without_error_numbers(&self.message),
            data: self
                .data
                .into_iter()
                .map(|(key, value)| (key, plain(value)))
                .collect(),
        }
    }

    /// The event of `notice`, if it is one.
    #[must_use]
    pub fn event(object: &str, notice: &Notice) -> Option<Event> {
        Some(Self::of(&notice.news)?.at(object, notice.realtime_ns, notice.uptime_ns))
    }
}

/// The figures without the system's numbers of its errors.
fn plain(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_error_numbers(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Object(map) => {
            let map = map.into_iter().map(|(key, value)| (key, plain(value)));
            Value::Object(map.collect())
        }
        value => value,
    }
}

fn watchdog(report: &WatchdogReport) -> Said {
    let millis = |ns: u64| Duration::from_nanos(ns).as_secs_f64() * 1e3;
    let message = format!(
        "The watchdog bit {:.3} s after the last ping, {:.3} ms late; action {}",
        Duration::from_nanos(report.since_ping_ns).as_secs_f64(),
        millis(report.lateness_ns),
        report.action.name(),
    );
    let data = serde_json::to_value(report).unwrap_or_default();
    Said::warning("Watchdog", message).with(data)
}

/// How the cause of a reset reads in a sentence.
#[must_use]
pub fn reset_cause(cause: ResetCause) -> &'static str {
    match cause {
        ResetCause::ResetControl => "the guest, through its reset register",
        ResetCause::KeyboardController => "the guest, through its keyboard controller",
        ResetCause::TripleFault => "a triple fault",
        ResetCause::Watchdog => "the watchdog",
        ResetCause::Host => "the host",
        _ => "an unknown cause",
    }
}

/// How an ending reads in a sentence.
#[must_use]
pub fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::GuestPowerOff => "The guest powered off",
        Ending::WatchdogPowerOff => "Powered off by the watchdog",
        Ending::GraceExpired => "Powered off: the guest did not shut down within its grace",
        Ending::Stopped => "Stopped by the host",
        _ => "Ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kennel_vmm::config::WatchdogAction;

    #[test]
    fn watchdog_event_is_one_json_object_with_its_figures() {
        let report = WatchdogReport {
            action: WatchdogAction::InjectNmi,
            timeout_ns: 10_066_329_600,
            since_ping_ns: 10_066_400_000,
            lateness_ns: 70_400,
            bites: 1,
        };
        let notice = Notice {
            realtime_ns: 1_500_000_000_000_000_007,
            uptime_ns: 12,
            news: News::Watchdog(report),
        };
        let event = Said::event("default/dog", &notice).expect("an event");
        let json = serde_json::to_string(&event).expect("JSON");
        assert_eq!(
            json,
            concat!(
                r#"{"time":"2017-07-14T02:40:00.000000007Z","uptime_ns":12,"object":"default/dog","#,
                r#""type":"Warning","reason":"Watchdog","message":"The watchdog bit 10.066 s after "#,
                r#"the last ping, 0.070 ms late; action inject-nmi","data":{"action":"inject-nmi","#,
                r#""bites":1,"lateness_ns":70400,"since_ping_ns":10066400000,"#,
                r#""timeout_ns":10066329600}}"#
            )
        );
    }

    #[test]
    fn no_event_has_the_systems_error_numbers() {
        let error = std::io::Error::from_raw_os_error(22).to_string();
        assert!(error.contains("os error"), "{error}");
        let said = [
            News::NetworkDown {
                message: error.clone(),
            },
            News::UplinkDown {
                message: error.clone(),
                retry_ns: None,
            },
        ];
        let mut said: Vec<_> = said.iter().filter_map(Said::of).collect();
        let at = "127.0.0.1:80".parse().expect("an address");
        let conditions = json!({ "conditions": [{ "message": error }] });
        said.extend([
            Said::unhealthy(crate::probe::ProbeKind::Readiness, error.clone(), None),
            Said::stopped(crate::supervisor::phase::Phase::Failed, &error, None),
            Said::killing(&error),
            Said::port_failed(at, 80, &error),
            Said::normal("Ready", "").with(conditions),
        ]);
        assert_eq!(said.len(), 7);
        for said in said {
            let event = serde_json::to_string(&said.at("default/dog", 0, 0)).expect("JSON");
            assert!(event.contains("Invalid argument"), "{event}");
            assert!(!event.contains("os error"), "{event}");
        }
    }
}
