"""Datasets of feeds in the first program's form, made by others: a slow reference to the written rules, DuckDB in SQL, and Polars.

    aggregate.py reference DIR FROM TO INTERVAL         one JSON object: rows by (symbol, start), rejected lines by reason
    aggregate.py duckdb|polars DIR FROM TO INTERVAL THREADS OUTPUT
    aggregate.py compare OURS.json OTHER.json           exit status 1 and the first differences when values differ
    aggregate.py diff OURS.json MANIFEST.json REFERENCE.json
    aggregate.py race CALIB-LAB DIR THREADS ROUNDS duckdb,polars

FROM and TO are milliseconds UTC. The reference shares nothing with the product but its rules: Python's own JSON parser and integers.
"""
import glob
import json
import os
import sys
import time
from decimal import ROUND_HALF_EVEN, Decimal, getcontext

getcontext().prec = 60
INT64 = (1 << 63) - 1
REASONS = ["torn_tail", "too_long", "not_utf8", "non_finite", "not_json", "not_object", "missing_field", "wrong_type", "out_of_range"]


class Reject(Exception):
    pass


class Duplicate(Exception):
    pass


def depth(text):
    deepest = level = 0
    inside = escaped = False
    for c in text:
        if inside:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == '"':
                inside = False
        elif c == '"':
            inside = True
        elif c in "[{":
            level += 1
            deepest = max(deepest, level)
        elif c in "]}":
            level -= 1
    return deepest


def parse(line, terminated):
    if len(line) > 65536:
        raise Reject("too_long" if terminated else "torn_tail")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise Reject("not_utf8" if terminated else "torn_tail") from None
    odd = []

    def pairs(items):
        if len({name for name, _ in items}) != len(items):
            odd.append("duplicate")
        return dict(items)

    try:
        value = json.loads(
            text, object_pairs_hook=pairs, parse_float=Decimal, parse_constant=lambda name: odd.append("nonfinite") or float("nan"))
    except (ValueError, RecursionError):
        raise Reject("not_json" if terminated else "torn_tail") from None
    if depth(text) > 16:
        raise Reject("not_json" if terminated else "torn_tail")
    if "duplicate" in odd:
        raise Reject("not_json")
    return value, "nonfinite" in odd


def fixed(value, places):
    return int(Decimal(value).scaleb(places).to_integral_value(ROUND_HALF_EVEN))


POSITIVE, NOT_NEGATIVE, TIME = (1, INT64), (0, INT64), (1, 4102444799999)
FIELDS = {
    "fills": [("ts", "int", TIME), ("symbol", "name", None), ("side", "side", None), ("price", 9, POSITIVE), ("qty", 8, POSITIVE),
              ("taker", "bool", None), ("quote_price", 9, POSITIVE), ("mid_now", 9, POSITIVE)],
    "pipeline_ticks": [("ts", "int", TIME), ("symbol", "name", None), ("tick_total_ms", 6, NOT_NEGATIVE), ("cache_hit", "bool", None),
                       ("cache_age_ms", 6, NOT_NEGATIVE), ("used_stale", "bool", None), ("deadline_miss", "bool", None)],
}


def half_even(numerator, denominator):
    quotient, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and quotient % 2):
        quotient += 1
    return quotient


def read(value, nonfinite, feed):
    found = []
    if isinstance(value, float) or nonfinite:
        found.append("non_finite")
    elif not isinstance(value, dict):
        raise Reject("not_object")
    row = {}
    if isinstance(value, dict):
        for name, kind, bounds in FIELDS[feed]:
            if name not in value:
                found.append("missing_field")
                continue
            v = value[name]
            if v is None:
                if name != "cache_age_ms":
                    found.append("wrong_type")
                row[name] = None
            elif kind == "name":
                if not isinstance(v, str):
                    found.append("wrong_type")
                elif not 1 <= len(v.encode("utf-8", "surrogatepass")) <= 128:
                    found.append("out_of_range")
                row[name] = v
            elif kind == "side":
                if v not in ("BUY", "SELL"):
                    found.append("wrong_type")
                row[name] = 1 if v == "BUY" else -1
            elif kind == "bool":
                if not isinstance(v, bool):
                    found.append("wrong_type")
                row[name] = v
            elif isinstance(v, bool) or not isinstance(v, (int, Decimal)) or (kind == "int" and not isinstance(v, int)):
                if not isinstance(v, float):
                    found.append("wrong_type")
            else:
                if isinstance(v, Decimal) and v.adjusted() > 40:
                    found.append("non_finite")
                    continue
                n = v if kind == "int" else fixed(v, kind)
                if not -INT64 <= n <= INT64:
                    found.append("non_finite")
                elif not bounds[0] <= n <= bounds[1]:
                    found.append("out_of_range")
                row[name] = n
    if found:
        raise Reject(min(found, key=REASONS.index))
    if feed == "fills":
        row["notional"] = half_even(row["price"] * row["qty"], 10**9)
        row["slip"] = half_even((row["price"] - row["quote_price"]) * row["side"] * 10**10, row["quote_price"])
        if not 0 < row["notional"] <= 10**18 or abs(row["slip"]) > 10**12:
            raise Reject("out_of_range")
        row["net"] = half_even((row["mid_now"] - row["price"]) * row["side"] * 10**10, row["mid_now"])
    return row


def lines(path):
    data = open(path, "rb").read()
    parts = data.split(b"\n")
    for place, line in enumerate(parts):
        terminated = place < len(parts) - 1
        if line.endswith(b"\r"):
            line = line[:-1]
        if not terminated and not line:
            continue
        if not line.strip(b" \t\r") and len(line) <= 65536:
            continue
        yield line, terminated


def reference(directory, start, end, interval):
    rejects = dict.fromkeys(REASONS, 0)
    cells = {}
    for feed in FIELDS:
        paths = sorted(glob.glob(f"{directory}/{feed}_*.jsonl") + glob.glob(f"{directory}/host=*/{feed}_*.jsonl"))
        for path in paths:
            for line, terminated in lines(path):
                try:
                    value, nonfinite = parse(line, terminated)
                    row = read(value, nonfinite, feed)
                except Reject as reject:
                    rejects[str(reject)] += 1
                    continue
                if start <= row["ts"] < end:
                    cells.setdefault((row["symbol"], row["ts"] // (interval * 1000)), {"fills": [], "pipeline_ticks": []})[feed].append(row)
    rows = {}
    for (symbol, number), cell in cells.items():
        ticks, fills = cell["pipeline_ticks"], cell["fills"]

        def nano(a, b):
            return half_even(a * 10**9, b) if b else None

        misses = sum(t["deadline_miss"] for t in ticks)
        if len(ticks) < 10 or misses * 20 > len(ticks):
            continue
        total = sum(f["notional"] for f in fills)
        netted = sum(f["notional"] for f in fills if abs(f["net"]) <= 10**12)
        ages = [t["cache_age_ms"] for t in ticks if t["cache_age_ms"] is not None]
        totals = sorted(t["tick_total_ms"] for t in ticks)
        rows[f"{symbol} {number * interval}"] = {
            "net_bps": nano(sum(f["net"] * f["notional"] for f in fills if abs(f["net"]) <= 10**12), netted * 10**6),
            "slippage_bps": nano(sum(f["slip"] * f["notional"] for f in fills), total * 10**6),
            "fill_rate": nano(len(fills), len(ticks)), "taker_share": nano(sum(f["taker"] for f in fills), len(fills)),
            "latency_p95_ms": totals[min(len(totals) - 1, 95 * len(totals) // 100)] * 1000,
            "cache_hit_ratio": nano(sum(t["cache_hit"] for t in ticks), len(ticks)),
            "cache_age_avg_ms": nano(sum(ages), len(ages) * 10**6), "deadline_miss_rate": nano(misses, len(ticks)),
            "stale_rate": nano(sum(t["used_stale"] for t in ticks), len(ticks)), "fills": len(fills), "ticks": len(ticks)}
    return {"rows": rows, "rejects": rejects}


COLUMNS = ["net_bps", "slippage_bps", "fill_rate", "taker_share", "latency_p95_ms", "cache_hit_ratio", "cache_age_avg_ms",
           "deadline_miss_rate", "stale_rate"]


def ours(path):
    """Values in 1e-9, by symbol and start in seconds."""
    import datetime
    rows = {}
    for row in json.load(open(path), parse_float=Decimal)["intervals"]:
        start = datetime.datetime.fromisoformat(row["interval_start"].replace("Z", "+00:00"))
        values = {**row["features"], **row["targets"]}
        rows[f"{row['symbol']} {int(start.timestamp())}"] = {
            **{name: None if values[name] is None else int(Decimal(values[name]).scaleb(9)) for name in COLUMNS},
            "fills": row["sample_count"]["fills"], "ticks": row["sample_count"]["ticks"]}
    return rows


def duckdb_build(directory, start, end, interval, threads, output):
    import duckdb
    connection = duckdb.connect(config={"threads": threads})
    ms = interval * 1000
    ticks = "{ts: 'BIGINT', symbol: 'VARCHAR', tick_total_ms: 'DOUBLE', cache_hit: 'BOOLEAN', cache_age_ms: 'DOUBLE', used_stale: 'BOOLEAN', deadline_miss: 'BOOLEAN'}"
    fills = "{ts: 'BIGINT', symbol: 'VARCHAR', side: 'VARCHAR', price: 'DOUBLE', qty: 'DOUBLE', taker: 'BOOLEAN', quote_price: 'DOUBLE', mid_now: 'DOUBLE'}"

    def source(feed, columns):
        return f"read_json('{directory}/**/{feed}_*.jsonl', format = 'newline_delimited', columns = {columns})"

    # quantile_disc takes the value at ceil(q*n)-1; a hair above 0.95 makes it floor(0.95*n), as written.
    connection.execute(f"""COPY (
        WITH t AS (SELECT symbol, ts // {ms} AS i, count(*) AS ticks, quantile_disc(tick_total_ms, 0.95000000001) AS latency_p95_ms,
                count(*) FILTER (cache_hit) AS hits, avg(cache_age_ms) AS cache_age_avg_ms, count(*) FILTER (used_stale) AS stale,
                count(*) FILTER (deadline_miss) AS misses
            FROM {source("pipeline_ticks", ticks)} WHERE ts >= {start} AND ts < {end} GROUP BY ALL),
        f AS (SELECT symbol, ts // {ms} AS i, count(*) AS fills, sum(n) AS notional, sum(slip * n) AS slip, sum(net * n) AS net, count(*) FILTER (taker) AS takers
            FROM (SELECT ts, symbol, taker, price * qty AS n, s * (price - quote_price) / quote_price * 1e4 AS slip, s * (mid_now - price) / mid_now * 1e4 AS net
                FROM (SELECT *, CASE side WHEN 'BUY' THEN 1 ELSE -1 END AS s FROM {source("fills", fills)} WHERE ts >= {start} AND ts < {end}))
            GROUP BY ALL)
        SELECT symbol, i * {interval} AS start, coalesce(fills, 0) AS fills, ticks, net / notional AS net_bps, slip / notional AS slippage_bps,
            coalesce(fills, 0) / ticks AS fill_rate, takers / fills AS taker_share, latency_p95_ms, hits / ticks AS cache_hit_ratio, cache_age_avg_ms,
            misses / ticks AS deadline_miss_rate, stale / ticks AS stale_rate
        FROM t LEFT JOIN f USING (symbol, i) WHERE ticks >= 10 AND misses * 20 <= ticks ORDER BY i, symbol
    ) TO '{output}' (FORMAT json)""")


def polars_build(directory, start, end, interval, threads, output):
    import polars as pl

    def scan(feed, schema):
        return pl.scan_ndjson(f"{directory}/**/{feed}_*.jsonl", schema=schema).filter(
            (pl.col("ts") >= start) & (pl.col("ts") < end)).with_columns((pl.col("ts") // (interval * 1000) * interval).alias("start"))

    share = lambda name: pl.col(name).sum() / pl.len()
    ticks = scan("pipeline_ticks", {"ts": pl.Int64, "symbol": pl.String, "tick_total_ms": pl.Float64, "cache_hit": pl.Boolean, "cache_age_ms": pl.Float64,
                                    "used_stale": pl.Boolean, "deadline_miss": pl.Boolean}).group_by("symbol", "start").agg(
        pl.len().alias("ticks"), pl.col("tick_total_ms").sort().get(pl.len() * 95 // 100).alias("latency_p95_ms"), share("cache_hit").alias("cache_hit_ratio"),
        pl.col("cache_age_ms").mean().alias("cache_age_avg_ms"), share("deadline_miss").alias("deadline_miss_rate"), share("used_stale").alias("stale_rate"))
    sign = pl.when(pl.col("side") == "BUY").then(1).otherwise(-1)
    n = pl.col("price") * pl.col("qty")
    fills = scan("fills", {"ts": pl.Int64, "symbol": pl.String, "side": pl.String, "price": pl.Float64, "qty": pl.Float64, "taker": pl.Boolean,
                           "quote_price": pl.Float64, "mid_now": pl.Float64}).group_by("symbol", "start").agg(
        pl.len().alias("fills"), (sign * (pl.col("mid_now") - pl.col("price")) / pl.col("mid_now") * 1e4 * n).sum().truediv(n.sum()).alias("net_bps"),
        (sign * (pl.col("price") - pl.col("quote_price")) / pl.col("quote_price") * 1e4 * n).sum().truediv(n.sum()).alias("slippage_bps"),
        share("taker").alias("taker_share"))
    frame = ticks.join(fills, on=["symbol", "start"], how="left").with_columns(pl.col("fills").fill_null(0)).with_columns(
        (pl.col("fills") / pl.col("ticks")).alias("fill_rate")).filter((pl.col("ticks") >= 10) & (pl.col("deadline_miss_rate") <= 0.05)).sort("start", "symbol")
    frame.collect(engine="streaming").write_ndjson(output)


def compare(own, other):
    mine = ours(own)
    theirs = {f"{row['symbol']} {row['start']}": row for row in map(json.loads, open(other))}
    different = []
    if mine.keys() != theirs.keys():
        different.append(f"other intervals: {sorted(mine.keys() ^ theirs.keys())[:5]}")
    for key in mine.keys() & theirs.keys():
        for name in COLUMNS:
            a, b = mine[key][name], theirs[key].get(name)
            # Theirs are sums of doubles of unrounded rows: 1e-6 of a bps and of a ms is what one row is rounded to.
            if (a is None) != (b is None) or (a is not None and abs(a / 1e9 - b) > 1e-6):
                different.append(f"{key} {name}: {a} {b}")
        if mine[key]["fills"] != theirs[key]["fills"] or mine[key]["ticks"] != theirs[key]["ticks"]:
            different.append(f"{key}: other counts")
    for line in different[:10]:
        print(line, file=sys.stderr)
    print(f"{len(mine)} intervals, {len(different)} differences")
    return 1 if different else 0


def diff(own, manifest, path):
    expected = json.load(open(path))
    mine = ours(own)
    different = [f"{key}: {mine.get(key)} {expected['rows'].get(key)}" for key in sorted(mine.keys() | expected["rows"].keys())
                 if mine.get(key) != expected["rows"].get(key)]
    rejects = json.load(open(manifest))["rejects"]["by_reason"]
    different += [f"{reason}: {rejects[reason]} {count}" for reason, count in expected["rejects"].items() if rejects[reason] != count]
    for line in different[:10]:
        print(line, file=sys.stderr)
    print(f"{len(mine)} intervals, {sum(rejects.values())} rejected lines, {len(different)} differences")
    return 1 if different else 0


def race(lab, directory, threads, rounds, others):
    """Each in a process of its own, in turn; a ratio is taken within a round."""
    import subprocess
    import tempfile
    start, end = 1735689600000, 1735776000000
    with tempfile.TemporaryDirectory() as folder:
        own = f"{folder}/ours.json"
        commands = {"ours": [lab, "bench", "aggregate", "--data", directory, "--threads", threads, "--write", own, "-o", "json"]}
        for name in others.split(","):
            commands[name] = [sys.executable, __file__, name, directory, str(start), str(end), "300", threads, f"{folder}/{name}.json"]

        def run(name):
            return json.loads(subprocess.run(commands[name], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])

        for name in commands:  # Warms the page cache; its results are compared.
            run(name)
            if name != "ours" and compare(own, f"{folder}/{name}.json"):
                return 1
        results = []
        for number in range(int(rounds)):
            names = list(commands)
            turn = names[number % len(names):] + names[:number % len(names)]
            results.append({name: run(name) for name in turn})
    middle = lambda values: sorted(values)[len(values) // 2]
    print("| | wall s | CPU s | RSS MB | wall ratio | least | most | CPU ratio |\n|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in commands:
        wall, cpu, rss = ([entry[name][key] for entry in results] for key in ("wall_seconds", "cpu_seconds", "rss_kib_max"))
        walls = [entry["ours"]["wall_seconds"] / entry[name]["wall_seconds"] for entry in results]
        cpus = [entry["ours"]["cpu_seconds"] / entry[name]["cpu_seconds"] for entry in results]
        print(f"| {name} | {middle(wall):.3f} | {middle(cpu):.3f} | {middle(rss) / 1024:.0f} | {middle(walls):.2f} | {min(walls):.2f} | {max(walls):.2f} | "
              f"{middle(cpus):.2f} |")
    print(f"\n{rounds} rounds, {threads} threads; ratios are ours to theirs")
    return 0


def main(arguments):
    command = arguments[0]
    if command == "race":
        return race(*arguments[1:])
    if command == "compare":
        return compare(*arguments[1:])
    if command == "diff":
        return diff(*arguments[1:])
    directory, start, end, interval = arguments[1], *map(int, arguments[2:5])
    if command == "reference":
        json.dump(reference(directory, start, end, interval), sys.stdout)
        return 0
    threads, output = int(arguments[5]), arguments[6]
    if command == "polars":
        os.environ["POLARS_MAX_THREADS"] = str(threads)
        import polars  # noqa: F401
        build = polars_build
    else:
        import duckdb  # noqa: F401
        build = duckdb_build
    import resource
    # Loading the packages is not part of what is timed.
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.monotonic()
    build(directory, start, end, interval, threads, output)
    wall = time.monotonic() - begun
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"threads": threads, "wall_seconds": wall, "cpu_seconds": cpu, "rss_kib_max": usage.ru_maxrss}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
