# SPDX-License-Identifier: Apache-2.0
"""The table and the plot."""

import html
import math

from phases import median, paired, quartiles


def number(v, digits=2):
    if v is None:
        return "not measured"
    return f"{v:.{digits}f}" if abs(v) < 1000 else f"{v:,.0f}"


def spread(values, digits=2):
    if not values:
        return "not measured"
    lo, hi = quartiles(values)
    return f"{number(median(values), digits)} ({number(lo, digits)}–{number(hi, digits)})"


def megabytes(n):
    return f"{n / 1e6:,.1f} MB"


class Report:
    def __init__(self, results, about, peers):
        self.results, self.about, self.peers = results, about, peers
        self.notes = []  # sentences below the table
        self.rows, self.bars = [], []  # bars: label, value, target, True when more is better

    def row(self, which, what, asof, others, plain, ratio, target, met):
        """`others`: of the peers, by key; {} where the question is not for them."""
        theirs = [others.get(p.key, "not measured" if others else "") for p in self.peers]
        self.rows.append([which, what, asof, *theirs, plain, ratio, target,
                          {True: "yes", False: "**no**", None: ""}[met]])

    def build(self):
        if "past" in self.results:
            self.past(self.results["past"])
        for load in self.results.get("attached", []):
            self.attached(load)
        for d in self.results.get("delay", []):
            self.delay(d)
        return self

    # ---- rows ----

    def past(self, p):
        large, small = (median(p["first_answer_ms"][t]) for t in ("large", "small"))
        tag, mb, commits, _ = p["sizes"][0]
        restore = {k: median(v) for k, v in p["restore_s"].items()}
        name = f"{mb:,} MB database, {commits:,} commits"
        self.row("P1", f"first answer from any past moment, `sqlite3` start included; {name}",
                 spread(p["first_answer_ms"]["large"], 1) + " ms",
                 {k: f"{v:.2f} s (restore)" for k, v in restore.items()},
                 number(median(p["first_answer_ms"]["plain"]), 1) + " ms", "", "≤ 25 ms", large <= 25)
        for peer in self.peers:
            if peer.key in restore:
                times = restore[peer.key] * 1000 / large
                self.row("P1", f"times faster than {peer.label}'s restore", "", {}, "",
                         f"{times:,.0f} ×", "≥ 100 ×", times >= 100)
                self.bars.append((f"P1 first answer: faster than {peer.label}", times, 100, True))
        self.row("P1", "growth when database and history grow 10 ×",
                 f"{number(small, 1)} → {number(large, 1)} ms", {}, "", f"{large / small:.2f}",
                 "≤ 1.3", large / small <= 1.3)
        self.bars.append(("P1 growth at 10 × the size", large / small, 1.3, False))

        speeds = [c["mb_per_second"] for c in p["copy"]]
        best = [c["mb_per_second"] for c in p["inflate"]]
        ratios = [a / b for a, b in zip(speeds, best)]
        took = median([c["seconds"] for c in p["copy"]])
        self.row("P2", "`cp` of that database at T, caches cold; plain: all cores inflating the base",
                 spread(speeds, 0) + " MB/s", {k: f"{v:.2f} s" for k, v in restore.items()},
                 spread(best, 0) + " MB/s", spread(ratios), "≥ 0.6", median(ratios) >= 0.6)
        self.bars.append(("P2 cp / all cores inflating", median(ratios), 0.6, True))
        for peer in self.peers:
            if peer.key in restore:
                times = restore[peer.key] / took
                self.row("P2", f"times faster than {peer.label}'s restore", f"{took:.2f} s", {}, "",
                         f"{times:.1f} ×", "≥ 5 ×", times >= 5)
                self.bars.append((f"P2 cp: faster than {peer.label}", times, 5, True))
        if "asof" in restore:
            self.row("P2", "`asof restore`, synced to disk", f"{restore['asof']:.2f} s", {}, "", "", "",
                     None)
        for kind, what, target in (("random", "cached reads of 4 KiB", 0.9),
                                   ("sequential", "cached reads in sequence", 0.6)):
            r = p["reads"][kind]
            ratios = [a / b for a, b in zip(r["mount"], r["plain"])]
            self.row("P3", what, number(median(r["mount"]), 0) + " MB/s", {},
                     number(median(r["plain"]), 0) + " MB/s", spread(ratios), f"≥ {target}",
                     median(ratios) >= target)
            self.bars.append((f"P3 {what} / plain file", median(ratios), target, True))
        self.cached_reads_note(p)
        b = p["bytes"]
        ratio = b["asof"] / b["l3"] if "l3" in b else None
        self.row("P6", f"archive of the same {commits:,} commits, every one kept, base included",
                 megabytes(b["asof"]), {k: megabytes(v) for k, v in b.items()},
                 megabytes(p["wal_bytes"]) + " of WAL", number(ratio), "≤ 0.85",
                 ratio <= 0.85 if ratio else None)
        shown = {k: "; ".join(f"{name} {v / 1e6:,.1f}" for name, v in sorted(parts.items()) if v > 50000)
                 for k, parts in p["parts"].items()}
        self.row("", "of it, in MB", shown["asof"], shown, "", "", "", None)
        if ratio:
            self.bars.append(("P6 archive bytes / Litestream 0.3", ratio, 0.85, False))

    def cached_reads_note(self, p):
        """Whose the difference between a mount and a plain file is."""
        note = (f"P3: the kernel answers cached reads from its page cache; asof's server used "
                f"{p['cached_read_cpu_s']:.2f} s of CPU while {p['cached_read_count']:,} of them ran.")
        for kind, r in p["reads"].items():
            if "bindfs" in r:
                ratios = [a / b for a, b in zip(r["bindfs"], r["plain"])]
                note += f"  bindfs, which passes on a plain file, {kind}: × {spread(ratios)}."
        self.notes.append(note)

    def attached(self, load):
        label, windows = load["load"], load["windows"]
        keys = [("asof", "asof"), *[(p.key, p.label) for p in self.peers]]
        pairs = {k: paired(windows, k) for k, _ in keys}
        alone = [r for who, r in windows if who is None]
        mine = pairs["asof"]
        limited = bool(load["keys"].get("rate"))

        def cell(k, name):
            v, (lo, hi) = pairs[k][name], pairs[k][name + "_iqr"]
            return f"× {number(v)} ({number(lo)}–{number(hi)})"

        def line(what, name, plain, target, met):
            self.row("P4", f"{label}: {what}", cell("asof", name),
                     {k: cell(k, name) for k, _ in keys[1:]}, plain, number(mine[name], 3), target, met)

        if not limited:
            line("throughput", "per_second", number(median([r["per_second"] for r in alone]), 0) + "/s",
                 "≥ 0.97", mine["per_second"] >= 0.97)
            for k, name in keys:
                self.bars.append((f"P4 {label}: throughput, {name}", pairs[k]["per_second"], 0.97, True))
        bound = 1.01 if limited else 1.05
        if limited:
            line("p50 latency", "p50_us", number(median([r["p50_us"] for r in alone]), 0) + " µs",
                 "≤ 1.01", mine["p50_us"] <= 1.01)
        line("p99 latency", "p99_us", number(median([r["p99_us"] for r in alone]), 0) + " µs",
             f"≤ {bound}", mine["p99_us"] <= bound)
        for k, name in keys:
            self.bars.append((f"P4 {label}: p99, {name}", pairs[k]["p99_us"], bound, False))
        self.row("P4", f"{label}: CPU more than alone, % of a core", number(100 * mine["cpu_more"], 1),
                 {k: number(100 * pairs[k]["cpu_more"], 1) for k, _ in keys[1:]}, "", "",
                 "≤ 1" if limited else "", 100 * mine["cpu_more"] <= 1 if limited else None)
        self.row("P4", f"{label}: SQLITE_BUSY (waits for a lock)",
                 f"{mine['busy']} ({mine['waits']})",
                 {k: f"{pairs[k]['busy']} ({pairs[k]['waits']})" for k, _ in keys[1:]},
                 f"{mine['busy_alone']:.0f} ({mine['waits_alone']:.0f})", "", "no more",
                 mine["busy"] <= mine["busy_alone"])
        self.row("", f"{label}: peak memory, RSS (RssAnon)",
                 *self.per_system(pairs, lambda p: f"{p['max_watched_rss_kb'] / 1e3:.0f} "
                                                   f"({p['max_watched_anon_kb'] / 1e3:.0f}) MB"),
                 "", "", "", None)
        self.row("", f"{label}: largest WAL of the application",
                 *self.per_system(pairs, lambda p: megabytes(p["max_wal_file_max"])),
                 megabytes(max(r["wal_file_max"] for r in alone)), "", "", None)
        if not limited:
            self.captured(label, [r for who, r in windows if who == "asof"])

    def per_system(self, pairs, show):
        return show(pairs["asof"]), {p.key: show(pairs[p.key]) for p in self.peers}

    def captured(self, label, mine):
        caught = [r["captured"] for r in mine]
        worst = max(c["catch_up_ms"] for c in caught)
        lag = max(c["lag_commits_at_end"] for c in caught)
        rate = median([r["wal_bytes_written"] / r["seconds"] / 1e6 for r in mine])
        gaps = sum(r.get("gaps", 0) for r in mine)
        self.row("P8", f"{label}: behind at the end, time to catch up; WAL written",
                 f"{lag:,} commits, {worst:.0f} ms; gaps {gaps}", {}, f"{rate:.0f} MB/s", "",
                 "does not fall behind", worst <= 1000 and not gaps and
                 not any(c["missing"] for c in caught))
        p50, p99 = (median([c[k] for c in caught if k in c]) for k in ("p50_ms", "p99_ms"))
        self.row("P5", f"{label}: commit → captured (fsynced), p50, p99",
                 f"{number(p50, 1)}, {number(p99, 1)} ms", {}, "", "", "≤ 5, ≤ 20 ms",
                 p50 is not None and p50 <= 5 and p99 <= 20)

    def delay(self, d):
        c = d["captured"]
        self.row("P5", f"{d['rate']}/s: commit → captured (fsynced), p50, p99, max",
                 f"{number(c['p50_ms'], 1)}, {number(c['p99_ms'], 1)}, {number(c['max_ms'], 1)} ms", {},
                 "", "", "≤ 5, ≤ 20 ms", c["p50_ms"] <= 5 and c["p99_ms"] <= 20)
        self.bars.append((f"P5 {d['rate']}/s: p99 of 20 ms", c["p99_ms"] / 20, 1, False))

    # ---- output ----

    def markdown(self):
        head = ["", "what", "asof", *[p.label for p in self.peers], "plain, or alone", "ratio", "target",
                "met"]
        lines = ["# Benchmark results", "", "Made by `tools/bench/run`, which overwrites this file.", ""]
        lines += [f"- {k}: {v}" for k, v in self.about.items()]
        lines += ["", "Median (quartiles).  × is against the windows alone before and after, in the same "
                  "run.", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        lines += ["| " + " | ".join(r) + " |" for r in self.rows]
        for note in self.notes:
            lines += ["", note]
        lines += ["", "![ratios](results.svg)", ""]
        return "\n".join(lines)

    def svg(self):
        """Each bar is the value against its target, on a logarithmic scale; right of the line is
        better, whichever way the target goes."""
        left, width, step, top = 430, 420, 22, 60
        height = top + step * len(self.bars) + 30
        out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 130}" height="{height}" '
               'font-family="sans-serif" font-size="12">',
               '<rect width="100%" height="100%" fill="#fff"/>',
               f'<text x="10" y="22" font-size="15">asof against its targets, {len(self.bars)} ratios'
               '</text>',
               f'<text x="10" y="42" fill="#555">{html.escape(self.about["machine"])}, '
               f'{html.escape(self.about["date"])}; green: target met; grey: others</text>']
        middle = left + width / 2

        def place(value, target, more):
            gain = math.log10(value / target if more else target / value)
            return max(-2.0, min(2.0, gain)) / 2 * (width / 2)

        for decade in range(-2, 3):
            x = middle + decade / 2 * (width / 2)
            out.append(f'<line x1="{x}" y1="{top - 8}" x2="{x}" y2="{height - 24}" stroke="'
                       f'{"#333" if decade == 0 else "#ddd"}"/>')
            out.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle" fill="#555">'
                       f'{["÷ 100", "÷ 10", "target", "× 10", "× 100"][decade + 2]}</text>')
        for i, (label, value, target, more) in enumerate(self.bars):
            y = top + step * i
            if not value:
                continue
            w = place(value, target, more)
            theirs = any(label.endswith(", " + p.label) for p in self.peers)
            colour = "#b5b5b5" if theirs else "#3a9a5b" if w >= 0 else "#c8553d"
            out.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{html.escape(label)}</text>')
            out.append(f'<rect x="{min(middle, middle + w):.1f}" y="{y + 2}" width="{max(abs(w), 1):.1f}" '
                       f'height="{step - 7}" fill="{colour}"/>')
            out.append(f'<text x="{left + width + 8}" y="{y + 13}">{number(value)} '
                       f'({"≥" if more else "≤"} {target})</text>')
        return "\n".join(out) + "\n</svg>\n"
