# Set-up shared by scripts/demo and scripts/test: a Python, an environment, packages, a broker. Sourced, not run.
# Everything it makes lies in .venv* of this folder; nothing else of the machine changes, but for mosquitto from apt.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
setup_log=$(mktemp "${TMPDIR:-/tmp}/stillwatch-setup.XXXXXX")
trap 'rm -f "$setup_log"' EXIT

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$1"
    exit "${2:-1}"
}

clock() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }

# step TEXT COMMAND…: run a long command quietly, show that it lives, and show its output only when it fails.
step() {
    local text=$1 began=$SECONDS status=0 shown=0 pid
    shift
    "$@" >"$setup_log" 2>&1 </dev/null &
    pid=$!
    [ -t 2 ] || say "[$(clock)] $text …"
    while kill -0 "$pid" 2>/dev/null; do
        if [ -t 2 ]; then
            printf '\r[%s] %s … ' "$(clock)" "$text" >&2
            sleep 0.5
        else
            sleep 1
            if ((SECONDS - began >= (shown + 1) * 20)); then
                shown=$(((SECONDS - began) / 20))
                say "[$(clock)]   still at it: $(grep -v WARNING "$setup_log" | tail -n 1 | cut -c 1-100)"
            fi
        fi
    done
    wait "$pid" || status=$?
    [ -t 2 ] && printf '\r' >&2
    if ((status)); then
        say "[$(clock)] $text: failed (status $status)"
        tail -n 25 "$setup_log" >&2
        return "$status"
    fi
    say "[$(clock)] $text: done in $((SECONDS - began)) s"
}

# as_root COMMAND…: with the rights of root, or not at all; never asks for a password.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

may_install() { command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get install -y --no-install-recommends "$@" && return
    as_root apt-get update && as_root apt-get install -y --no-install-recommends "$@"
}

python_is_new_enough() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# find_python: print the path of a Python 3.10 to 3.13. STILLWATCH_PYTHON overrides the search.
find_python() {
    local name
    for name in ${STILLWATCH_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3}; do
        if command -v "$name" >/dev/null && python_is_new_enough "$name"; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

# make_environment FOLDER PYTHON: an empty virtual environment, whatever parts of venv the distribution left out.
make_environment() {
    local folder=$1 python=$2
    rm -rf "$folder"
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv "$folder"
    elif may_install && apt_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; then
        "$python" -m venv "$folder"
    elif "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m pip install --quiet --target "$folder.bootstrap" virtualenv &&
            PYTHONPATH="$folder.bootstrap" "$python" -m virtualenv --quiet "$folder" &&
            rm -rf "$folder.bootstrap"
    else
        echo "This Python has neither venv nor pip. Install one: sudo apt-get install python3-venv"
        return 1
    fi
}

# environment FOLDER PYTHON WHAT PIP-ARGUMENTS…: make and fill FOLDER unless it already holds WHAT for this very
# pyproject.toml, Python and place.
environment() {
    local folder=$1 python=$2 what=$3 wanted
    shift 3
    wanted=$({ cat pyproject.toml; printf '%s\n' "$PWD" "$("$python" -VV)" "$@"; } | sha256sum)
    if [ "$(cat "$folder/stillwatch-$what.stamp" 2>/dev/null)" = "$wanted" ] && "$folder/bin/python" -c ''; then
        return
    fi
    if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1 ||
        [ "$("$folder/bin/python" -VV)" != "$("$python" -VV)" ]; then
        step "making $folder with $("$python" -V)" make_environment "$folder" "$python" || return
    fi
    step "installing packages into $folder (a minute or two)" \
        "$folder/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" || return
    printf '%s\n' "$wanted" >"$folder/stillwatch-$what.stamp"
}

mosquitto_command="sudo apt-get install -y --no-install-recommends mosquitto mosquitto-clients"

# broker: mosquitto on this machine, installed if that may be done without asking. Returns 1 when there is none.
broker() {
    PATH=$PATH:/usr/sbin:/usr/local/sbin
    command -v mosquitto >/dev/null && command -v mosquitto_sub >/dev/null && return
    may_install && step "installing the MQTT broker mosquitto" apt_install mosquitto mosquitto-clients
    command -v mosquitto >/dev/null
}

python=$(find_python) || fail "Stillwatch needs Python 3.10 to 3.13; none was found. Install one: sudo apt-get install python3 python3-venv"
