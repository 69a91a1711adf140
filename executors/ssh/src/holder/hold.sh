# The holder: one process per run of units, leader of its own session. It starts each script in a session of its own,
# spools both outputs into numbered segments, and writes down how the script ended. The first script that fails is the
# last one. Set in front: TOKEN LIMIT COUNT. $1 is the login directory, $2 the base, then the units' folders in order.
WORK=$1
ROOT=$2
shift 2
umask 077
trap : HUP INT TERM
# spool NAME FD: copies what FD brings into NAME.1, NAME.2 … ; `NAME.idx` has number and offset of each, `NAME.ack` the offset
# up to which the agent has everything safe. dd stops short of COUNT reads only at the end of its input.
spool() {
  # By exec: with redirections of its own, the shell would keep the writing ends open beside, and no end would come.
  eval "exec <&$2"
  exec 3<&- 4<&- 5>&- 6>&-
  n=1 w=0 b=
  while :; do
    while [ $n -gt 1 ]; do
      a=0
      { read -r a < "$1.ack"; } 2>/dev/null
      [ $((w - ${a:-0})) -le "$LIMIT" ] && break
      [ -e h ] || exec cat > /dev/null
      nap 0.1
    done
    { printf '%s %s\n' "$n" "$w" >> "$1.idx"; } 2>/dev/null
    r=$(LC_ALL=C dd bs=65536 count="$COUNT" of="$1.$n" 2>&1)
    s=$?
    [ -e h ] || exec cat > /dev/null
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
  # A stream that holds nothing but the end mark is said to be so: its follower then has nothing to read.
  only=
  if [ $n -eq 1 ] && { read -r X F < exit; } 2>/dev/null; then
    [ "$b" = $((${#TOKEN} + ${#X} + ${#F} + 4)) ] && only=only
  fi
  { printf '%s\n' "$only" > "$1.eof"; } 2>/dev/null
  [ -e o.eof ] && [ -e e.eof ] && alive watcher && kill -USR1 "$P" 2>/dev/null
}
# enter DIR LOGIN: becomes the script.
enter() { . "$1/start"; }
seek_setsid
halt= first=1
for K in "$@"; do
  cd "$ROOT/$K" || exit 0
  set -C
  # Whoever creates `go` decides: the holder that it runs, or somebody who found it missing that it never will.
  { stamp $$ > go; } 2>/dev/null || exit 0
  set +C
  shift
  if [ -n "$first" ]; then
    first= pipes="o.p e.p"
    for k in "$@"; do
      # Whoever looks at a later unit sees that it has an owner.
      { stamp $$ > "../$k/by"; } 2>/dev/null
      pipes="$pipes ../$k/o.p ../$k/e.p"
    done
    mkfifo $pipes
  fi
  [ -p o.p ] && [ -p e.p ] || exit 1
  # Opened for both directions first: an open that has to wait is cut short by the end of an earlier process.
  exec 7<> o.p 8<> e.p
  exec 3< o.p 4< e.p 5> o.p 6> e.p 7>&- 8>&-
  spool o 3 &
  spool e 4 &
  exec 3<&- 4<&-
  { read -r DELEGATE_UNIT < marker; } 2>/dev/null
  export DELEGATE_UNIT
  enter "$ROOT/$K" "$WORK" < /dev/null >&5 2>&6 5>&- 6>&- &
  S=$!
  unset DELEGATE_UNIT
  stamp "$S" > pid
  while :; do
    wait "$S"
    C=$?
    alive pid || break
  done
  F=-
  { read -r F < fault; } 2>/dev/null
  # One write: a reader finds nothing or all of it.
  printf '%s %s\n' "$C" "$F" > exit
  # What fills more than a segment waits for the agent, so that all units together keep to one limit.
  if [ "$C" != 0 ] || [ -e o.2 ] || [ -e e.2 ]; then
    halt=1
    set -C
    for k in "$@"; do
      { printf 'void\n' > "../$k/go"; } 2>/dev/null
    done
    set +C
  fi
  printf '\001%s %s %s\n' "$TOKEN" "$C" "$F" >&5 && printf '\001%s %s %s\n' "$TOKEN" "$C" "$F" >&6 && : > marked
  exec 5>&- 6>&-
  [ -z "$halt" ] || exit 0
done
