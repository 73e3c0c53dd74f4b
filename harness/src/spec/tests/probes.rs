// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Probes: what is taken, with which numbers, and what is refused.

use std::time::Duration;

use super::super::{Handler, HttpGet, NoteKind, Probe, TcpSocket};
use super::{INSTANCE, accept, note, refuse};

/// An interface and network with the ports `ports`, JSON.
fn networked(ports: &str) -> String {
    format!(
        "{INSTANCE}      interfaces: [{{name: default, masquerade: {{}}, ports: {ports}}}]\n  \
         networks: [{{name: default, pod: {{}}}}]\n"
    )
}

/// [`INSTANCE`] with a readinessProbe of these lines, the first of which is line 20.
fn ready(lines: &str) -> String {
    format!("{INSTANCE}{}", probe("readinessProbe", lines))
}

fn alive(lines: &str) -> String {
    format!("{INSTANCE}{}", probe("livenessProbe", lines))
}

fn probe(name: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("  {name}:\n{lines}")
}

fn readiness(text: &str) -> Probe {
    accept(text)
        .vmi
        .readiness
        .expect("there is a readinessProbe")
}

fn http(lines: &str) -> HttpGet {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    match readiness(&ready(&format!("httpGet:\n{lines}"))).handler {
        Handler::HttpGet(get) => get,
        other => unreachable!("{other:?}"),
    }
}

fn tcp_port(text: &str) -> u16 {
    match readiness(text).handler {
        Handler::TcpSocket(TcpSocket { port, host: None }) => port,
        other => unreachable!("{other:?}"),
    }
}

/// The one line that it is refused with.
fn refusal(text: &str) -> String {
    let lines = refuse(text);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.into_iter().next().unwrap_or_default()
}

#[test]
fn defaults_are_kubevirts() {
    let probe = readiness(&ready("guestAgentPing: {}"));
    assert_eq!(
        probe,
        Probe {
            handler: Handler::GuestAgentPing,
            initial_delay: Duration::ZERO,
            timeout: Duration::from_secs(1),
            period: Duration::from_secs(10),
            success_threshold: 1,
            failure_threshold: 3,
        }
    );
    // Null is the same as absent; numbers may have a sign.
    let text = "guestAgentPing: {}\ntimeoutSeconds:\nperiodSeconds: +7\nfailureThreshold: ~";
    let expected = Probe {
        period: Duration::from_secs(7),
        ..probe
    };
    assert_eq!(readiness(&ready(text)), expected);
}

#[test]
fn numbers_below_1_are_repaired_and_a_negative_delay_is_refused() {
    for value in ["0", "-1", "-99999999999999999999"] {
        let numbers = [
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ]
        .map(|key| format!("{key}: {value}\n"))
        .concat();
        let document = accept(&ready(&format!("guestAgentPing: {{}}\n{numbers}")));
        let expected = readiness(&ready("guestAgentPing: {}"));
        assert_eq!(document.vmi.readiness, Some(expected), "{value}");
        let notes: Vec<_> = document
            .notes
            .iter()
            .filter(|note| note.kind == NoteKind::Defaulted)
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            notes,
            [
                "less than 1: 1 is taken, as in KubeVirt: spec.readinessProbe.timeoutSeconds (line 21), \
                 spec.readinessProbe.successThreshold (line 23)",
                "less than 1: 10 is taken, as in KubeVirt: spec.readinessProbe.periodSeconds (line 22)",
                "less than 1: 3 is taken, as in KubeVirt: spec.readinessProbe.failureThreshold (line 24)",
            ]
        );
    }
    let at = "vm.yaml:20: spec.readinessProbe.initialDelaySeconds:";
    for (value, expected) in [
        (
            "-5",
            "a delay of -5 seconds is negative; allowed: 0 to 2147483647; write 0 to probe from the start",
        ),
        (
            "2147483648",
            "\"2147483648\" is too large; allowed: 0 to 2147483647",
        ),
        (
            "2m",
            "must be a whole number, is the text \"2m\"; write 120: the unit is seconds",
        ),
        (
            "\"120\"",
            "must be a whole number, is the text \"120\"; write 120 without quotes",
        ),
        ("1.5", "must be a whole number, is the number 1.5"),
    ] {
        let text = ready(&format!(
            "initialDelaySeconds: {value}\nguestAgentPing: {{}}"
        ));
        assert_eq!(refusal(&text), format!("{at} {expected}"));
    }
    let most = ready("periodSeconds: 2147483647\nguestAgentPing: {}");
    assert_eq!(readiness(&most).period, Duration::from_secs(2_147_483_647));
    assert!(
        refusal(&ready("periodSeconds: 2147483648\nguestAgentPing: {}"))
            .ends_with("allowed: 1 to 2147483647")
    );
}

/// KubeVirt's own cases.
#[test]
fn a_probe_has_one_handler() {
    let none = "initialDelaySeconds: 2";
    let lines = refuse(&format!("{}{}", ready(none), probe("livenessProbe", none)));
    let no_handler = "no handler: nothing says how to probe; allowed: one of exec, guestAgentPing, httpGet, \
                      tcpSocket; add one, such as guestAgentPing: {}, or tcpSocket with a port";
    assert_eq!(
        lines,
        [
            format!("vm.yaml:19: spec.readinessProbe: {no_handler}"),
            format!("vm.yaml:21: spec.livenessProbe: {no_handler}"),
        ]
    );
    let three = "httpGet: {port: 80}\ntcpSocket: {port: 80}\nexec: {command: [a]}";
    let four = format!("{three}\nguestAgentPing: {{}}");
    let lines = refuse(&format!(
        "{}{}",
        ready(&four),
        probe("livenessProbe", three)
    ));
    let advice =
        "allowed: exactly one of them in a probe; keep the one that tells most about the guest";
    assert_eq!(
        lines,
        [
            format!(
                "vm.yaml:19: spec.readinessProbe: several handlers: exec, guestAgentPing, httpGet, tcpSocket; {advice}"
            ),
            format!(
                "vm.yaml:24: spec.livenessProbe: several handlers: exec, httpGet, tcpSocket; {advice}"
            ),
        ]
    );
    assert!(
        refusal(&ready("guestAgentPing:"))
            .ends_with("guestAgentPing is left empty: write guestAgentPing: {}")
    );
    assert!(
        refusal(&ready("guestAgentPing: true"))
            .ends_with("is the boolean true; write guestAgentPing: {}")
    );
    assert!(refusal(&ready("guestAgentPing: {a: 1}")).ends_with("it has no keys: write {}"));
    assert!(refusal(&format!("{INSTANCE}  readinessProbe: {{}}\n")).contains("no handler"));
    assert_eq!(
        accept(&format!("{INSTANCE}  readinessProbe:\n"))
            .vmi
            .readiness,
        None
    );
}

#[test]
fn network_probes_need_the_pod_network() {
    let both = format!(
        "{}{}",
        probe("readinessProbe", "tcpSocket: {port: 80}"),
        probe("livenessProbe", "httpGet: {port: 80}")
    );
    let attached = accept(&format!("{}{both}", networked("[]"))).vmi;
    assert!(attached.readiness.is_some() && attached.liveness.is_some());
    // KubeVirt attaches the pod network where neither interfaces nor networks are given.
    assert!(accept(&format!("{INSTANCE}{both}")).vmi.liveness.is_some());
    let without = [
        format!("{INSTANCE}      autoattachPodInterface: false\n{both}"),
        format!(
            "{INSTANCE}      interfaces: [{{name: a, bridge: {{}}}}]\n  networks: [{{name: a, multus: {{networkName: b}}}}]\n{both}"
        ),
    ];
    for text in without {
        let lines = refuse(&text);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        let rest = "goes through the pod network, which is not attached; allowed: exec, guestAgentPing; \
                    or attach it: add an interface with masquerade: {} and a network of its name with pod: {}";
        assert!(
            lines[0].contains(&format!("spec.readinessProbe.tcpSocket: tcpSocket {rest}")),
            "{lines:#?}"
        );
        assert!(
            lines[1].contains(&format!("spec.livenessProbe.httpGet: httpGet {rest}")),
            "{lines:#?}"
        );
        let by_agent = text
            .replace("tcpSocket: {port: 80}", "exec: {command: [a]}")
            .replace("httpGet: {port: 80}", "guestAgentPing: {}");
        assert!(accept(&by_agent).vmi.liveness.is_some());
    }
}

#[test]
fn a_paused_start_has_no_liveness_probe() {
    let paused = |probe: &str| format!("{INSTANCE}  startStrategy: Paused\n{probe}");
    assert!(accept(&paused("")).vmi.start_strategy_paused);
    assert!(!accept(INSTANCE).vmi.start_strategy_paused);
    assert!(
        accept(&paused(&probe("readinessProbe", "guestAgentPing: {}")))
            .vmi
            .start_strategy_paused
    );
    assert_eq!(
        refusal(&paused(&probe("livenessProbe", "guestAgentPing: {}"))),
        "vm.yaml:19: spec.startStrategy: a machine that starts paused cannot have a livenessProbe; \
         remove startStrategy, or the livenessProbe, or make it a readinessProbe"
    );
    assert_eq!(
        refusal(&paused("").replace("Paused", "paused")),
        "vm.yaml:19: spec.startStrategy: unknown startStrategy \"paused\"; allowed: Paused; did you mean \"Paused\"?"
    );
}

/// What a cluster would refuse only when it is too late to see it.
#[test]
fn rules_of_kubernetes() {
    let table = [
        (
            alive("guestAgentPing: {}\nsuccessThreshold: 3"),
            "vm.yaml:21: spec.livenessProbe.successThreshold: a liveness probe succeeds with its first success, \
             not with 3 in a row; allowed: 1; leave it out; a readinessProbe may have a successThreshold",
        ),
        (
            ready("guestAgentPing: {}\nterminationGracePeriodSeconds: 5"),
            "vm.yaml:21: spec.readinessProbe.terminationGracePeriodSeconds: unknown key \
             \"terminationGracePeriodSeconds\" in Probe; KubeVirt's probes have none: the instance's own decides, \
             beside its probes",
        ),
        (
            ready("grpc: {port: 5000}"),
            "vm.yaml:20: spec.readinessProbe.grpc: unknown key \"grpc\" in Probe; KubeVirt has no gRPC probes: \
             use tcpSocket, or exec with a health-check program in the guest",
        ),
        (
            format!("{INSTANCE}{}", probe("startupProbe", "guestAgentPing: {}")),
            "vm.yaml:19: spec.startupProbe: unknown key \"startupProbe\" in VirtualMachineInstanceSpec; KubeVirt has \
             no startupProbe: give the livenessProbe an initialDelaySeconds, or a larger failureThreshold",
        ),
        (
            ready("htpGet: {port: 80}"),
            "vm.yaml:20: spec.readinessProbe.htpGet: unknown key \"htpGet\" in Probe; did you mean \"httpGet\"?",
        ),
        (
            ready("httpGet:\n  port: 80\n  periodSeconds: 5"),
            "vm.yaml:22: spec.readinessProbe.httpGet.periodSeconds: unknown key \"periodSeconds\" in HTTPGetAction; \
             it belongs at spec.readinessProbe.periodSeconds",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(refusal(&text), expected, "{text}");
    }
    let readiness = readiness(&ready("guestAgentPing: {}\nsuccessThreshold: 3"));
    assert_eq!(readiness.success_threshold, 3);
}

#[test]
fn commands() {
    let commanded = |command: &str| ready(&format!("exec: {{command: {command}}}"));
    let quoted = "['sh', \"-c\", 'echo \"a\\b\"']";
    assert_eq!(
        readiness(&commanded(quoted)).handler,
        Handler::Exec {
            command: vec!["sh".into(), "-c".into(), "echo \"a\\b\"".into()]
        }
    );
    let hint = "write the program and its arguments, as in command: [cat, /tmp/healthy]";
    let at = "vm.yaml:20: spec.readinessProbe.exec.command";
    for (text, expected) in [
        (commanded("[]"), format!("{at}: the command is empty; {hint}")),
        (ready("exec: {}"), format!("{at}: missing; {hint}")),
        (commanded("['', a]"), format!("{at}[0]: the program has no name; {hint}")),
        (
            commanded("[sleep, 5]"),
            format!("{at}[1]: must be a string, is the number 5; write it in quotes: \"5\""),
        ),
        (
            commanded("cat /tmp/healthy"),
            format!(
                "{at}: must be a list, is the text \"cat /tmp/healthy\"; \
                 write a list, as in [cat, /tmp/healthy]; there is no shell"
            ),
        ),
        (
            ready("exec: cat /tmp/healthy"),
            "vm.yaml:20: spec.readinessProbe.exec: ExecAction must be a mapping of keys and values, is the text \
             \"cat /tmp/healthy\"; write its command below it, as in command: [cat, /tmp/healthy]"
                .to_owned(),
        ),
    ] {
        assert_eq!(refusal(&text), expected, "{text}");
    }
}

#[test]
fn ports() {
    let named = networked(
        "[{name: found, port: 93}, {name: dns, protocol: UDP, port: 53}, {port: 76}, {port: 118}]",
    );
    let on = |port: &str| {
        format!(
            "{named}{}",
            probe("readinessProbe", &format!("tcpSocket: {{port: {port}}}"))
        )
    };
    for (port, number) in [
        ("found", 93),
        ("76", 76),
        ("\"118\"", 118),
        ("1", 1),
        ("65535", 65535),
        ("+76", 76),
    ] {
        assert_eq!(tcp_port(&on(port)), number, "{port}");
    }
    let numbers = "allowed: 1 to 65535";
    let advice = "write the number, or name a port of domain.devices.interfaces[]";
    let at = "vm.yaml:22: spec.readinessProbe.tcpSocket.port:";
    for (port, expected) in [
        ("-1", format!("\"-1\" is no port; {numbers}")),
        ("0", format!("\"0\" is no port; {numbers}")),
        ("66666", format!("\"66666\" is no port; {numbers}")),
        ("\"-1\"", format!("\"-1\" is no port; {numbers}")),
        (
            "fuond",
            format!("no port is named \"fuond\"; {numbers}, found, dns; did you mean \"found\"?"),
        ),
        (
            "Found",
            format!("no port is named \"Found\"; {numbers}, found, dns; did you mean \"found\"?"),
        ),
        (
            "not-found",
            format!("no port is named \"not-found\"; {numbers}, found, dns; {advice}"),
        ),
        (
            "\"\"",
            format!("no port is named \"\"; {numbers}, found, dns; {advice}"),
        ),
        (
            "dns",
            "port \"dns\" is a UDP port; allowed: a TCP port; \
             write protocol: TCP at port 53 of the interface, if the guest listens there"
                .to_owned(),
        ),
        (
            "8.5",
            "must be a whole number or a name, is the number 8.5".to_owned(),
        ),
        (
            "true",
            "must be a whole number or a name, is the boolean true".to_owned(),
        ),
    ] {
        assert_eq!(refusal(&on(port)), format!("{at} {expected}"));
    }
    assert_eq!(
        refusal(&ready("httpGet: {path: /}")),
        "vm.yaml:20: spec.readinessProbe.httpGet.port: missing; write the port to probe, such as port: 80"
    );
}

#[test]
fn ports_of_interfaces() {
    let at = "vm.yaml:19: spec.domain.devices.interfaces[0].ports";
    for (ports, expected) in [
        (
            "[{name: web}]",
            "[0].port: missing; write the port's number, such as port: 80",
        ),
        (
            "[{port: 70000}]",
            "[0].port: \"70000\" is no port; allowed: 1 to 65535",
        ),
        (
            "[{port: 80, protocol: SCTP}]",
            "[0].protocol: unknown protocol \"SCTP\"; allowed: TCP, UDP",
        ),
        (
            "[{port: 80, protocol: tcp}]",
            "[0].protocol: unknown protocol \"tcp\"; allowed: TCP, UDP; did you mean \"TCP\"?",
        ),
        (
            "[{name: web, port: 80}, {name: web, port: 81}]",
            "[1].name: port \"web\" is given twice, first on line 19; give one of them another name",
        ),
        (
            "[{name: Web_1, port: 80}]",
            "[0].name: \"Web_1\" is no name for a port; allowed: up to 15 lowercase letters, digits and single -, \
             at least one letter; write web-1",
        ),
        (
            "[{name: longer-than-fifteen, port: 80}]",
            "[0].name: \"longer-than-fifteen\" is no name for a port; allowed: up to 15 lowercase letters, digits \
             and single -, at least one letter; write a short one, such as http, or none",
        ),
        (
            "[{name: \"80\", port: 80}]",
            "[0].name: \"80\" is no name for a port; allowed: up to 15 lowercase letters, digits and single -, \
             at least one letter; write a short one, such as http, or none",
        ),
        (
            "[80]",
            "[0]: Port must be a mapping of keys and values, is the number 80",
        ),
    ] {
        assert_eq!(refusal(&networked(ports)), format!("{at}{expected}"));
    }
}

#[test]
fn http_gets() {
    assert_eq!(
        http("port: 93"),
        HttpGet {
            port: 93,
            path: "/".into(),
            host: None,
            https: false,
            headers: vec![],
        }
    );
    for (path, expected) in [
        ("\"\"", "/"),
        ("/path", "/path"),
        ("\"?foo\"", "?foo"),
        ("/path?bar", "/path?bar"),
    ] {
        assert_eq!(http(&format!("port: 93\npath: {path}")).path, expected);
    }
    assert_eq!(http("port: 1\nhost: \"::1\"").host.as_deref(), Some("::1"));
    assert_eq!(http("port: 1\nhost: \"\"").host, None);
    assert!(http("port: 1\nscheme: HTTPS").https);
    assert!(!http("port: 1\nscheme: HTTP").https);
    // Repeated names keep their values and order; case is kept as written.
    let headers = "port: 1\nhttpHeaders:\n- {name: X-Muffins-Or-Cupcakes, value: muffins}\n\
                   - {name: X-Muffins-Or-Cupcakes, value: cupcakes}\n- {name: FOO-bAR, value: \"\"}";
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        http(headers).headers,
        [
            pair("X-Muffins-Or-Cupcakes", "muffins"),
            pair("X-Muffins-Or-Cupcakes", "cupcakes"),
            pair("FOO-bAR", "")
        ]
    );
    let at = "vm.yaml:20: spec.readinessProbe.httpGet";
    for (fields, expected) in [
        (
            "scheme: https",
            ".scheme: unknown scheme \"https\"; allowed: HTTP, HTTPS; did you mean \"HTTPS\"?",
        ),
        (
            "host: \"http://a/\"",
            ".host: \"http://a/\" is no host; allowed: a host name or an IP address; scheme, port and path have \
             keys of their own; without host the guest is probed",
        ),
        (
            "host: \"10.0.2.2:80\"",
            ".host: \"10.0.2.2:80\" is a host with a port; allowed: a host name or an IP address; \
             write host: \"10.0.2.2\", and port: 80 beside it",
        ),
        (
            "host: \"fe80::1%lo\"",
            ".host: httpGet cannot ask \"fe80::1%lo\": no URL has an interface in its host; \
             allowed: an address without %, or a host name; write another address of the host, or use tcpSocket",
        ),
        (
            "path: \"/a\\r\\nb\"",
            ".path: path \"/a\\r\\nb\" has a line break or control character; allowed: one line, such as /healthz?full",
        ),
        (
            "httpHeaders: [{name: X_Custom, value: a}]",
            ".httpHeaders[0].name: \"X_Custom\" is no header's name; allowed: letters, digits and -; write X-Custom",
        ),
        (
            "httpHeaders: [{name: \"\", value: a}]",
            ".httpHeaders[0].name: \"\" is no header's name; allowed: letters, digits and -; \
             write a name such as X-Custom-Header",
        ),
        (
            "httpHeaders: [{name: A, value: \"a\\r\\nB: c\"}]",
            ".httpHeaders[0].value: value \"a\\r\\nB: c\" has a line break or control character; allowed: one line",
        ),
        (
            "httpHeaders: [{name: A, value: 1}]",
            ".httpHeaders[0].value: must be a string, is the number 1; write it in quotes: \"1\"",
        ),
        (
            "httpHeaders: [{name: A}]",
            ".httpHeaders[0].value: missing; write its value, or value: \"\" to send none",
        ),
        (
            "httpHeaders: {A: b}",
            ".httpHeaders: must be a list, is a mapping",
        ),
    ] {
        let text = ready(&format!("httpGet: {{port: 80, {fields}}}"));
        assert_eq!(refusal(&text), format!("{at}{expected}"), "{text}");
    }
}

#[test]
fn a_tcp_socket_takes_an_interface_and_needs_it() {
    let host = |host: &str| ready(&format!("tcpSocket: {{port: 80, host: {host}}}"));
    let vmi = accept(&host("\"fe80::1%lo\"")).vmi;
    let probe = vmi.readiness.expect("a probe");
    assert!(
        matches!(probe.handler, Handler::TcpSocket(to) if to.host.as_deref() == Some("fe80::1%lo"))
    );
    assert_eq!(
        refusal(&host("\"fe80::1\"")),
        "vm.yaml:20: spec.readinessProbe.tcpSocket.host: \"fe80::1\" is a link-local address, and nothing says \
         on which interface; write the interface behind it, as in \"fe80::1%eth0\""
    );
}

#[test]
fn a_word_of_a_command_with_a_nul_is_refused() {
    let line = refusal(&ready("exec: {command: [a, \"b\\0c\"]}"));
    assert!(
        line.contains("exec.command[1]: \"b\\u{0}c\" has a NUL"),
        "{line}"
    );
}

#[test]
fn doubts_are_notes() {
    let doubts = |text: &str| note(&accept(text), NoteKind::Doubtful);
    for fine in [
        ready("guestAgentPing: {}\ntimeoutSeconds: 10"),
        ready("exec: {command: [a]}\ntimeoutSeconds: 1"),
        alive("httpGet: {port: 80}"),
        format!(
            "{}{}",
            networked("[]"),
            probe("readinessProbe", "tcpSocket: {port: 22}")
        ),
        format!(
            "{}{}",
            networked("[{port: 22}]"),
            probe("readinessProbe", "tcpSocket: {port: 22}")
        ),
        format!(
            "{}{}",
            networked("[{port: 22}]").replace("masquerade", "bridge"),
            probe("readinessProbe", "tcpSocket: {port: 23}")
        ),
        format!(
            "{}{}",
            networked("[{port: 22}]"),
            probe("readinessProbe", "tcpSocket: {port: 23, host: a}")
        ),
    ] {
        assert_eq!(doubts(&fine), None, "{fine}");
    }
    let shut = "not in the ports of its interface: KubeVirt would not forward it, and the probe always fail; \
                here it is probed all the same, but cannot be published: spec.readinessProbe.tcpSocket.port (line 22)";
    for ports in [
        "[{port: 22}]",
        "[{port: 23, protocol: UDP}, {port: 22}]",
        "[{port: 23, protocol: UDP}]",
    ] {
        let text = format!(
            "{}{}",
            networked(ports),
            probe("readinessProbe", "tcpSocket: {port: 23}")
        );
        assert_eq!(doubts(&text).as_deref(), Some(shut), "{text}");
    }
    let table = [
        (
            ready("guestAgentPing: {}\nperiodSeconds: 5\ntimeoutSeconds: 6"),
            "a timeout of 6 s is longer than the period of 5 s: an attempt without an answer delays the next: \
             spec.readinessProbe.timeoutSeconds (line 22)",
        ),
        (
            ready("exec: {command: [a]}"),
            "no timeoutSeconds: the command has 1 second, its way through the agent included: \
             spec.readinessProbe (line 19)",
        ),
        (
            ready("exec: {command: [virt-probe, --, dummy-cli]}\ntimeoutSeconds: 1"),
            "virt-probe is no program of the guest: write the command that it is to run: \
             spec.readinessProbe.exec.command[0] (line 20)",
        ),
        (
            alive("guestAgentPing: {}").replace(
                "image: kennel/guest",
                "image: ./guest\n          kernelPath: /vmlinuz",
            ),
            "needs a guest agent in the guest, which its files do not tell: it fails without one: \
             spec.livenessProbe (line 20)",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(doubts(&text).as_deref(), Some(expected), "{text}");
    }
    let in_quotes = accept(&ready("tcpSocket: {port: \"80\"}"));
    assert!(
        note(&in_quotes, NoteKind::NotInKubeVirt)
            .is_some_and(|note| note.contains("a number in quotes"))
    );
}

#[test]
fn the_pause_annotation_reaches_the_instance() {
    let name = "kubevirt.io/pause-guest-agent-probes";
    let text = alive("guestAgentPing: {}").replace(
        "  name: small\n",
        &format!("  name: small\n  annotations: {{{name}: \"true\"}}\n"),
    );
    assert_eq!(
        accept(&text).vmi.annotations.get(name).map(String::as_str),
        Some("true")
    );
}

#[test]
fn what_kubevirt_would_make_of_them_is_told() {
    let text = format!(
        "{}{}",
        alive("exec: {command: [sh, -c, \"it's\"]}\ntimeoutSeconds: 5\ninitialDelaySeconds: 120"),
        probe("readinessProbe", "httpGet: {port: 80}\nfailureThreshold: 5")
    );
    let notes: Vec<_> = accept(&text)
        .rendered_probes()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        notes,
        [
            "KubeVirt would run it with initialDelaySeconds 130, timeoutSeconds 6, periodSeconds 10, \
             successThreshold 1, failureThreshold 3, as `virt-probe --domainName default_small --timeoutSeconds 5 \
             --command sh -- -c 'it'\\''s'`: spec.livenessProbe (line 19)",
            "KubeVirt would run it with initialDelaySeconds 10, timeoutSeconds 1, periodSeconds 10, \
             successThreshold 1, failureThreshold 5: spec.readinessProbe (line 23)",
        ]
    );
    assert!(accept(INSTANCE).rendered_probes().is_empty());
}
