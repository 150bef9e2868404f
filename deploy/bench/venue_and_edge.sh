# shellcheck shell=bash
# Sourced by the measurements of a real edge at a real venue: where they run, and how both end. `bin` and `keep` are the caller's options.

# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# Sets `run` to the folder; what runs as `venue` and `edge` ends with the script, and the folder goes unless it is to be kept.
begin_run() {
    local program
    for program in calib-lab edge-node; do
        # shellcheck disable=SC2154 # The caller's.
        [ -x "$bin/$program" ] || fail "$bin/$program is not there; build it with: swift build -c release"
    done
    run="${keep:-$(mktemp -d)}"
    mkdir -p "$run"
    venue="" edge=""
    trap 'clean_up $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

clean_up() {
    local status="$1" pid
    trap - EXIT INT TERM
    for pid in $edge $venue; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    if [ -z "$keep" ]; then rm -rf "$run"; fi
    exit "$status"
}

# Sets `found` to what the pattern finds in the first lines of a file, once it is there.
found=""
await() {
    local pid="$1" file="$2" key="$3"
    for _ in $(seq 1200); do
        found="$(sed -n "s/.*\"$key\":\"\([^\"]*\)\".*/\1/p" "$file" | head -n 1)"
        [ -z "$found" ] || return 0
        kill -0 "$pid" 2>/dev/null || fail "it did not start: $(tail -n 1 "${file%.out}.log")"
        sleep 0.1
    done
    fail "$file does not say where it listens"
}
