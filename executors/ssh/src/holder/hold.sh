# The holder: a fork of the shell that launches units. It starts each script in a session of its own, spools both outputs
# of all of them into numbered segments in the first unit's folder, and writes down how each script ended. The first script
# that fails is the last one. TOKEN LIMIT COUNT MARKER MASK and the units' start texts are set.
# self: OWN becomes the line of this very process that `alive` reads; $$ is not its pid in a fork.
self() {
  boot_id
  if { read -r Y L < /proc/self/stat; } 2>/dev/null; then
    L=${L##*) }
    set -- $L
    R=${20}
  else
    Y=$(exec sh -c 'echo $PPID')
    born "$Y"
  fi
  OWN="$Y ${R:-0} ${B:--}"
}
# spool NAME: copies its input into NAME.1, NAME.2 … ; `NAME.idx` has number and offset of each, `NAME.ack` the offset up to
# which the agent has everything safe. dd stops short of COUNT reads only at the end of its input.
spool() {
  # A writing end that stayed open here would keep the other stream from ending.
  exec > /dev/null 2>&1 6>&-
  n=1 w=0 b=
  while :; do
    while [ $n -gt 1 ]; do
      a=0
      { read -r a < "$1.ack"; } 2>/dev/null
      [ $((w - ${a:-0})) -le "$LIMIT" ] && break
      [ -e by ] || exec cat > /dev/null
      nap 0.1
    done
    { printf '%s %s\n' "$n" "$w" >> "$1.idx"; } 2>/dev/null
    r=$(LC_ALL=C dd bs=65536 count="$COUNT" of="$1.$n" 2>&1)
    s=$?
    [ -e by ] || exec cat > /dev/null
    if [ "$s" -ne 0 ]; then
      { : > "$1.lost"; } 2>/dev/null
      cat > /dev/null
      break
    fi
    b=${r##*records out}
    b=${b%% bytes*}
    b=${b##*[!0-9]}
    r=${r%% records in*}
    r=${r##*[!0-9+]}
    [ $((${r%+*} + ${r#*+})) -lt "$COUNT" ] && break
    b=$(wc -c < "$1.$n")
    w=$((w + b)) n=$((n + 1))
  done
  # A stream that holds nothing but end marks is said to be so: its follower then has nothing to read.
  only=
  if [ $n -eq 1 ] && { read -r X < marks; } 2>/dev/null; then
    [ "$b" = "$X" ] && only=only
  fi
  { printf '%s\n' "$only" > "$1.eof"; } 2>/dev/null
  [ -e o.eof ] && [ -e e.eof ] && alive watcher && kill -USR1 "$P" 2>/dev/null
}
# enter DIR LOGIN: becomes the script.
enter() { eval "eval \"\$start_$N\""; }
# claim DIR: whoever creates `go` decides: the holder that the unit runs, or somebody who found it missing that it never
# will.
claim() {
  set -C
  { printf '%s\n' "$OWN" > "$1/go"; } 2>/dev/null
  s=$?
  set +C
  return $s
}
# hold LOGIN ROOT KEY…: runs the units whose folders in ROOT are these; the first one's is the present one.
hold() {
  WORK=$1 ROOT=$2
  shift 2
  trap : HUP INT TERM
  exec 5>&1 > /dev/null
  self
  claim . || exit 0
  LEAD=$ROOT/$1 N=0 marks= size=0
  # Given back when the disk is full: how a script ended must always find room.
  { printf '%4096s\n' '' > room; } 2>/dev/null
  for K in "$@"; do
    shift
    N=$((N + 1))
    cd "$ROOT/$K" || exit 0
    DELEGATE_UNIT=$N.$MARKER
    export DELEGATE_UNIT
    enter "$ROOT/$K" "$WORK" < /dev/null >&5 2>&6 5>&- 6>&- &
    S=$!
    unset DELEGATE_UNIT
    stamp "$S" > pid
    while :; do
      wait "$S"
      C=$?
      # Above 128 it may have been a signal to this process that ended the wait.
      [ $C -gt 128 ] && alive pid || break
    done
    F=-
    { read -r F < fault; } 2>/dev/null
    # One write: a reader finds nothing or all of it.
    { printf '%s %s\n' "$C" "$F" > exit; } 2>/dev/null
    [ -s exit ] || { : > "$LEAD/room" && printf '%s %s\n' "$C" "$F" > exit; } 2>/dev/null
    # The next unit writes into the same spool. Not after what fills more than a segment: that waits for the agent, and
    # all units together keep to one limit. And not while something of this one still runs, which may write.
    next=-
    if [ $# -gt 0 ] && [ "$C" = 0 ] && [ ! -e "$LEAD/o.2" ] && [ ! -e "$LEAD/e.2" ] && ! kill -0 "-$S" 2>/dev/null; then
      claim "../$1" && next=$1
    fi
    m="$TOKEN $C $F $next"
    marks="$marks
$m" size=$((size + ${#m} + 2))
    if [ $next = - ]; then
      set -C
      for k in "$@"; do
        { printf 'void\n' > "../$k/go"; } 2>/dev/null
      done
      set +C
      # Before the last mark: the spool is whole only with it.
      printf '%s%s\n' $size "$marks" > "$LEAD/marks"
    fi
    printf '\001%s\n' "$m" >&5 && printf '\001%s\n' "$m" >&6 || rm -f "$LEAD/marks"
    [ $next != - ] || break
  done
  exit 0
}
