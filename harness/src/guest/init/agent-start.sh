#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Starts the guest agent, unless it runs. Returns at once: the port may be some time in coming.

pid_file=/run/qemu-ga.pid
port_name=org.qemu.guest_agent.0

if read -r pid 2>/dev/null <"$pid_file" && [ -e "/proc/$pid/exe" ]; then
    exit 0
fi
if [ ! -x /usr/sbin/qemu-ga ]; then
    echo 'agent-start: this guest image has no /usr/sbin/qemu-ga' >&2
    exit 1
fi
# A port can only come with a device that the driver has taken; the driver takes it while it is being loaded.
set -- /sys/bus/virtio/drivers/virtio_console/virtio*
if [ ! -e "$1" ]; then
    echo 'agent-start: this machine has no virtio console device' >&2
    exit 1
fi

# Prints the port's name under /dev, such as vport0p1.
find_port() {
    for port in /sys/class/virtio-ports/*; do
        # The name is set after the port is made.
        if read -r name 2>/dev/null <"$port/name" && [ "$name" = "$port_name" ]; then
            echo "${port##*/}"
            return 0
        fi
    done
    return 1
}

# One process from here to the agent itself, so that its number is known before there is a port.
(
    tries=0
    until node=$(find_port); do
        tries=$((tries + 1))
        if [ "$tries" -gt 200 ]; then
            echo "agent-start: no port $port_name within 10 s"
            exit 1
        fi
        sleep 0.05
    done
    mkdir -p /dev/virtio-ports
    ln -sf "../$node" "/dev/virtio-ports/$port_name"
    exec setsid qemu-ga -m virtio-serial -p "/dev/$node" -t /run
) </dev/null >>/var/log/qemu-ga.log 2>&1 &
echo $! >"$pid_file"
