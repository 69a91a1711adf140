# Following a unit's output.
# pump NAME FD: sends on what the spool has beyond the last call, of one segment; `more` is set when there is another. A
# segment is complete once the next one or the end mark exists; that is looked up before reading.
pump() {
  eval "n=\$n_$1 open=\$open_$1 skip=\$skip_$1"
  if [ "$n$open$skip" = 10 ] && [ -e "$1.eof" ] && [ -e marks ]; then
    only=
    { read -r only < "$1.eof"; } 2>/dev/null
    if [ "$only" = only ]; then
      while read -r m; do
        case $m in *' '*) printf '\001%s\n' "$m" ;; esac
      done < marks
      eval "n_$1=done"
      return
    fi
  fi
  [ "$n" = done ] && return
  fresh=$due
  if [ -z "$open" ]; then
    [ -s "$1.$n" ] || return 0
    eval "exec $2< \"\$1.\$n\"" || exit 0
    open=1 fresh=1
    [ "$skip" -gt 0 ] && dd bs="$skip" count=1 of=/dev/null <&"$2" 2>/dev/null
    skip=0
  fi
  m=$((n + 1)) whole=
  [ -e "$1.$m" ] && whole=1
  # Nothing has been written since the last look; where time has a coarse grain, that is said a little later.
  [ -z "$fresh$whole" ] && [ "$1.seen$$" -nt "$1.$n" ] 2>/dev/null && return 0
  { printf . > "$1.seen$$"; } 2>/dev/null
  cat <&"$2" || exit 0
  [ -z "$whole" ] || n=$m open= more=1
  eval "n_$1=\$n open_$1=\$open skip_$1=\$skip"
}
# seek NAME OFFSET: finds the segment that holds OFFSET.
seek() {
  n=1 skip=$2
  [ ! -e "$1.idx" ] || while read -r i w; do
    [ "$w" -le "$2" ] && n=$i skip=$(($2 - w))
  done < "$1.idx"
  eval "n_$1=\$n open_$1= skip_$1=\$skip"
}
# busy: whether anything may still come into the spool of this folder.
busy() {
  alive go || alive pid || { [ ! -s go ] && alive by; } && return 0
  k=
  { read -r k < units; } 2>/dev/null
  for k in $k; do
    alive "../$k/pid" && return 0
  done
  return 1
}
# wish WORD KEY…: what the agent has asked for, if that is more than to look again.
wish() {
  [ "$1" = sweep ] || return 0
  shift
  trap '' USR1
  cd / || exit 0
  sweep "$@"
  exit 0
}
# follow DIR OUT ERR: streams both spools from these offsets until the holder is done with them; then waits for the agent's
# wish. In between the agent says when to look again, by a line: that costs no process here while nothing has come.
follow() {
  cd "$1" || exit 0
  seek o "$2"
  seek e "$3"
  # Whoever completes the spool wakes this process, so that a short script ends at once.
  woken=
  trap 'woken=1' USR1
  me
  printf '%s\n' "$ME" > watcher
  turn=0
  while :; do
    over= more= due= gone=
    [ -e o.eof ] && [ -e e.eof ] && over=1
    if [ $((turn % 4)) -eq 3 ]; then
      # Clocks of file servers go back at times, so that the time of a write is not always asked.
      due=1
      busy && [ -e by ] || gone=1
    fi
    due=$due$over
    pump o 3
    pump e 4 >&2
    [ -z "$more" ] || continue
    [ -z "$over" ] || break
    if [ -n "$gone" ]; then
      # The holder may have ended before its spoolers, which have come to their ends only now: that is still to be sent.
      [ -e o.eof ] && [ -e e.eof ] && continue
      exit 0
    fi
    w= l=
    # Without a line and without a signal the agent is gone.
    [ -n "$woken" ] || read -r w l || [ -n "$woken" ] || exit 0
    wish "$w" $l
    woken=
    turn=$((turn + 1))
  done
  # An agent that gets no end marks waits for the end of this shell.
  [ -e marks ] || [ -e marked ] || exit 0
  [ -e o.eof ] && [ -e e.eof ] && [ ! -e o.lost ] && [ ! -e e.lost ] || exit 0
  [ "$n_o" = done ] || [ -e "o.$n_o" ] || exit 0
  [ "$n_e" = done ] || [ -e "e.$n_e" ] || exit 0
  exec 3<&- 4<&-
  trap '' USR1
  while read -r w l; do
    wish "$w" $l
  done
}
# trail OUT ERR: follows the unit of folder D, which was started before, from these offsets. Said are the token, how many
# units the spool holds before it, and where in the spool its own part begins if that is known.
trail() {
  l= i=1
  { read -r l i < "$D/lead"; } 2>/dev/null
  l=${D%/*}/${l:-${D##*/}}
  private "$D" && private "$l" || { say refused "$D is a link, somebody else's, or not of mode 0700"; return; }
  a=0
  { read -r a < "$l/acked"; } 2>/dev/null
  if [ "${a:-0}" -gt "$i" ] && { read -r X F < "$D/exit"; } 2>/dev/null; then
    # All of it is safe with the agent, or a later unit's output would not have been taken.
    say ended "$X" "$F"
    return
  fi
  t=
  { read -r t < "$l/token"; } 2>/dev/null
  bo=0 be=0
  if [ "$i" -gt 1 ] && ! { read -r bo be < "$D/base"; } 2>/dev/null; then
    say attached "$t" $((i - 1)) 0 0
    follow "$l" 0 0
  else
    say attached "$t" 0 "$bo" "$be"
    follow "$l" $((bo + $1)) $((be + $2))
  fi
}
# attach KEY OUT ERR: follows a unit that was started before.
attach() {
  leaf "$1" || { say never; return; }
  trail "$2" "$3"
}
