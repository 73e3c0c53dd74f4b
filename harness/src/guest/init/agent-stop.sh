#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Stops the guest agent that agent-start started, and returns when it is gone.

pid_file=/run/qemu-ga.pid

read -r pid 2>/dev/null <"$pid_file" || exit 0
rm -f "$pid_file"
# A stopped process heeds nothing else before it goes on.
kill "$pid" 2>/dev/null
kill -CONT "$pid" 2>/dev/null
tries=0
while [ -e "/proc/$pid/exe" ]; do
    tries=$((tries + 1))
    # An agent that nobody reads from may never come to its end by itself.
    [ "$tries" -eq 40 ] && kill -KILL "$pid"
    sleep 0.05
done
