# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# In the guest: runs "$@" and ends as it does. What it left behind with our output still open is
# ended too, because the agent would wait for that.
( exec "$@" )
s=$?
exec 8>&1 9>&2 2>/dev/null
o=/proc/$$/fd/8 e=/proc/$$/fd/9
# Nothing but the agent's own pipes may tell who is to be ended: /dev/null is everybody's.
[ -p $o ] && [ -p $e ] || exit $s
held() {
  h=
  for p in /proc/[0-9]*; do
    n=${p#/proc/}
    [ "$n" = $$ ] || [ "$n" = $PPID ] && continue
    [ $p/fd/1 -ef $o ] || [ $p/fd/1 -ef $e ] || [ $p/fd/2 -ef $o ] || [ $p/fd/2 -ef $e ] || continue
    h=1; $1 $n
  done
  [ "$h" ]
}
# A daemon has a moment to redirect its output.
if held :; then
  sleep .1 || sleep 1
  i=0
  while held 'kill -9' && [ $i -lt 20 ]; do i=$((i+1)); done
fi
exit $s
