# shellcheck shell=bash
# shellcheck disable=SC2034 # The variables are for the scripts that source this.
# Sourced by the scripts beside it: where the repository is, progress lines, and the system packages.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

step() { printf '==> %s\n' "$*" >&2; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

usage_error() {
    printf '%s: %s (see --help)\n' "${0##*/}" "$*" >&2
    exit 64
}

# The libraries the build links, and pkg-config, without which SwiftPM warns that it cannot look for them.
build_packages=(libssl-dev libsqlite3-dev zlib1g-dev libzstd-dev pkg-config)
# What only the tests use: Debian's own python3 with the JSON Schema validator.
test_packages=(python3 python3-jsonschema strace)

# Installs those of the named Debian packages that are missing; asks for nothing when none is.
install_missing() {
    local package missing=()
    if ! command -v dpkg >/dev/null; then
        step "not a Debian system: make sure that you have the like of $*"
        return
    fi
    for package in "$@"; do
        # `dpkg -s` also knows removed packages whose configuration is still there.
        dpkg -s "$package" 2>/dev/null | grep -q '^Status: install ok installed$' || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then return; fi
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "missing packages: ${missing[*]}; install them as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    step "installing ${missing[*]}"
    {
        "${as_root[@]}" apt-get update -q
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    } >&2 </dev/null || fail "cannot install ${missing[*]}; is the network up, and may this user install packages?"
}

require_swift() {
    command -v swift >/dev/null || fail "swift is not on the PATH; install Swift 6.2 or newer (https://www.swift.org/install)"
}
