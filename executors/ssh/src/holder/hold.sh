# The holder: one process per unit, leader of its own session. It starts the script in a session of its own, spools
# both outputs into numbered segments, and writes down how the script ended. Set in front: TOKEN MARKER LIMIT COUNT.
cd "$1" || exit 1
WORK=$2
umask 077
trap : HUP INT TERM
set -C
# Whoever creates `go` decides: the holder that it runs, or somebody who found it missing that it never will.
{ stamp $$ > go; } 2>/dev/null || exit 0
set +C
# spool NAME: copies its input into NAME.1, NAME.2 … ; `NAME.idx` has number and offset of each, `NAME.ack` the offset
# up to which the agent has everything safe. dd stops short of COUNT reads only at the end of its input.
spool() {
  n=1 w=0
  while :; do
    while :; do
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
    r=${r%% records in*}
    r=${r##*[!0-9+]}
    [ $((${r%+*} + ${r#*+})) -lt "$COUNT" ] && break
    b=$(wc -c < "$1.$n")
    w=$((w + b)) n=$((n + 1))
  done
  { : > "$1.eof"; } 2>/dev/null
  [ -e o.eof ] && [ -e e.eof ] && alive watcher && kill -USR1 "$P" 2>/dev/null
}
mkfifo o.p e.p || exit 1
spool o < o.p &
spool e < e.p &
exec 5> o.p 6> e.p
DELEGATE_UNIT=$MARKER
export DELEGATE_UNIT
( exec 7>&-; apart /bin/sh "$1/start" "$1" "$WORK" ) < /dev/null >&5 2>&6 5>&- 6>&- &
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
printf '%s %s\n' "$C" "$F" > exit.tmp
mv -f exit.tmp exit
printf '\001%s %s %s\n' "$TOKEN" "$C" "$F" >&5
printf '\001%s %s %s\n' "$TOKEN" "$C" "$F" >&6
