# The holder: it starts one script, spools both its outputs into the folder, and writes down how it ended. It depends on
# nothing of the agent, so an agent that is killed loses neither output nor exit status. Called with the folder; in its
# environment stand that of the script and the settings DELEGATE_HOLD_*.
delegate_mask=$(umask)
umask 077
cd "$1" || exit 1
delegate_dir=$PWD
delegate_path=$PATH
PATH=$DELEGATE_HOLD_PATH
# It lives until the script has ended; the script itself gets the usual answers to signals again.
trap : HUP INT TERM
set -C
# Whoever creates `go` runs the script: there is never a second one.
{ printf '%s\n' "$$" > go; } 2>/dev/null || exit 0
set +C
# spool NAME: copies its input into NAME.OFFSET, a new file every 256 reads. NAME.ack has the offset up to which the agent
# has everything safe; with too much beyond it the script waits. `gone` tells that nobody wants the rest.
spool() {
  w=0
  while :; do
    while :; do
      a=0
      { read -r a < "$1.ack"; } 2>/dev/null
      [ $((w - ${a:-0})) -le "$DELEGATE_HOLD_LIMIT" ] && break
      [ -e gone ] || [ ! -d "$delegate_dir" ] && exec cat > /dev/null
      sleep 0.1 2>/dev/null || sleep 1
    done
    if ! dd bs=65536 count=256 of="$1.$w" 2>/dev/null; then
      { : > "$1.lost"; } 2>/dev/null
      exec cat > /dev/null
    fi
    [ -e gone ] && exec cat > /dev/null
    b=$(wc -c < "$1.$w") || exec cat > /dev/null
    [ "$b" -gt 0 ] || break
    w=$((w + b))
  done
}
rm -f o.p e.p
mkfifo o.p e.p || { printf 'folder\n' > fault; printf '1\n' > exit; exit 1; }
spool o < o.p &
spool e < e.p &
exec 5> o.p 6> e.p
(
  PATH=$delegate_path
  DELEGATE_PROCESS=$DELEGATE_HOLD
  export PATH DELEGATE_PROCESS
  delegate_work=$DELEGATE_HOLD_WORK delegate_program=$DELEGATE_HOLD_PROGRAM delegate_file=$DELEGATE_HOLD_FILE
  unset DELEGATE_HOLD DELEGATE_HOLD_PATH DELEGATE_HOLD_LIMIT DELEGATE_HOLD_WORK DELEGATE_HOLD_PROGRAM \
    DELEGATE_HOLD_FILE
  cd -- "$delegate_work" 2>/dev/null || { printf 'directory\n' > "$delegate_dir/fault"; exit 1; }
  unset OLDPWD
  command -v "$delegate_program" > /dev/null 2>&1 ||
    { printf 'interpreter\n' > "$delegate_dir/fault"; exit 127; }
  umask "$delegate_mask"
  case $delegate_program in
    pwsh) exec pwsh -NoProfile -NonInteractive -File "$delegate_dir/$delegate_file" ;;
    *) exec "$delegate_program" "$delegate_dir/$delegate_file" ;;
  esac
) < /dev/null >&5 2>&6 5>&- 6>&-
delegate_code=$?
# The text of the script and its private folders are of no use any more, and may hold secrets.
rm -rf script script.ps1 main home tmp
printf '%s\n' "$delegate_code" > exit.tmp && mv -f exit.tmp exit
# Behind everything that the script has printed: with these both outputs are complete, though a background process may
# keep them open.
read -r delegate_token < token
printf '\001%s\n' "$delegate_token" >&5
printf '\001%s\n' "$delegate_token" >&6
exec 5>&- 6>&-
wait
