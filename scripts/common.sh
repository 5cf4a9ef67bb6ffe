# Sourced by the scripts: finds a Python, keeps .venv up to date with pyproject.toml.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  local name
  for name in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 \
      && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "Python 3.11 or newer is needed, and was not found (PYTHON=/path/to/python names one)." >&2
  exit 2
}

# ready EXTRAS: .venv exists and holds what pyproject.toml asks for ("" or "[dev]").
ready() {
  local extras=$1 python stamp
  python=$(find_python)
  stamp=".venv/installed$extras"
  if [ ! -x .venv/bin/python ]; then
    echo "making .venv" >&2
    "$python" -m venv .venv || {
      echo "The venv module is incomplete; on Debian: apt install python3-venv" >&2
      exit 2
    }
  fi
  if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    echo "installing what pyproject.toml asks for" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras" >&2
    touch "$stamp"
  fi
}
