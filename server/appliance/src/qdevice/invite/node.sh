#!/bin/sh
# Sets this node's QDevice client up: certificates by Corosync's own script, then the device in corosync.conf.
# tiebreaker-server serves this over TLS; whoever fetched it checked the server's key, and so does this script.
# Arguments: CLUSTER ALGORITHM. The invitation's secret is in TIEBREAKER_INVITATION.
set -eu
umask 077

URL='@URL@'
HOST='@HOST@'
PIN='@PIN@'
NET=/etc/corosync/qdevice/net
DB=$NET/nssdb

die() {
  printf 'tiebreaker: %s\n' "$*" >&2
  exit 1
}

# ask PATH FILE [ARGUMENTS OF CURL]: the answer goes to the file. The secret shows in no list of processes.
ask() {
  ask_path=$1
  ask_file=$2
  shift 2
  code=$(printf 'header = "Authorization: Bearer %s"\n' "$TIEBREAKER_INVITATION" |
    curl -sSk --pinnedpubkey "$PIN" --proto '=https' --max-time 30 -K - -o "$ask_file" -w '%{http_code}' "$@" "$URL$ask_path") ||
    die "$URL can't be asked"
  [ "$code" = 200 ] || die "the appliance refuses: $(head -c 500 "$ask_file")"
}

# Puts the former certificates back if the new ones were not finished.
undo() {
  status=$?
  trap - EXIT
  rm -rf "$work"
  if [ "$finished" = no ] && [ -n "$aside" ]; then
    rm -rf "$DB"
    mv "$aside" "$DB"
  fi
  exit "$status"
}

main() {
  [ $# = 2 ] || die "give CLUSTER ALGORITHM"
  cluster=$1
  algorithm=$2
  [ -n "${TIEBREAKER_INVITATION:-}" ] || die "TIEBREAKER_INVITATION is not set: use the whole line that \`tiebreaker-server qdevice invite\` printed"
  [ "$(id -u)" = 0 ] || die "this must run as root"
  for tool in curl awk diff cmp corosync-qdevice-net-certutil certutil; do
    command -v "$tool" >/dev/null || die "$tool is missing: on Debian and Proxmox VE run \`apt install curl corosync-qdevice\` first"
  done
  conf=/etc/corosync/corosync.conf
  shared=0
  if [ -e /etc/pve/corosync.conf ]; then
    conf=/etc/pve/corosync.conf
    shared=1
  fi
  [ -f "$conf" ] || die "$conf is missing: make the cluster first"

  work=$(mktemp -d)
  aside=
  finished=no
  trap undo EXIT
  trap 'exit 1' HUP INT TERM

  # First of all: can the device be written? A refusal must not cost the invitation.
  cp "$conf" "$work/before"
  cat >"$work/conf.awk" <<'AWK'
@AWK@
AWK
  changed=yes
  awk -v cluster="$cluster" -v host="$HOST" -v algorithm="$algorithm" -v bump="$shared" -f "$work/conf.awk" \
    "$conf" >"$work/after" || case $? in
    3) changed=no ;;
    *) die "nothing was changed" ;;
  esac

  ask /qdevice/ca.crt "$work/ca.crt"
  stamp=$(date +%Y%m%d-%H%M%S)
  if [ -e "$DB/cert9.db" ] || [ -e "$DB/cert8.db" ]; then
    mv "$DB" "$DB.before-$stamp"
    aside=$DB.before-$stamp
  fi
  corosync-qdevice-net-certutil -i -c "$work/ca.crt" >"$work/log" 2>&1 || die "$(cat "$work/log")"
  corosync-qdevice-net-certutil -r -n "$cluster" >"$work/log" 2>&1 || die "$(cat "$work/log")"
  ask /qdevice/sign "$DB/cluster-$cluster.crt" --data-binary "@$DB/qdevice-net-node.crq" \
    -H 'Content-Type: application/pkcs10'
  corosync-qdevice-net-certutil -M -c "$DB/cluster-$cluster.crt" >"$work/log" 2>&1 || die "$(cat "$work/log")"
  # The script above ends well whatever certutil said.
  certutil -L -d "$DB" -n 'Cluster Cert' >/dev/null 2>&1 || die "the certificate was not taken: $(cat "$work/log")"
  finished=yes
  echo "This node has its certificate for the QDevice server $HOST."
  [ -z "$aside" ] || echo "The former certificates are in $aside."

  if [ "$changed" = yes ]; then
    cmp -s "$conf" "$work/before" || die "$conf was changed meanwhile: run this again with a new invitation"
    backup=/etc/corosync/corosync.conf.before-$stamp
    cp "$work/before" "$backup"
    # With owner and mode where the file system has them; beside it, so that the change is one rename.
    cp -p "$conf" "$conf.new" 2>/dev/null || cp "$conf" "$conf.new"
    cat "$work/after" >"$conf.new"
    sync "$conf.new" 2>/dev/null || sync
    mv "$conf.new" "$conf"
    echo "$conf has the device now; as it was it is in $backup:"
    diff -u "$work/before" "$conf" || true
  else
    echo "$conf has this device already."
  fi

  services=no
  if [ -d /run/systemd/system ]; then
    services=yes
  fi
  if [ "$shared" = 1 ] || [ "$changed" = no ]; then
    if [ "$services" = yes ]; then
      systemctl enable corosync-qdevice
      systemctl restart corosync-qdevice
    else
      echo "Next: start corosync-qdevice."
    fi
    echo "Every other node needs an invitation of its own. Then look: corosync-quorumtool -s"
  else
    [ "$services" = no ] || systemctl enable corosync-qdevice
    echo "Next, when every node has run the line of an invitation of its own:"
    echo "  on one node:   corosync-cfgtool -R"
    echo "  on every node: systemctl restart corosync-qdevice"
    echo "  then look:     corosync-quorumtool -s"
  fi
}

# In one piece: what was fetched by halves does nothing.
main "$@"
