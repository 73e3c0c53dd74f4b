#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shutdown [-h] [-P|-H|-r] [TIME] [MESSAGE]: what the guest agent calls. Always at once.

command=poweroff
for argument; do
    case $argument in
        -P) command=poweroff ;;
        -H) command=halt ;;
        -r) command=reboot ;;
    esac
done
echo "kennel: shutdown was called: $command" >/dev/console
sync
exec "$command" -f
