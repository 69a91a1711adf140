# Shared by the holder and by every program sent to the host. POSIX sh; no local variables, so names are per function.
nap() { sleep "$1" 2>/dev/null || sleep 1; }
# boot_id: B becomes this boot's id, empty where the kernel has none.
boot_id() { B=; { read -r B < /proc/sys/kernel/random/boot_id; } 2>/dev/null; }
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
# seek_setsid: delegate_setsid becomes the path of setsid if there is one. A script's own PATH must not matter.
seek_setsid() {
  delegate_setsid= old=$IFS IFS=:
  for d in $PATH; do
    [ -x "$d/setsid" ] && delegate_setsid=$d/setsid && break
  done
  IFS=$old
}
# apart COMMAND…: becomes it as leader of its own session; without any means for that, as it is.
apart() {
  if [ -n "$delegate_setsid" ]; then
    exec "$delegate_setsid" "$@"
  elif command -v perl >/dev/null 2>&1; then
    exec perl -e 'use POSIX; POSIX::setsid(); exec @ARGV' "$@"
  elif command -v python3 >/dev/null 2>&1; then
    exec python3 -c 'import os,sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])' "$@"
  fi
  exec "$@"
}
