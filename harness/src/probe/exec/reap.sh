# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# In the guest: ends run.sh, whose process is $1, all it started, and who has its output open.
exec 2>/dev/null
w=$1 t=" $1 "
# The parent of process $1, in u.
up() { read -r u <"/proc/$1/stat" && u=${u##*) } && u=${u#* } && u=${u%% *}; }
# It is the agent's child, as we are; if not, the number is somebody else's by now.
up "$w" && [ "$u" = $PPID ] || exit 0
kill -STOP "$w"
o=/none e=/none
# Copies of our own: those of a process that is still stopping may change under our eyes.
if [ -p /proc/$w/fd/1 ]; then exec 8<>/proc/$w/fd/1; [ -p /proc/$$/fd/8 ] && o=/proc/$$/fd/8; fi
if [ -p /proc/$w/fd/2 ]; then exec 9<>/proc/$w/fd/2; [ -p /proc/$$/fd/9 ] && e=/proc/$$/fd/9; fi
look() {
  h=
  for p in /proc/[0-9]*; do
    n=${p#/proc/}
    case "$t" in *" $n "*) continue;; esac
    [ "$n" = $$ ] || [ "$n" = $PPID ] && continue
    up $n || continue
    case "$t" in *" $u "*) ;; *)
      [ $p/fd/1 -ef $o ] || [ $p/fd/1 -ef $e ] || [ $p/fd/2 -ef $o ] || [ $p/fd/2 -ef $e ] || continue;;
    esac
    kill -STOP $n && h=1 t="$t$n "
  done
  [ "$h" ]
}
# All of them stopped before any is ended: none can start another meanwhile, none loses its parent.
i=0
while look && [ $i -lt 20 ]; do i=$((i+1)); done
kill -9 $t
exit 0
