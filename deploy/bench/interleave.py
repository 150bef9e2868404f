"""Runs programs in turn, round by round, and compares what they measured with the first of them.

A ratio is taken within each round, between runs that were neighbours in time; its median over the rounds is what counts, and its smallest and
largest say how quiet the machine was. Each program prints one JSON object as its last line of output: messages_per_second, and
kinds with p50_ns and p99_ns where it has them.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time

KINDS = ("depth", "trade", "book_ticker")


def median(values):
    values = sorted(values)
    return values[len(values) // 2]


def machine():
    model = "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return "%s, %d cores, Linux %s" % (model, os.cpu_count(), platform.release())


def run(name, command):
    done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit("%s ended with status %d: %s\n%s" % (name, done.returncode, command, done.stderr[-2000:]))
    return json.loads(done.stdout.strip().splitlines()[-1])


def figures(result):
    """What is compared, by name: rates up to 'larger is better', latencies in ns."""
    found = {"messages_per_second": result["messages_per_second"]}
    for kind in KINDS:
        for part in ("p50_ns", "p99_ns"):
            if kind in result.get("kinds", {}):
                found["%s_%s" % (kind, part)] = result["kinds"][kind][part]
    return found


def compare(rounds, first, name):
    """Per figure: ours, theirs, and the ratio of the two within each round."""
    compared = {}
    for figure in rounds[0][name]:
        if figure not in rounds[0][first]:
            continue
        ratios = [entry[first][figure] / entry[name][figure] for entry in rounds if entry[name][figure]]
        compared[figure] = {
            "ours": median([entry[first][figure] for entry in rounds]), "theirs": median([entry[name][figure] for entry in rounds]),
            "ratio": round(median(ratios), 3), "ratio_min": round(min(ratios), 3), "ratio_max": round(max(ratios), 3),
        }
    return compared


def table(report):
    names = list(report["programs"])
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for figure in report["programs"][names[0]]["figures"]:
        cells = [report["programs"][name]["figures"].get(figure) for name in names]
        lines.append("| %s | %s |" % (figure, " | ".join("-" if cell is None else "{:,}".format(cell) for cell in cells)))
    lines += ["", "| %s to | figure | ratio | least | most |" % names[0], "|---|---|---:|---:|---:|"]
    for name in names[1:]:
        for figure, cell in report["programs"][name]["against"].items():
            lines.append("| %s | %s | %.2f | %.2f | %.2f |" % (name, figure, cell["ratio"], cell["ratio_min"], cell["ratio_max"]))
    lines += ["", "%d rounds on %s; load average %s before, %s after." % (
        report["rounds"], report["machine"], report["load_before"], report["load_after"]), ""]
    lines += ["- %s (%s): `%s`" % (name, entry["version"], entry["command"]) for name, entry in report["programs"].items()]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--output", required=True, help="folder of peers.json and peers.md")
    parser.add_argument("--add", nargs=2, action="append", metavar=("NAME", "COMMAND"), required=True)
    options = parser.parse_args()
    names = [name for name, _ in options.add]
    commands = dict(options.add)
    load_before = os.getloadavg()[0]
    results, rounds = {}, []
    begun = time.monotonic()
    # Every program's first run fills caches on disk and is not counted.
    for name in names:
        print("==> %s: warming up" % name, file=sys.stderr, flush=True)
        results[name] = run(name, commands[name])
    for number in range(options.rounds):
        turn = names[number % len(names):] + names[:number % len(names)]
        entry = {}
        for name in turn:
            entry[name] = figures(run(name, commands[name]))
            print("==> round %d of %d, %s: %s messages/s (%d s)" % (
                number + 1, options.rounds, name, "{:,}".format(entry[name]["messages_per_second"]), time.monotonic() - begun),
                file=sys.stderr, flush=True)
        rounds.append(entry)
    programs = {}
    for name in names:
        programs[name] = {
            "command": commands[name], "version": results[name].get("version", "this tree"),
            "figures": {figure: median([entry[name][figure] for entry in rounds]) for figure in rounds[0][name]},
            "against": {} if name == names[0] else compare(rounds, names[0], name),
        }
    report = {
        "machine": machine(), "rounds": options.rounds, "messages": results[names[0]]["messages"],
        "load_before": "%.2f" % load_before, "load_after": "%.2f" % os.getloadavg()[0], "programs": programs, "each_round": rounds,
    }
    text = table(report)
    with open(os.path.join(options.output, "peers.json"), "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    with open(os.path.join(options.output, "peers.md"), "w", encoding="utf-8") as file:
        file.write(text)
    sys.stdout.write(text)


main()
