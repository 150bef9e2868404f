"""Reads an edge's feeds and a troubled venue's report, and prints what SPEC 3.6 promises beside what was measured.

Usage: chaos_figures.py FEEDS_DIR VENUE_OUTPUT. Exit status: 0 every promise kept, 2 one broken.

Uptime: the share of symbol time with a proven book (from `resync` to `gap` or `disconnected`), while the venue was up: its stalls, delays and
half-open connections, which it reports itself, count neither way; reconnecting after a close or a reset counts against the edge.
Quoted: quote time of both sides over twice the run's time, outages included; guards and the inventory take their share of it.
Quantiles follow SPEC 1.4: ascending[min(n - 1, q * n / 100)].
"""

import glob
import json
import os
import sys


def rows(feed):
    for path in sorted(glob.glob(os.path.join(sys.argv[1], f"{feed}_2*.jsonl"))):
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def quantile(values, percent):
    ascending = sorted(values)
    return ascending[min(len(ascending) - 1, percent * len(ascending) // 100)] if ascending else None


def overlap(windows, others):
    return sum(max(0, min(b, d) - max(a, c)) for a, b in windows for c, d in others)


events = list(rows("events"))
symbols = sorted({event["symbol"] for event in events if event.get("event") == "resync"})
begin = events[0]["ts"]
end = max(event["ts"] for event in events)

venue = {"faults": {}, "outages": []}
with open(sys.argv[2], encoding="utf-8") as lines:
    for line in lines:
        report = json.loads(line)
        if "faults" in report:
            venue["faults"] = report["faults"]
            venue["outages"] += report["outages"]
withheld = []
for outage in sorted((o["from"], o["to"]) for o in venue["outages"]):
    # What is late needs a moment to be read; outages of one connection do not overlap.
    withheld.append(outage)

unproven = {symbol: [] for symbol in symbols}
healing, reconnecting = [], []
for symbol in symbols:
    lost, is_gap = begin, False
    for event in events:
        kind = event["event"]
        if lost is None and (kind == "disconnected" or kind == "gap" and event.get("symbol") == symbol):
            lost, is_gap = event["ts"], kind == "gap"
        elif lost is not None and kind == "disconnected":
            is_gap = False
        elif lost is not None and kind == "resync" and event.get("symbol") == symbol:
            unproven[symbol].append((lost, event["ts"]))
            if lost != begin:
                # The venue's own silence is not the edge's.
                waited = event["ts"] - lost - overlap([(lost, event["ts"])], withheld)
                (healing if is_gap else reconnecting).append(waited)
            lost = None
    if lost is not None:
        unproven[symbol].append((lost, end))

first_proof = max(windows[0][1] for windows in unproven.values())
known = lost_time = 0
for symbol in symbols:
    run = [(first_proof, end)]
    outside = overlap(run, withheld)
    known += end - first_proof - outside
    windows = [(max(a, first_proof), b) for a, b in unproven[symbol] if b > first_proof]
    lost_time += sum(b - a for a, b in windows) - overlap(windows, withheld)
uptime = 1 - lost_time / known

wrong_ticks = 0
fetch, total, missed, ticks = [], [], 0, 0
for tick in rows("pipeline_ticks"):
    if any(a < tick["ts"] < b for a, b in unproven[tick["symbol"]]):
        wrong_ticks += 1
    stage = tick["stage_latencies"].get("FetchMDStage")
    if stage is not None:
        fetch.append(stage)
    total.append(tick["tick_total_ms"])
# A cancel takes effect with the frame that loses the book, or with the edge's next turn.
wrong_orders = orders = 0
for order in rows("quotes"):
    orders += 1
    placed = order["ts"] - order["resting_ms"]
    if any(placed < a and min(order["ts"], b) > a + 500 for a, b in unproven[order["symbol"]]):
        wrong_orders += 1

counts = {}
quote_ms = 0
for snapshot in rows("feature_snapshots"):
    for key, value in snapshot["counts"].items():
        counts[key] = counts.get(key, 0) + value
    quote_ms += snapshot["sums"]["quote_ms"] or 0
reads = counts["cache_hits"] + counts["cache_misses"] + counts["cache_stale"]
hit = counts["cache_hits"] / reads
miss = counts["deadline_misses"] / counts["ticks"]
quoted = quote_ms / (2 * len(symbols) * (end - begin))

broken = False


def line(name, value, promise="", kept=True):
    global broken
    broken = broken or not kept
    print(f"{name:34} {value:>14}  {promise:12} {'' if not promise else 'ok' if kept else 'BROKEN'}")


def milliseconds(value):
    return "-" if value is None else f"{value:.3f} ms"


print("trouble: " + (", ".join(f"{kind} {count}" for kind, count in venue["faults"].items()) or "none"))
print(f"{(end - begin) / 60000:.1f} min, {len(symbols)} symbols, {counts['ticks']} ticks, {orders} orders, {counts['fills']} fills\n")
line("ticks on unproven books", wrong_ticks, "0", wrong_ticks == 0)
line("orders left on unproven books", wrong_orders, "0", wrong_orders == 0)
line("uptime while the venue is up", f"{100 * uptime:.3f} %", ">= 99.5 %", uptime >= 0.995)
line("quoted, of all time", f"{100 * quoted:.2f} %")
p99 = quantile(healing, 99)
line("gaps healed", len(healing))
line("gap -> proven book, p50", milliseconds(quantile(healing, 50)))
# The round trip on loopback is below a millisecond.
line("gap -> proven book, p99", milliseconds(p99), "<= 100 ms", p99 is None or p99 <= 100)
line("disconnect -> proven book, p50", milliseconds(quantile(reconnecting, 50)))
line("disconnect -> proven book, p99", milliseconds(quantile(reconnecting, 99)))
line("cache hit ratio", f"{hit:.4f}", ">= 0.7", hit >= 0.7)
line("fetch p95", milliseconds(quantile(fetch, 95)), "<= 35 ms", quantile(fetch, 95) <= 35)
line("tick p95", milliseconds(quantile(total, 95)), "<= 140 ms", quantile(total, 95) <= 140)
line("tick p99", milliseconds(quantile(total, 99)))
line("deadline miss", f"{100 * miss:.3f} %", "< 2 %", miss < 0.02)
missing = [kind for kind, count in venue["faults"].items() if count == 0]
if missing:
    print("\nnever came: " + ", ".join(missing) + " (the first 19 s have one of each)")
sys.exit(2 if broken or missing else 0)
