#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The guest's first process: makes a small system, loads the modules, runs /kennel/script on the console.

/bin/busybox mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root TERM=linux
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mkdir -p /dev/pts /dev/shm
/bin/busybox mount -t devpts devpts /dev/pts
/bin/busybox mount -t tmpfs -o mode=1777 tmpfs /dev/shm
/bin/busybox mount -t tmpfs -o mode=0755 tmpfs /run
/bin/busybox --install -s

hostname kennel
ip link set lo up

while read -r module; do
    insmod "$module" || echo "kennel: cannot load $module"
done </kennel/modules

# A virtio console that the command line names is there a while after its driver: the two shake hands first.
read -r arguments </proc/cmdline
for argument in $arguments; do
    case $argument in console=hvc*) ;; *) continue ;; esac
    set -- /sys/bus/virtio/drivers/virtio_console/virtio*
    [ -e "$1" ] || break
    console=${argument#console=}
    tries=0
    until [ -e "/dev/${console%%,*}" ] || [ "$tries" -ge 200 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
done

# The power button runs /etc/acpi/PWRF/00000080.
acpid

# Asks for its address behind our back; IPv6 is the kernel's own work.
if [ -e /sys/class/net/eth0 ]; then
    ip link set eth0 up
    setsid udhcpc -f -i eth0 -t 4 -T 1 -A 2 -s /etc/udhcpc/default.script </dev/null >/dev/null 2>&1 &
fi

# Waits for its port behind our back; silent where there is no port for it.
agent-start 2>/dev/null

# What poweroff, reboot and halt ask of a first process.
trap 'sync; poweroff -f' USR2
trap 'sync; reboot -f' TERM
trap 'sync; halt -f' USR1

status='no watchdog'
if [ -r /sys/class/watchdog/watchdog0/bootstatus ]; then
    read -r status </sys/class/watchdog/watchdog0/bootstatus
    status="watchdog boot status $status"
fi
echo "kennel: guest is up: Linux $(uname -r), $status"

if [ -f /kennel/script ]; then
    # Without a controlling terminal, so that what the script leaves running is not hung up on when it ends.
    setsid sh /kennel/script &
    wait $!
    echo "kennel: script ended with status $?"
else
    while :; do
        setsid cttyhack sh -l &
        wait $!
    done
fi

# Stays, and reaps what is left to it: each wait collects every child that ends.
while :; do
    sleep 86400 &
    wait $!
done
