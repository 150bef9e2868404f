#!/usr/bin/env bash
# The edge with as many symbols as it promises a quote path for: a real venue's socket, a real writer, real files.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=venue_and_edge.sh
. "$(dirname "${BASH_SOURCE[0]}")/venue_and_edge.sh"

help() {
    cat <<'TEXT'
Usage: deploy/bench/many-symbols.sh [--symbols N] [--rate N] [--seconds N] [--seed N] [--bin DIR] [--keep DIR]

Writes a recording of that many symbols, serves it with `calib-lab venue --replay`, runs `edge-node run` against it with the default
configuration, and prints what /metrics says at the end: rows dropped, gaps, tick p99, memory.

  --symbols N  default 500
  --rate N     book updates a second and symbol (default 20)
  --seconds N  how long (default 120); a second takes 3.5 MB of temporary disk
  --seed N     of the market (default 1)
  --bin DIR    the programs (default: .build/release of this repository)
  --keep DIR   leave the feeds and what the programs said there

Exit status: 0 every promise kept, 2 one broken, 1 the run failed, 64 usage.
TEXT
}

symbols=500 rate=20 seconds=120 seed=1 bin="$root/.build/release" keep=""
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            help
            exit 0
            ;;
        --symbols | --rate | --seconds | --seed | --bin | --keep)
            [ $# -ge 2 ] || usage_error "$1 needs a value"
            case "$1" in
                --bin) bin="$2" ;;
                --keep) keep="$2" ;;
                *)
                    case "$2" in '' | 0* | *[!0-9]*) usage_error "$1 '$2': a whole number above 0 is expected" ;; esac
                    printf -v "${1#--}" %s "$2"
                    ;;
            esac
            shift 2
            ;;
        *) usage_error "unknown argument '$1'" ;;
    esac
done
[ "$symbols" -le 500 ] || usage_error "--symbols $symbols: allowed are 1 to 500"
[ "$seconds" -ge 20 ] || usage_error "--seconds $seconds: 20 and more are allowed"
command -v python3 >/dev/null || fail "python3 is needed"
command -v curl >/dev/null || fail "curl is needed"

begin_run

step "writing $seconds s of $symbols symbols"
python3 "$root/deploy/bench/many_symbols.py" write "$run/recording.jsonl" "$run/instruments.yaml" "$symbols" "$rate" "$seconds" "$seed"
"$bin/calib-lab" venue --wire bybit --listen 127.0.0.1:0 --replay "$run/recording.jsonl" >"$run/venue.out" 2>"$run/venue.log" </dev/null &
venue=$!
await "$venue" "$run/venue.out" listening
names="$(seq -f 'S%03gUSDT' -s , 0 $((symbols - 1)))"
"$bin/edge-node" run --config "$root/config/edge.yaml" --set host=bench --set "artifacts_dir=$run/artifacts" --set venue.name=bybit \
    --set "venue.url=ws://$found/v5/public/linear" --set "venue.symbols=$names" --set "instruments_file=$run/instruments.yaml" \
    --set metrics.listen=127.0.0.1:0 >"$run/edge.out" 2>"$run/edge.log" </dev/null &
edge=$!
await "$edge" "$run/edge.out" metrics
step "$symbols symbols with $rate updates a second for $seconds s"
# The last second is left out: where the recording ends, the venue says goodbye.
sleep $((seconds / 10))
curl -sf "http://$found/metrics" >"$run/early.txt"
sleep $((seconds - 1 - seconds / 10))
curl -sf "http://$found/metrics" >"$run/late.txt"
kill -TERM "$edge" && wait "$edge" || fail "the edge did not end well: $(tail -n 1 "$run/edge.log")"
edge=""
rm "$run/recording.jsonl"
python3 "$root/deploy/bench/many_symbols.py" figures "$run/early.txt" "$run/late.txt" "$symbols" "$rate" $((seconds - 1))
