# Starting units; follow.sh and hold.sh are with it.
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
# furnish DIR NUMBER START SCRIPTNAME SCRIPT MAIN: puts everything into a unit's folder.
furnish() {
  eval "start_$2=\$3"
  { printf %s "$2.$MARKER" > "$1/marker" && printf %s "$5" > "$1/$4" &&
    { [ -z "$6" ] || printf %s "$6" > "$1/main"; }; } 2>/dev/null
}
# make KEY…: makes the folders of all units, and the base when it is missing, with one program: every program that a host
# has to start costs it more than all of this text. D is then the first unit's. Fails when somebody else has made that one
# already; `why` is what was said, and `taken` is set when it is another unit's folder that was there.
make() {
  taken= bare= BASE=$HOME/.delegate
  if [ $round = 1 ] && [ "$BASE" != /.delegate ] && [ -w "$HOME" ] && [ ! -e "$BASE" ] && [ ! -h "$BASE" ]; then
    bare=.delegate
  else
    base || { why="no folder of our own with mode 0700:$uid_base" round=9; return 1; }
  fi
  D=$BASE/$1
  cd "${BASE%/*}" || { why="cannot enter ${BASE%/*}"; return 1; }
  list=
  for k in "$@"; do list="$list ${BASE##*/}/$k"; done
  # What could not be made is named in what mkdir says, in every language.
  why=$(mkdir -m 700 $bare $list 2>&1) && return 0
  case $why in *"$1"*) return 1 ;; esac
  [ -d "$D" ] || return 1
  list=
  for k in "$@"; do
    case $why in *"$k"*) taken=1 ;; *) list="$list ${BASE##*/}/$k" ;; esac
  done
  # The base came from another step in this moment, or it is no longer what was just looked at.
  [ -z "$bare" ] || private "$BASE" || { rm -rf $list; return 1; }
  return 0
}
# boot OUT ERR, then for each unit KEY START SCRIPTNAME SCRIPT MAIN: starts the first unit unless it was started before,
# and with it those after it; then follows. LOGIN, TOKEN and MARKER are set in front.
boot() {
  oo=$1 ee=$2 key=$3
  shift 2
  keys= i=0
  for k in "$@"; do
    i=$((i % 5 + 1))
    [ $i -ne 1 ] || keys="$keys $k"
  done
  round=0 D=
  while :; do
    round=$((round + 1))
    if ! leaf "$key"; then
      if make $keys; then
        launch "$@"
        return
      fi
      if [ ! -d "$D" ]; then
        [ $round -lt 4 ] && continue
        say refused "$why"
        return
      fi
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
# launch, as boot: `keys` are the units, D is the first one's new folder.
launch() {
  cd "${D%/*}" || exit 0
  if [ -n "$taken" ]; then
    # Some are from an earlier life of the agent: each is looked at when its turn comes.
    for k in $keys; do
      [ -e "$k/stop" ] && [ ! -e "$k/by" ] && { rm -rf "$D"; say stopped; return; }
    done
    for k in $keys; do
      case $k in "$key") ;; *) case $why in *"$k"*) ;; *) rm -rf "$k" ;; esac ;; esac
    done
    keys=$key
  fi
  { umask > "$key/mask" && read -r MASK < "$key/mask"; } 2>/dev/null
  umask 077
  n=0 ok=
  if { me && printf '%s\n' "$ME" > "$key/by" && printf %s "$TOKEN" > "$key/token"; } 2>/dev/null; then
    ok=1
    for k in $keys; do
      n=$((n + 1))
      [ $n -eq 1 ] || { printf '%s %s\n' "$key" $n > "$k/lead"; } 2>/dev/null || ok=
      furnish "$k" $n "$2" "$3" "$4" "$5" || ok=
      shift 5
    done
    [ $n -eq 1 ] || { printf '%s\n' "${keys# *"$key"}" > "$key/units"; } 2>/dev/null || ok=
  fi
  if [ -z "$ok" ]; then
    rm -rf $keys
    say refused "cannot write to ${D%/*} (disk full or quota)"
    return
  fi
  mine=${keys# }
  seek_setsid
  cd "$D" || exit 0
  # The holder's output is one stream, its descriptor 6 the other. Redirections are made within the new processes: with
  # those around them, this shell would keep its own output in descriptors that they take over.
  {
    exec < /dev/null 2> /dev/null 6>&1
    hold "$LOGIN" "${D%/*}" $keys | spool o &
  } | spool e &
  say started "$TOKEN" 0 0 0
  follow "$D" "$oo" "$ee"
}
