# Short questions about units, and orders.
# state DIR: one line about the unit. What is written down is read before its processes are looked at, and its end after
# them: what comes meanwhile must not be taken for what is gone.
state() {
  [ -d "$1" ] || { say never; return; }
  was= under=
  { read -r was since under < "$1/pid"; } 2>/dev/null || { read -r was since under < "$1/go"; } 2>/dev/null
  live=
  if alive "$1/go" || alive "$1/pid"; then live=1; fi
  case $live$was in '' | void) if owned "$1"; then live=1; fi ;; esac
  X= F=
  { read -r X F < "$1/exit"; } 2>/dev/null
  if [ -n "$X" ]; then say ended "$X" "${F:--}"; return; fi
  if [ -n "$live" ]; then say running; return; fi
  boot_id
  case $was in
    '' | void) say never ;;
    *) if [ "$under" = "${B:--}" ]; then say vanished process "$was"; else say vanished restarted "$was"; fi ;;
  esac
}
# look KEY: how the unit stands.
look() {
  if leaf "$1"; then state "$D"; else say never; fi
}
# ack KEY OBASE EBASE OUT ERR: everything before these offsets of the spool is safe with the agent; whole segments before
# them go. The bases are where the unit's own part begins.
ack() {
  leaf "$1" || { say gone; return; }
  l= i=
  if { read -r l i < "$D/lead"; } 2>/dev/null && [ ! -e "$D/base" ]; then
    { printf '%s %s\n' "$2" "$3" > "$D/base.tmp" && mv -f "$D/base.tmp" "$D/base" &&
      printf '%s\n' "$i" > "${D%/*}/$l/acked"; } 2>/dev/null || { say full; return; }
  fi
  cd "${D%/*}/${l:-$1}" || { say gone; return; }
  drop o "$4"
  drop e "$5"
  say ok
}
drop() {
  last= gone=
  [ ! -e "$1.idx" ] || while read -r i w; do
    [ -n "$last" ] && [ "$w" -le "$2" ] && [ -e "$1.$last" ] && gone="$gone $1.$last"
    last=$i
  done < "$1.idx"
  printf '%s\n' "$2" > "$1.ack.tmp" && mv -f "$1.ack.tmp" "$1.ack"
  [ -z "$gone" ] || rm -f $gone
}
# gather DIR: Q becomes the pids of the unit that we may signal, X those that we may not.
gather() {
  Q= X= S= RS= RB=
  { read -r S RS RB < "$1/pid"; } 2>/dev/null
  m=
  { read -r m < "$1/marker"; } 2>/dev/null
  group= own=
  if [ -n "$S" ]; then
    boot_id
    if [ "$RB" = "${B:--}" ]; then
      # A process of this pid that started at another time is a stranger, and then the old group is gone.
      if ! born "$S"; then
        group=1
      elif [ "$R" = "$RS" ]; then
        # It may not have come to its own session yet.
        own=$S
        [ "$PG" = "$S" ] && group=1
      fi
    fi
  fi
  found=" $own "
  [ -n "$m" ] && for f in $(grep -lF "DELEGATE_UNIT=$m" /proc/[0-9]*/environ 2>/dev/null); do
    f=${f#/proc/}
    found="$found${f%/environ} "
  done
  for f in /proc/[0-9]*; do
    p=${f#/proc/}
    born "$p" && [ "$T" != Z ] || continue
    case $found in
      *" $p "* | *" $PP "*) ;;
      *) [ -n "$group" ] && { [ "$PG" = "$S" ] || [ "$PS" = "$S" ]; } || continue ;;
    esac
    case " $$ " in *" $p "*) continue ;; esac
    found="$found$p "
    if kill -0 "$p" 2>/dev/null; then Q="$Q $p"; else X="$X $p"; fi
  done
  [ -z "$group" ] || [ -e /proc/self/stat ] || { kill -0 "-$S" 2>/dev/null && Q="$Q -$S"; }
}
# bar KEY…: units that have not begun never will.
bar() {
  umask 077
  for k in "$@"; do
    if ! leaf "$k"; then
      # Its launcher may still be on the way; it finds the mark and starts nothing.
      base && mkdir "$BASE/$k" 2>/dev/null && : > "$BASE/$k/stop" && continue
      leaf "$k" || continue
    fi
    set -C
    { printf 'void\n' > "$D/go"; } 2>/dev/null
    set +C
  done
}
# finish SIGNAL KEY LATER…: signals every process of the unit, or of the later one that its holder has gone on to, until
# none is left, for at most 15 s.
finish() {
  signal=$1
  shift
  bar "$@"
  # What ended before is let alone; of all that have begun, only the last has not.
  now=$1
  for k in "$@"; do
    leaf "$k" || continue
    g=
    { read -r g L < "$D/go"; } 2>/dev/null
    case $g in '' | void) ;; *) now=$k ;; esac
  done
  leaf "$now" && [ ! -e "$D/stop" ] || { say none; return; }
  scope=tree
  [ -r /proc/self/environ ] || scope=group
  turn=0 sent=" " first=
  while :; do
    # A holder that has not written down its script is about to start it; that is looked up before the processes are.
    settled=
    { [ -s "$D/pid" ] || { [ -s "$D/go" ] && ! alive "$D/go"; } || [ $turn -gt 140 ]; } && settled=1
    gather "$D"
    [ $turn -eq 0 ] && first=$Q
    if [ -z "$Q" ] && [ -n "$settled" ]; then
      say over "$scope" "first${first:- -}" "foreign${X:- -}"
      return
    fi
    for p in $Q; do
      case $signal$sent in
        KILL*) kill -KILL "$p" 2>/dev/null ;;
        *" $p "*) ;;
        *) kill -TERM "$p" 2>/dev/null; sent="$sent$p " ;;
      esac
    done
    turn=$((turn + 1))
    if [ $turn -gt 150 ]; then
      say left "$scope" "first$Q" "foreign${X:- -}"
      return
    fi
    nap 0.1
  done
}
# fetch KEY…: the variables that the collectors left, by unit.
fetch() {
  say vars
  for k in "$@"; do
    if leaf "$k" && [ -s "$D/vars" ]; then
      printf '%s\0' "$k"
      head -c 600000 "$D/vars"
      printf '\0'
    fi
  done
  printf '\001end'
}
