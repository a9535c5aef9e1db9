#!/usr/bin/env bash
# The original's migration manager: writes a schema revision for a service's models and event types.
#
#   scripts/migration_manager.sh orchest-api migrate [message]   write a revision with what is new
#   scripts/migration_manager.sh orchest-api upgrade             bring the database up to date
#   scripts/migration_manager.sh orchest-api check               fail if something is declared and in no revision
set -euo pipefail

usage() {
  sed -n 's/^#   //p' "$0" >&2
  exit 2
}

[[ $# -ge 2 ]] || usage
service=$1 action=$2
shift 2
if [[ $service != orchest-api ]]; then
  echo "there is no service '$service'; the one with a database is orchest-api" >&2
  exit 2
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CLARION_APP=orchest.events
clarion=.venv/bin/clarion
[[ -x $clarion ]] || clarion=clarion

case $action in
  migrate) exec "$clarion" migrations revision --message "${*:-new event types and columns}" ;;
  upgrade) exec "$clarion" migrate ;;
  check) exec "$clarion" migrations check ;;
  *) usage ;;
esac
