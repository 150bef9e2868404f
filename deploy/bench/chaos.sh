#!/usr/bin/env bash
# The edge against a venue with trouble of every kind, for as long as asked; prints what SPEC 3.6 promises beside what was measured.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=venue_and_edge.sh
. "$(dirname "${BASH_SOURCE[0]}")/venue_and_edge.sh"

help() {
    cat <<'TEXT'
Usage: deploy/bench/chaos.sh [--minutes N] [--seed N] [--interval] [--calm] [--bin DIR] [--keep DIR]

Runs `calib-lab venue --chaos` and `edge-node run` against it, then reads the edge's feeds and prints a table.

  --minutes N  how long (default 30)
  --seed N     of the market and of the trouble (default 1)
  --interval   a tick each 50 ms instead of one for each book change: the seed's synthetic run
  --calm       the same without trouble
  --bin DIR    the programs (default: .build/release of this repository)
  --keep DIR   leave the feeds and what the programs said there

Exit status: 0 every promise kept, 2 one broken, 1 the run failed, 64 usage.
TEXT
}

minutes=30 seed=1 trouble=(--chaos) trigger=book bin="$root/.build/release" keep=""
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            help
            exit 0
            ;;
        --minutes | --seed | --bin | --keep)
            [ $# -ge 2 ] || usage_error "$1 needs a value"
            case "$1" in
                --minutes) minutes="$2" ;;
                --seed) seed="$2" ;;
                --bin) bin="$2" ;;
                --keep) keep="$2" ;;
            esac
            shift 2
            ;;
        --interval)
            trigger=interval
            shift
            ;;
        --calm)
            trouble=()
            shift
            ;;
        *) usage_error "unknown argument '$1'" ;;
    esac
done
case "$minutes" in '' | *[!0-9]*) usage_error "--minutes '$minutes': a whole number is expected" ;; esac
[ "$minutes" -ge 1 ] || usage_error "--minutes 0: 1 and more are allowed"
command -v python3 >/dev/null || fail "python3 is needed to read the feeds"

begin_run

"$bin/calib-lab" venue --wire bybit --listen 127.0.0.1:0 --symbols BTCUSDT,ETHUSDT --seed "$seed" "${trouble[@]}" \
    >"$run/venue.out" 2>"$run/venue.log" </dev/null &
venue=$!
await "$venue" "$run/venue.out" listening
"$bin/edge-node" run --config "$root/config/edge.yaml" --set host=bench --set "artifacts_dir=$run/artifacts" \
    --set "venue.url=ws://$found/v5/public/linear" --set metrics.listen=off --set pipeline.pipeline_sample_rate=1 \
    --set paper.order_latency_ms=0 --set "pipeline.trigger=$trigger" >"$run/edge.out" 2>"$run/edge.log" </dev/null &
edge=$!
step "$minutes min against $found, seed $seed, ${trouble[0]:-calm}, trigger $trigger"
for ((left = minutes * 60; left > 0; left--)); do
    sleep 1
    kill -0 "$edge" 2>/dev/null || fail "the edge ended early: $(tail -n 1 "$run/edge.log")"
    kill -0 "$venue" 2>/dev/null || fail "the venue ended early: $(tail -n 1 "$run/venue.log")"
done
kill -TERM "$edge" && wait "$edge" || fail "the edge did not end well: $(tail -n 1 "$run/edge.log")"
edge=""
kill -TERM "$venue" && wait "$venue" || fail "the venue did not end well: $(tail -n 1 "$run/venue.log")"
venue=""
python3 "$root/deploy/bench/chaos_figures.py" "$run/artifacts/feeds" "$run/venue.out"
