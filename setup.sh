#!/bin/sh
# Installs what is missing, and nothing twice: Icarus with the system's package manager, the package and its
# dependencies in .venv. Usage: setup.sh [EXTRA], where EXTRA is an optional dependency set of pyproject.toml.
set -eu
cd "$(dirname "$0")"
extra=${1:-}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# system_package APT DNF BREW: install a package under the name that each package manager gives it.
system_package() {
    echo "setup: installing $1 with the system's package manager" >&2
    if command -v apt-get >/dev/null; then
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null
    elif command -v dnf >/dev/null; then
        as_root dnf install -y -q "$2"
    elif command -v brew >/dev/null; then
        brew install --quiet "$3"
    else
        echo "setup: no apt-get, dnf or brew here; install $1 yourself, then run this again" >&2
        exit 1
    fi
}

find_python() {
    for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "setup: Python 3.11, 3.12 or 3.13 is needed; set PYTHON to one of them" >&2
    exit 1
}

command -v iverilog >/dev/null || system_package iverilog iverilog icarus-verilog
case $extra in
    # What Verilator writes is C++.
    test | bench | verilator) command -v "${CXX:-c++}" >/dev/null || system_package g++ gcc-c++ gcc ;;
esac

if [ ! -x .venv/bin/pip ]; then
    python=$(find_python)
    # Debian and Ubuntu split venv off Python; without it ensurepip is missing.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || system_package \
        "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" python3 python3
    "$python" -m venv .venv
fi

# The package is linked file by file, so a new file means installing again, as a new dependency does.
stamp=.venv/installed-${extra:-base}
state=$({ cat pyproject.toml setup.sh; find hw model sim -name '*.py' -o -name '*.npz' -o -name '*.json' -o -name '*.cpp' | sort; } | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$state" ]; then
    echo "setup: installing Python packages into .venv" >&2
    .venv/bin/pip install --quiet --disable-pip-version-check -e ".${extra:+[$extra]}" -C editable_mode=strict
    rm -f .venv/installed-*
    echo "$state" >"$stamp"
    # What has the extra has the base too.
    echo "$state" >.venv/installed-base
fi
