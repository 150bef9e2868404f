# shellcheck shell=bash
# shellcheck disable=SC2154 # The variables are those of quickstart, which sources this.
# From a recording to a dataset: replay, build, summarise.

# A replay appends to the feeds it finds, as a restarted edge does: each run gets its own, so that no row is counted twice.
make_run_directory "$artifacts/edge/replay"
run="$made"

# What did not come to its end is not left behind as if it had.
clean_up() {
    if [ "$1" -eq 0 ]; then return; fi
    rm -rf "$run"
    step "failed or interrupted: $run is removed"
}
trap 'clean_up $?' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step "replaying through the edge: books, quotes, paper fills"
before=$EPOCHREALTIME
"$bin/edge-node" replay --config "$root/config/edge.yaml" --venue "$venue" --input "$input" --artifacts "$run" -o json >"$run/replay.json" </dev/null
after=$EPOCHREALTIME
replay_ms=$(((${after/[.,]/} - ${before/[.,]/}) / 1000))

first="$(json_value first_ts "$run/replay.json")"
last="$(json_value last_ts "$run/replay.json")"
[[ "$first" =~ ^[0-9]+$ && "$last" =~ ^[0-9]+$ ]] || fail "'$run/replay.json' names no span; does the recording hold any message?"
[ "$(json_value ticks "$run/replay.json")" != 0 ] || fail "no tick was priced: is --venue $venue the format of '$input', and does it hold a snapshot?"

# Whole intervals around the span: `to` is exclusive, so an instant on the grid needs the interval that begins there.
interval=60
if [ $((last - first)) -gt 7200000 ]; then interval=600; fi
from=$((first / 1000 / interval * interval))
to=$(((last / 1000 / interval + 1) * interval))

step "building the dataset from $(iso "$from") to $(iso "$to"), one row per $interval s"
"$bin/hubctl" dataset build --feeds-dir "$run/feeds" --output-dir "$run/datasets" \
    --from-ts "$(iso "$from")" --to-ts "$(iso "$to")" --interval-sec "$interval" >&2 </dev/null
dataset="$run/datasets/calib_$(date -u -d "@$from" +%Y%m%d_%H%M%S)_$(date -u -d "@$to" +%Y%m%d_%H%M%S).json"
[ -f "$dataset" ] || fail "the dataset '$dataset' was not written"

step "summarising"
"$bin/hubctl" dataset summary "$dataset" --reports-dir "$run/reports" >&2 </dev/null

total="$(json_value total_intervals "$dataset")"
filtered="$(json_value filtered_count "$dataset")"
kept="-"
if [[ "$total" =~ ^[0-9]+$ && "$filtered" =~ ^[0-9]+$ ]]; then kept=$((total - filtered)); fi

printf '\n'
for key in messages sequence_gaps unsynced_messages crossed ticks quotes fills quotes_hash; do row "$key" "$(json_value "$key" "$run/replay.json")"; done
row "intervals kept" "$kept"
row "intervals filtered" "$filtered"
row "replay wall time" "$replay_ms ms"
row "total wall time" "$((SECONDS - started)) s"
printf '\n'
row recording "$input"
row "replay result" "$run/replay.json"
row feeds "$run/feeds"
row dataset "$dataset"
row reports "$run/reports"
