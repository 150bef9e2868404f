# shellcheck shell=bash
# shellcheck disable=SC2154 # The variables are those of quickstart, which sources this.
# The pair, live: exchange -> two edges -> TLS -> hub -> dataset and reports, with an experiment that is taken back.

hosts=(edge-a edge-b)
symbols=BTCUSDT,ETHUSDT,SOLUSDT,XRPUSDT
make_run_directory "$artifacts/quickstart/run"
run="$made"
logs="$run/logs"
pki="$artifacts/quickstart/pki"
mkdir -p "$logs"

# Every process we start, newest last; they are ended newest first, and nothing else is.
names=() pids=()

start() {
    local name="$1"
    shift
    "$@" >"$run/$name.out" 2>"$logs/$name.log" </dev/null &
    names+=("$name")
    pids+=($!)
}

# Ends one of our processes and waits for it; after ten seconds it is killed.
stop() {
    local index pid patience=100
    for index in "${!names[@]}"; do
        if [ "${names[$index]}" != "$1" ]; then continue; fi
        pid="${pids[$index]}"
        unset "names[$index]" "pids[$index]"
        kill -TERM "$pid" 2>/dev/null || return 0
        while kill -0 "$pid" 2>/dev/null && [ $patience -gt 0 ]; do
            sleep 0.1
            patience=$((patience - 1))
        done
        kill -KILL "$pid" 2>/dev/null && step "warning: $1 did not end by itself and was killed"
        wait "$pid" 2>/dev/null || true
        return 0
    done
}

clean_up() {
    local status="$1" index
    trap - EXIT INT TERM
    for index in $(printf '%s\n' "${!names[@]}" | sort -rn); do stop "${names[$index]}"; done
    if [ "$status" -ne 0 ]; then step "failed or interrupted (status $status); what the programs said is in $logs"; fi
    exit "$status"
}
trap 'clean_up $?' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Waits until the process has said where it listens, and leaves that in `said`.
said=""
await_output() {
    local name="$1" key="$2" patience=300
    while [ $patience -gt 0 ]; do
        said="$(json_value "$key" "$run/$name.out")"
        if [ "$said" != - ]; then return; fi
        await_alive "$name"
        sleep 0.1
        patience=$((patience - 1))
    done
    fail "$name did not start within 30 s; see $logs/$name.log"
}

await_alive() {
    local index
    for index in "${!names[@]}"; do
        if [ "${names[$index]}" = "$1" ] && ! kill -0 "${pids[$index]}" 2>/dev/null; then
            tail -n 3 "$logs/$1.log" >&2
            fail "$1 ended; see $logs/$1.log"
        fi
    done
}

hubctl() { "$bin/hubctl" "$@" --context "$pki/operators/demo" --hub "$hub" </dev/null; }

# A line that rewrites itself on a terminal, and one line every ten seconds elsewhere.
progress() {
    if [ -t 2 ]; then
        printf '\r\033[K    %s' "$1" >&2
    elif [ $((elapsed % 10)) -eq 0 ]; then
        printf '    %s\n' "$1" >&2
    fi
}
end_progress() { if [ -t 2 ]; then printf '\r\033[K' >&2; fi; }

# Lets the pair run until so many seconds after the beginning.
run_until() {
    while elapsed=$((SECONDS - begun)) && [ $elapsed -lt "$1" ]; do
        for name in venue hub "${hosts[@]}"; do await_alive "$name"; done
        progress "$elapsed of $seconds s: $2, $(cat "$artifacts"/hub/feeds/host=*/*.jsonl 2>/dev/null | wc -c | numfmt --to=iec) at the hub"
        sleep 1
    done
    end_progress
}

step "starting the exchange: $symbols, seed $seed"
start venue "$bin/calib-lab" venue --wire bybit --listen 127.0.0.1:0 --symbols "$symbols" --seed "$seed"
await_output venue listening
venue="$said"

step "starting the hub"
"$bin/calib-hub" init --directory "$pki" --edge "${hosts[0]}" --edge "${hosts[1]}" --operator demo >"$run/init.out" 2>"$logs/init.log" </dev/null ||
    fail "calib-hub init failed; see $logs/init.log"
start hub "$bin/calib-hub" run --config "$pki/hub.yaml" --set listen=127.0.0.1:0 --set metrics.listen=127.0.0.1:0 --set "artifacts_dir=$artifacts/hub"
await_output hub listening
hub="$said"

for host in "${hosts[@]}"; do
    step "starting $host"
    start "$host" "$bin/edge-node" run --config "$root/config/edge.yaml" \
        --set "host=$host" --set "artifacts_dir=$artifacts/edge/$host" \
        --set venue.name=sim --set "venue.url=ws://$venue/v5/public/linear" --set "venue.symbols=$symbols" \
        --set hub.enabled=true --set "hub.host=${hub%:*}" --set "hub.port=${hub##*:}" --set hub.server_name=localhost \
        --set "tls.certificate=$pki/edges/$host/cert.pem" --set "tls.key=$pki/edges/$host/key.pem" --set "tls.authority=$pki/edges/$host/ca.pem" \
        --set metrics.listen=127.0.0.1:0
done
for host in "${hosts[@]}"; do await_output "$host" metrics; done

connected() { hubctl host list -o json >"$run/hosts.json" 2>>"$logs/hubctl.log" && grep -o '"state" *: *"connected"' "$run/hosts.json" | wc -l; }
patience=100
until [ "$(connected)" = "${#hosts[@]}" ]; do
    for name in venue hub "${hosts[@]}"; do await_alive "$name"; done
    [ $patience -gt 0 ] || fail "the edges did not reach the hub within 30 s; see $logs"
    patience=$((patience - 1))
    sleep 0.3
done

begun=$SECONDS
first=$(date +%s)
experiment="demo-$stamp"
run_until $((seconds / 5)) "quoting"
step "starting experiment $experiment: half the symbols quote 0.2 bps narrower"
hubctl experiment create --id "$experiment" --design symbol --candidate spread.base_bps=0.8 --reason "quickstart: try a narrower width" -o json >"$run/draft.json"
hubctl experiment start "$experiment" --reason "quickstart: half the symbols" -o json >"$run/experiment.json"
run_until $((seconds * 7 / 10)) "experiment $experiment"
step "taking it back"
hubctl experiment rollback "$experiment" --reason "quickstart: show a rollback" -o json >"$run/rollback.json"
run_until "$seconds" "rolled back"

step "stopping the edges"
for host in "${hosts[@]}"; do stop "$host"; done
last=$(date +%s)

# Every byte an edge wrote is at the hub, under the same name.
files=0 bytes=0
for host in "${hosts[@]}"; do
    for file in "$artifacts/edge/$host/feeds"/*.jsonl; do
        copy="$artifacts/hub/feeds/host=$host/$(basename "$file")"
        cmp -s -n "$(stat -c %s "$copy")" "$file" "$copy" || fail "'$copy' is not a prefix of '$file'"
        files=$((files + 1)) bytes=$((bytes + $(stat -c %s "$copy")))
        missing=$(($(stat -c %s "$file") - $(stat -c %s "$copy")))
        if [ $missing -gt 0 ]; then step "note: $missing bytes of $(basename "$file") of $host are not at the hub yet; the edge's next start sends them"; fi
    done
done

interval=60
if [ "$seconds" -le 300 ]; then interval=10; fi
from=$((first / interval * interval))
to=$(((last / interval + 1) * interval))
step "building the dataset at the hub: $(iso $from) to $(iso $to), one row per $interval s"
hubctl dataset build --from-ts "$(iso $from)" --to-ts "$(iso $to)" --interval-sec "$interval" --arm all -o json >"$run/dataset.json"
name="calib_$(date -u -d "@$from" +%Y%m%d_%H%M%S)_$(date -u -d "@$to" +%Y%m%d_%H%M%S)"
hubctl dataset pull "$name" --output-dir "$run" >&2

step "building and pulling the reports"
hubctl report build --dataset "$name" -o json >"$run/summary.json"
hubctl report build --experiment "$experiment" -o json >"$run/report.json"
for report in summary report; do hubctl report pull "$(json_value name "$run/$report.json")" --output-dir "$run" >&2; done

stop hub
stop venue

# The largest of the hosts' values of one member of the rollback's answer.
slowest() { grep -o "\"$1\": *[0-9.]*" "$run/rollback.json" | awk -F: '$2 > most { most = $2 } END { print most + 0 }'; }

printf '\n'
row "quoted for" "$((last - first)) s on ${#hosts[@]} edges, $symbols"
for key in ticks fills; do row "$key rows" "$(grep -o "\"$key\": *[0-9]*" "$run/$name.json" | awk -F: '{ sum += $2 } END { print sum + 0 }')"; done
row "feed files at the hub" "$files, $bytes bytes, each a byte prefix of its edge's file"
row "experiment" "$experiment"
row "rollback applied" "$(slowest applied_latency_ms) ms after the order, latched $(slowest latched_latency_ms) ms, on the slowest edge"
row "intervals kept" "$(json_value kept_intervals "$run/dataset.json")"
row "intervals filtered" "$(json_value filtered_intervals "$run/dataset.json")"
row "total wall time" "$((SECONDS - started)) s"
printf '\n'
row "edges' feeds" "$artifacts/edge/{$(IFS=,; echo "${hosts[*]}")}/feeds"
row "hub's feeds" "$artifacts/hub/feeds/host={$(IFS=,; echo "${hosts[*]}")}"
row dataset "$run/$name.json"
row reports "$run/calib_summary_$name.md, $run/$(json_value name "$run/report.json")"
row logs "$logs"
