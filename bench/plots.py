# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of docs/performance.md and the README with matplotlib. Each function takes the
rows of its area (see the areas' calls of add) and the file to write."""
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend must be chosen before)
from matplotlib.ticker import NullFormatter, ScalarFormatter  # noqa: E402

plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "forksafe", "font.size": 9,
                     "axes.spines.top": False, "axes.spines.right": False})
COLOURS = {"stock": "#8a8a8a", "NUM_THREADS=1": "#c98a2b", "spawn": "#9c7bb5",
           "forkserver": "#7f68a0", "loky": "#5d7fb3", "libomp": "#b58fa0",
           "forksafe": "#2f7d4f", "forksafe auto": "#58b07c"}
LINES = {"Debian": "#2f7d4f", "Debian OpenMP": "#c98a2b", "numpy 2.4 wheel": "#5d7fb3",
         "0.3.34 wheel": "#b3372f"}


def save(figure, file):
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def with_quartiles(axis, rows, key, label, colour, field="ratio"):
    """Plots medians by `key`, with the quartiles as error bars."""
    rows = sorted(rows, key=lambda row: row[key])
    middle = [row[field]["median"] for row in rows]
    errors = [[m - row[field]["q1"] for m, row in zip(middle, rows)],
              [row[field]["q3"] - m for m, row in zip(middle, rows)]]
    axis.errorbar([row[key] for row in rows], middle, yerr=errors, label=label, color=colour,
                  marker="o", markersize=3, capsize=2, linewidth=1)


def bars(axis, entries, unit):
    """Draws a bar for each entry: (label, value or None if the variant hangs, colour). The first is at
    the top."""
    longest = max([value for _, value, _ in entries if value is not None], default=1)
    for place, (label, value, colour) in enumerate(entries):
        axis.barh(place, 0 if value is None else value, color=colour, height=0.7)
        text = " hangs" if value is None else f" {value:.3g}"
        axis.text(value or 0, place, text, va="center",
                  color="#b3372f" if value is None else "#222222")
    axis.set_yticks(range(len(entries)), [label for label, _, _ in entries])
    axis.invert_yaxis()
    axis.set_xlim(0, longest * 1.2)
    axis.set_xlabel(unit)


def pool_panel(axis, rows, work, part, variants, title, unit):
    entries = []
    for variant in variants:
        found = [row for row in rows if row["work"] == work and row["variant"] == variant]
        measured = [row["measured"] for row in found if row.get("part") == part]
        if measured or any("hangs" in row for row in found):
            entries.append((variant, measured[0] if measured else None, COLOURS[variant]))
    bars(axis, entries, unit)
    axis.set_title(title, loc="left")


def in_short(rows, title, file):
    """Draws the README's picture: one pool, and the parent afterwards."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.6))
    variants = ["stock", "NUM_THREADS=1", "spawn", "loky", "forksafe", "forksafe auto"]
    pool_panel(axes[0], rows, "products600", "pool", variants, f"Pool(2): {title}", "seconds")
    pool_panel(axes[1], rows, "products600", "parent", variants,
               "then, in the parent: one product", "ms")
    save(figure, file)


def pools(rows, titles, file):
    figure, axes = plt.subplots(len(titles), 2, figsize=(9, 2.4 * len(titles)))
    for (work, title), (left, right) in zip(titles.items(), axes):
        pool_panel(left, rows, work, "pool", COLOURS, title, "seconds")
        pool_panel(right, rows, work, "parent", COLOURS, "the parent afterwards", "ms")
    save(figure, file)


def shared_array(rows, file):
    figure, axis = plt.subplots(figsize=(6, 2.2))
    entries = [("forksafe", rows[0]["measured"], COLOURS["forksafe"])]
    entries += [(row["variant"], row["against"], COLOURS[row["variant"].split(",")[0]])
                for row in rows]
    bars(axis, entries, "seconds")
    save(figure, file)


def dgemm(rows, file):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    for axis, callers in zip(axes, (1, 4)):
        for build, colour in LINES.items():
            some = [row for row in rows if row["build"] == build and
                    row["callers"] == callers and row["variant"] == "forksafe"]
            if some:
                with_quartiles(axis, some, "n", build, colour)
        axis.axhline(1, color="#222222", linewidth=0.6)
        axis.set_xscale("log")
        sizes = sorted({row["n"] for row in rows})
        axis.set_xticks(sizes, sizes)
        axis.set_xticks([], minor=True)
        axis.set_xlabel(f"n, {callers} calling")
    axes[0].set_ylabel("forksafe / stock")
    axes[0].legend(frameon=False, fontsize=8)
    save(figure, file)


def fork(rows, file):
    figure, axes = plt.subplots(1, len(LINES), figsize=(10, 2.6), sharey=True)
    for axis, build in zip(axes, LINES):
        some = [row for row in rows if row["build"] == build]
        places = range(len(some))
        axis.barh([p - 0.2 for p in places], [row["against"] for row in some], height=0.35,
                  color=COLOURS["stock"], label="bare _Fork()")
        axis.barh([p + 0.2 for p in places], [row["measured"] for row in some], height=0.35,
                  color=COLOURS["forksafe"], label="fork()")
        axis.set_yticks(places, [row["situation"] for row in some])
        axis.set_xscale("log")
        axis.set_xlabel("us")
        axis.set_title(build, loc="left")
    axes[0].invert_yaxis()
    axes[-1].legend(frameon=False, fontsize=8)
    save(figure, file)


def next_call(rows, file):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    for axis, who in zip(axes, ("parent", "child")):
        for build, colour in LINES.items():
            some = [row for row in rows if row["build"] == build and row["who"] == who and
                    "ratio" in row]
            if some:
                with_quartiles(axis, some, "threads", build, colour)
        axis.axhline(1, color="#222222", linewidth=0.6)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(f"threads of the pool; the {who}'s next call")
    axes[0].set_ylabel("forksafe / stock")
    axes[0].legend(frameon=False, fontsize=8)
    save(figure, file)


def growth(rows, file):
    names = list(dict.fromkeys(row["series"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(2.4 * len(names), 2.6), squeeze=False)
    for axis, series in zip(axes[0], names):
        some = [row for row in rows if row["series"] == series and row["value"] != "growth"]
        for field, label, colour in (("measured", "fork()", COLOURS["forksafe"]),
                                     ("against", "bare _Fork()", COLOURS["stock"])):
            axis.plot([row["value"] for row in some], [row[field] for row in some], label=label,
                      color=colour, marker="o", markersize=3)
        axis.set_ylim(bottom=0)
        axis.set_xlabel(series)
    axes[0][0].set_ylabel("us")
    axes[0][0].legend(frameon=False, fontsize=8)
    save(figure, file)
