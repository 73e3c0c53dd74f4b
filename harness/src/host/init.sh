#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The box's first process: loads drivers, puts the machine's own root under everything, hands over to Kennel's agent.
# Whatever fails says so on the console; the machine that started the box shows the console's last lines.
b=/bin/busybox
fail() {
    echo "kennel box: $*"
    $b poweroff -f
}
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
load() {
    while read -r module; do
        # A module in both lists may be there already.
        $b insmod "/modules/$module.ko" 2> /dev/null || [ -d "/sys/module/$module" ] || echo "kennel box: cannot load $module"
    done < "/modules/$1.order"
}
# Loading KVM takes as long as all the rest.
load kvm &
load machine
root=/machine
$b mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,cache=$KENNEL_CACHE" machine $root || fail "cannot mount the machine's root"
$b mount -t devtmpfs dev $root/dev || fail "the machine has no directory /dev"
$b mount -t proc proc $root/proc || fail "the machine has no directory /proc"
$b mount -t sysfs sys $root/sys || fail "the machine has no directory /sys"
# KVM's own counts; nothing fails without them.
$b mount -t debugfs debug $root/sys/kernel/debug 2> /dev/null
$b mount -t tmpfs -o mode=755 run $root/run || fail "the machine has no directory /run"
$b mkdir -p $root/dev/pts $root/dev/shm $root/run/lock
$b mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts $root/dev/pts
$b mount -t tmpfs -o mode=1777 shm $root/dev/shm
for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    [ -e "$root/dev/${link%%:*}" ] || $b ln -s "${link#*:}" "$root/dev/${link%%:*}"
done
$b ifconfig lo 127.0.0.1 up
[ -r $root/etc/hostname ] && $b hostname -F $root/etc/hostname
wait
# The agent's path comes in hexadecimal, since a kernel command line cannot hold every path.
agent=$(printf "$(echo "$KENNEL_AGENT" | $b sed 's/../\\x&/g')")
[ -x "$root$agent" ] || fail "cannot see $agent, which started the box"
$b umount /dev /proc /sys
unset KENNEL_AGENT KENNEL_CACHE
exec $b switch_root $root "$agent" box-agent
