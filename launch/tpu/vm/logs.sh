#!/bin/bash
# The trainer's log on this worker. With the argument `follow` it goes on until the job ends.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
source ./settings.sh
if [ "${1:-}" != follow ]; then
  exec sudo journalctl --unit="$UNIT" --output=cat --no-pager --lines=1000
fi
sudo journalctl --unit="$UNIT" --output=cat --no-pager --lines=200 --follow &
journal=$!
# The journal has no end, but the job has one.
while state=$(sudo systemctl is-active "$UNIT" || true) && [[ $state =~ ^(active|activating|reloading|deactivating)$ ]]; do
  sleep 10
done
sleep 2
sudo kill "$journal" 2>/dev/null || true
echo "$(hostname): the job is $state"
[ "$state" != failed ] || exit 5
