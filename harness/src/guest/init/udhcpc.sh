#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# What busybox' DHCP client calls: $1 says what happened, $interface and others what the server said.
# IPv6 addresses are the kernel's own business and stay.

case $1 in
    deconfig)
        ip -4 addr flush dev "$interface"
        ip link set "$interface" up
        ;;
    bound | renew)
        ip -4 addr replace "$ip/$mask" dev "$interface"
        for gateway in $router; do
            ip -4 route replace default via "$gateway" dev "$interface"
            break
        done
        if [ -n "$dns" ]; then
            for server in $dns; do
                echo "nameserver $server"
            done >/etc/resolv.conf
        fi
        ;;
esac
exit 0
