# Sent with every call. NONCE is set in front; each answer begins with it, because a login script may print first.
say() { printf '\001%s %s\n' "$NONCE" "$*"; }
uid() { I=${I:-$(id -u)}; }
# leaf KEY: D becomes the unit's folder if there is one.
leaf() {
  for D in "$HOME/.delegate/$1" /var/tmp/delegate-*/"$1"; do
    [ -d "$D" ] && [ -O "$D" ] && return 0
  done
  return 1
}
# private DIR: a real folder of our own with mode 0700.
private() {
  [ ! -L "$1" ] && [ -O "$1" ] || return 1
  case $(ls -ld "$1" 2>/dev/null) in drwx------*) return 0 ;; esac
  return 1
}
# base: BASE becomes the folder that units lie in; it is made when missing.
base() {
  uid_base=
  for BASE in "$HOME/.delegate" var; do
    if [ "$BASE" = var ]; then
      uid
      BASE=/var/tmp/delegate-$I
    fi
    [ "$BASE" = /.delegate ] && continue
    [ -d "$BASE" ] || { mkdir -m 700 "$BASE" 2>/dev/null && return 0; }
    [ -d "$BASE" ] && private "$BASE" && [ -w "$BASE" ] && return 0
    uid_base="$uid_base $BASE"
  done
  return 1
}
# owned DIR: whether somebody is about to start the unit: its launcher, or the holder that it was launched with.
owned() {
  alive "$1/by" && return 0
  l=
  { read -r l i < "$1/lead"; } 2>/dev/null || return 1
  alive "${1%/*}/$l/go" || alive "${1%/*}/$l/by"
}
# state DIR: one line about the unit.
state() {
  [ -d "$1" ] || { say never; return; }
  live=
  { alive "$1/go" || alive "$1/pid"; } && live=1
  X= F=
  { read -r X F < "$1/exit"; } 2>/dev/null
  if [ -n "$X" ]; then say ended "$X" "${F:--}"; return; fi
  if [ -n "$live" ]; then say running; return; fi
  X=
  { read -r X F < "$1/exit"; } 2>/dev/null
  if [ -n "$X" ]; then say ended "$X" "${F:--}"; return; fi
  P= RS= RB=
  { read -r P RS RB < "$1/pid"; } 2>/dev/null || { read -r P RS RB < "$1/go"; } 2>/dev/null
  boot_id
  case $P in
    '' | void) if owned "$1"; then say running; else say never; fi ;;
    *) if [ "$RB" = "${B:--}" ]; then say vanished process "$P"; else say vanished restarted "$P"; fi ;;
  esac
}
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
  if [ -z "$open" ]; then
    [ -s "$1.$n" ] || return 0
    eval "exec $2< \"\$1.\$n\"" || exit 0
    open=1
    [ "$skip" -gt 0 ] && dd bs="$skip" count=1 of=/dev/null <&"$2" 2>/dev/null
    skip=0
  fi
  m=$((n + 1)) whole=
  [ -e "$1.$m" ] && whole=1
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
# wish. In between the agent says when to look again: a line a fifth of a second, which costs no process here.
follow() {
  cd "$1" || exit 0
  seek o "$2"
  seek e "$3"
  # Whoever completes the spool wakes this process, so that a short script ends at once.
  woken=
  trap 'woken=1' USR1
  stamp $$ > watcher
  turn=0
  while :; do
    over= more=
    [ -e o.eof ] && [ -e e.eof ] && over=1
    if [ $((turn % 8)) -eq 7 ]; then
      busy && [ -e by ] || over=1
    fi
    pump o 3
    pump e 4 >&2
    [ -z "$more" ] || continue
    [ -z "$over" ] || break
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
# furnish DIR NUMBER START SCRIPTNAME SCRIPT MAIN: puts everything into a unit's folder.
furnish() {
  eval "start_$2=\$3"
  { printf %s "$2.$MARKER" > "$1/marker" && printf %s "$5" > "$1/$4" &&
    { [ -z "$6" ] || printf %s "$6" > "$1/main"; }; } 2>/dev/null
}
# boot OUT ERR, then for each unit KEY START SCRIPTNAME SCRIPT MAIN: starts the first unit unless it was started before,
# and with it those after it; then follows. LOGIN, TOKEN and MARKER are set in front.
boot() {
  oo=$1 ee=$2 key=$3
  if ! leaf "$key"; then
    base || { say refused "no folder of our own with mode 0700:$uid_base"; return; }
    D=$BASE/$key
  fi
  round=0
  while :; do
    round=$((round + 1))
    if why=$(mkdir -m 700 "$D" 2>&1); then
      { umask > "$D/mask" && read -r MASK < "$D/mask"; } 2>/dev/null
      umask 077
      launch "$@"
      return
    fi
    if [ ! -d "$D" ]; then
      [ $round -lt 4 ] && base && continue
      say refused "$why"
      return
    fi
    private "$D" || { say refused "$D is a link, somebody else's, or not of mode 0700"; return; }
    if [ -e "$D/stop" ] && [ ! -e "$D/by" ]; then
      say stopped
      return
    fi
    wait=0
    while [ ! -s "$D/go" ] && [ -d "$D" ]; do
      # Its launcher may still be on the way; without one, this call takes the holder's place and starts afresh.
      if ! owned "$D" && [ $wait -gt 10 ]; then
        set -C
        { printf 'void\n' > "$D/go"; } 2>/dev/null
        set +C
        break
      fi
      wait=$((wait + 1))
      nap 0.1
    done
    g=
    { read -r g L < "$D/go"; } 2>/dev/null
    if [ "$g" = void ] || [ ! -d "$D" ]; then
      rm -rf "$D"
      continue
    fi
    trail "$oo" "$ee"
    return
  done
}
# launch, as boot: D is the first unit's new folder.
launch() {
  shift 2
  if ! { stamp $$ > "$D/by" && printf %s "$TOKEN" > "$D/token"; } 2>/dev/null || ! furnish "$D" 1 "$2" "$3" "$4" "$5"; then
    rm -rf "$D"
    say refused "cannot write to $D (disk full or quota)"
    return
  fi
  shift 5
  keys= n=1 i=0
  if [ $# -gt 0 ]; then
    cd "${D%/*}" || exit 0
    for k in "$@"; do
      i=$(((i + 1) % 5))
      [ $i -ne 1 ] || keys="$keys $k"
    done
    if mkdir -m 700 $keys 2>/dev/null; then
      printf '%s\n' "$keys" > "$key/units"
      while [ $# -gt 0 ]; do
        n=$((n + 1))
        if ! furnish "$1" $n "$2" "$3" "$4" "$5" || ! { printf '%s %s\n' "$key" $n > "$1/lead"; } 2>/dev/null; then
          rm -rf "$D" $keys
          say refused "cannot write to ${D%/*} (disk full or quota)"
          return
        fi
        shift 5
      done
    else
      for k in $keys; do
        [ -e "$k/stop" ] && [ ! -e "$k/by" ] && { rm -rf "$D"; say stopped; return; }
      done
      # Some are from an earlier life of the agent: each is looked at when its turn comes.
      keys=
    fi
    cd "$LOGIN" || cd /
  fi
  mine="$key$keys"
  seek_setsid
  (hold "$LOGIN" "${D%/*}" "$key" $keys) < /dev/null > /dev/null 2>&1 &
  say started "$TOKEN" 0 0 0
  follow "$D" "$oo" "$ee"
}
# attach KEY OUT ERR: follows a unit that was started before.
attach() {
  leaf "$1" || { say never; return; }
  trail "$2" "$3"
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
# sweep KEY…: removes the folders of units that have ended, and the base when nothing is left in it.
sweep() {
  kept= BASE= n=$# all=$*
  for k in "$@"; do
    leaf "$k" || continue
    if [ -L "$D" ] || alive "$D/pid"; then kept="$kept $D"; continue; fi
    BASE=${D%/*}
    set -- "$@" "$D"
  done
  shift $n
  old=$IFS odd=
  IFS='
'
  # The shell that made them all need not ask what they are.
  [ $# -eq 0 ] || [ "$all" = "$mine" ] || for l in $(ls -ld "$@" 2>/dev/null); do
    case $l in drwx------*) ;; *) odd=1 ;; esac
  done
  IFS=$old
  n=$#
  [ -z "$odd" ] || for D in "$@"; do
    if private "$D"; then set -- "$@" "$D"; else kept="$kept $D"; fi
  done
  [ -z "$odd" ] || shift $n
  t=0
  # The spooler of a process that outlived the script may make one more segment meanwhile.
  while [ $# -gt 0 ] && ! rm -rf "$@" 2>/dev/null && [ $t -lt 20 ]; do t=$((t + 1)); nap 0.05; done
  for D in "$@"; do
    [ -e "$D" ] && kept="$kept $D"
  done
  for D in "$BASE"/u-*; do
    [ -e "$D" ] && BASE= && break
  done
  [ -z "$BASE" ] || rmdir "$BASE" 2>/dev/null
  say swept $kept
}
