# Shared by all programs sent to a host. POSIX sh; no local variables, so names are per function.
# NONCE is set in front of every program; each answer begins with it, because a login script may print first.
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
nap() { sleep "$1" 2>/dev/null || sleep 1; }
# boot_id: B becomes this boot's id, empty where the kernel has none.
boot_id() { [ -n "$B" ] || { read -r B < /proc/sys/kernel/random/boot_id; } 2>/dev/null; }
# born PID: R becomes its start time, T its state, then parent, group and session: PP PG PS. Fails without such a process.
born() {
  R= T= PP= PG= PS=
  if { read -r L < "/proc/$1/stat"; } 2>/dev/null; then
    L=${L##*) }
    set -- $L
    T=$1 PP=$2 PG=$3 PS=$4 R=${20}
    return 0
  fi
  [ -e /proc/self/stat ] && return 1
  R=0 T=R
  kill -0 "$1" 2>/dev/null
}
# alive FILE: whether the process that FILE names by pid, start time and boot id is still the same one. P is its pid.
alive() {
  P= RS= RB=
  { read -r P RS RB < "$1"; } 2>/dev/null
  case $P in '' | *[!0-9]*) return 1 ;; esac
  boot_id
  [ "$RB" = "${B:--}" ] && born "$P" && [ "$R" = "$RS" ] && [ "$T" != Z ]
}
# stamp PID: prints the line that alive reads.
stamp() {
  boot_id
  born "$1"
  printf '%s %s %s\n' "$1" "${R:-0}" "${B:--}"
}
# me: ME becomes that line of this shell.
me() { [ -n "$ME" ] || { boot_id; born $$; ME="$$ ${R:-0} ${B:--}"; }; }
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
