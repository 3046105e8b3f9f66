# shellcheck shell=bash
# Daemons by pid and start time, so that a pid that was given away in the meantime is never taken for ours.
# The files of node N's daemon NAME: $STATE/N/NAME.pid ("pid start-time") and $STATE/N/NAME.log.

# started PID: its start time in clock ticks; nothing if there is no such process.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20 || true; }

# pid_of NODE NAME: the pid of a daemon that still runs, else failure.
pid_of() {
  local pid since
  read -r pid since 2>/dev/null <"$STATE/$1/$2.pid" || return 1
  [ -n "$since" ] && [ "$(started "$pid")" = "$since" ] || return 1
  # a zombie has ended
  [ "$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -c1)" != Z ] && echo "$pid"
}
alive() { pid_of "$1" "$2" >/dev/null; }

remember() { echo "$3 $(started "$3")" >"$STATE/$1/$2.pid"; }

# spawn NODE NAME COMMAND...: a daemon inside the node's namespaces, out of reach of the terminal's Ctrl-C.
spawn() {
  local node=$1 name=$2 holder
  shift 2
  holder=$(pid_of "$node" namespaces) || die "$node: no namespaces"
  setsid nsenter -t "$holder" -n -m --wd=/ -- "$@" >>"$STATE/$node/$name.log" 2>&1 </dev/null &
  remember "$node" "$name" $!
  disown $!
}

# stop NODE NAME [SIGNAL] [SECONDS]: end it; KILL when the time is up (and say so).
stop() {
  local pid i
  if pid=$(pid_of "$1" "$2"); then
    kill -"${3:-TERM}" "$pid" 2>/dev/null || true
    for ((i = 0; i < ${4:-10} * 20; i++)); do
      alive "$1" "$2" || break
      sleep 0.05
    done
    if alive "$1" "$2"; then
      say "$1/$2 ($pid, state $(sed "s/.*) //" "/proc/$pid/stat" 2>/dev/null | cut -c1)) did not end within ${4:-10} s: KILL"
      kill -KILL "$pid" 2>/dev/null || true
    fi
  fi
  rm -f "$STATE/$1/$2.pid"
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
  local seconds=$1 what=$2 i
  shift 2
  for ((i = 0; i < seconds * 10; i++)); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  say "gave up waiting for $what after $seconds s"
  return 1
}
not() { ! "$@"; }
