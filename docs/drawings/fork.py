# SPDX-License-Identifier: Apache-2.0
"""Draws a fork under the library: python3 docs/drawings/fork.py > docs/fork.svg

Above, a door: how a call of an adopted library reaches libc. Below, the steps of a fork in the order
of time, in the parent and in the child. The colours follow the reader's light or dark scheme.
"""
from html import escape

WIDTH = 1000
LEFT, GATE, OTHERS, CHILD = 20, 300, 440, 690  # where the columns begin
WIDE = {LEFT: 260, GATE: 120, OTHERS: 230, CHILD: 290}
LINE, PADDING = 16, 9

LIGHT = {"page": "#ffffff", "ink": "#1f2328", "faint": "#59636e", "ours": "#d7f0de",
         "edge": "#2f7d4f", "theirs": "#eceff2", "frame": "#8c959f", "shut": "#f6d9d5",
         "warn": "#b3372f"}
DARK = {"page": "#0d1117", "ink": "#e6edf3", "faint": "#9da7b3", "ours": "#163c25",
        "edge": "#58b07c", "theirs": "#262c36", "frame": "#6e7681", "shut": "#4a211d",
        "warn": "#f08a80"}


def colours(of):
    return f"""text, .tip {{ fill: {of["ink"]} }}
.faint {{ fill: {of["faint"]} }}
.page {{ fill: {of["page"]} }}
.ours {{ fill: {of["ours"]}; stroke: {of["edge"]} }}
.theirs {{ fill: {of["theirs"]}; stroke: {of["frame"]} }}
.shut {{ fill: {of["shut"]}; stroke: {of["warn"]} }}
.arrow {{ stroke: {of["ink"]} }}
.line, .before {{ stroke: {of["frame"]} }}"""


STYLE = f"""
text {{ font: 13px sans-serif }}
.head {{ font-weight: bold; font-size: 15px }}
.arrow {{ stroke-width: 1.5; fill: none; marker-end: url(#head) }}
.before {{ stroke-dasharray: 5 4 }}
.line {{ fill: none }}
{colours(LIGHT)}
@media (prefers-color-scheme: dark) {{
{colours(DARK)}
}}
"""

# A row of the drawing: what stands in which column, as (class, lines).
STEPS = [
    {LEFT: ("ours", ["before_fork(), in the library's fork()", "close the gates of calls,",
                     "wait until nobody is inside"]),
     GATE: ("shut", ["shut", "newcomers wait"]),
     OTHERS: ("theirs", ["A call in flight goes on", "to its end."])},
    {LEFT: ("theirs", ["other libraries' prepare handlers"]),
     GATE: ("shut", ["lent", "newcomers wait", "50 ms"]),
     OTHERS: ("theirs", ["A call that a handler waits for", "opens the gate after 50 ms."])},
    {LEFT: ("ours", ["prepare of the head (the library's", "first handler): close all gates"]),
     GATE: ("shut", ["held", "newcomers wait"]),
     OTHERS: ("theirs", ["Nobody is inside a part", "that a fork must not tear."])},
    {LEFT: ("theirs", ["the kernel copies the process"])},
    {LEFT: ("ours", ["parent of the head: open the gates"]),
     GATE: ("ours", ["open"]),
     OTHERS: ("theirs", ["The pool was not touched, and", "is the parent's alone. Calls go on."]),
     CHILD: ("ours", ["child of the head: put locks back, let", "OpenBLAS mark its pool as gone, put",
                      "GNU OpenMP's thread back to its start"])},
    {LEFT: ("theirs", ["other libraries' parent handlers"]),
     CHILD: ("theirs", ["other libraries' child handlers"])},
    {LEFT: ("ours", ["after_fork()"]),
     CHILD: ("ours", ["after_fork(): give BLIS its number", "of threads"])},
    {LEFT: ("theirs", ["fork() returns: the next call", "finds the pool as it was"]),
     CHILD: ("theirs", ["fork() returns 0: the next call makes", "a new pool, with all threads"])},
]

parts = []


def text(x, y, words, kind="", anchor="start"):
    parts.append(f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>')


def box(x, y, width, kind, lines):
    """Draws a box and returns its height."""
    height = len(lines) * LINE + 2 * PADDING
    parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" class="{kind}"/>')
    for i, line in enumerate(lines):
        text(x + width // 2, y + PADDING + 12 + i * LINE, line, anchor="middle")
    return height


def arrow(x1, y1, x2, y2, kind=""):
    parts.append(f'<path d="M{x1} {y1} L{x2} {y2}" class="arrow {kind}"/>')


def draw_door(top):
    """A call through a door; returns where it ends."""
    text(LEFT, top, "A door", "head")
    text(LEFT + 70, top, "a slot in the adopted library's own GOT, which leads to a function of ours first",
         "faint")
    y, middle = top + 18, top + 18 + 25
    places = [(LEFT, 190, "theirs", ["OpenBLAS, one copy", "calls pthread_mutex_lock"]),
              (260, 180, "theirs", ["its GOT slot for", "pthread_mutex_lock"]),
              (490, 230, "ours", ["the door: count who is inside", "(the gate), note the lock"]),
              (790, 190, "theirs", ["libc's", "pthread_mutex_lock"])]
    for x, width, kind, lines in places:
        box(x, y, width, kind, lines)
    for (x, width, *_), (after, *_) in zip(places, places[1:]):
        arrow(x + width + 2, middle, after - 4, middle)
    slot, libc = places[1], places[3]
    parts.append(f'<path d="M{slot[0] + 90} {y + 52} v18 H{libc[0] + 95} v-14" class="arrow before"/>')
    text((slot[0] + libc[0]) // 2 + 90, y + 86, "without the library", "faint", "middle")
    return y + 96


def draw_steps(top):
    for x, heading in ((LEFT, "Parent: the thread that forks"), (GATE, "its gates"),
                       (OTHERS, "its other threads"), (CHILD, "Child: one thread")):
        text(x, top, heading, "head")
    y = top + 14
    parts.append(f'<path d="M{CHILD - 14} {top - 14} V{HEIGHT - 55}" class="line"/>')
    previous = {}
    for step in STEPS:
        heights = {x: box(x, y, WIDE[x], kind, lines) for x, (kind, lines) in step.items()}
        for x in (LEFT, CHILD):
            if x in step and x in previous:
                arrow(x + WIDE[x] // 2, previous[x], x + WIDE[x] // 2, y - 3)
        if CHILD in step and CHILD not in previous:  # the child begins
            kernel = previous[LEFT] - 17
            parts.append(f'<path d="M{LEFT + WIDE[LEFT] + 2} {kernel} H{CHILD + 145} V{y - 4}" '
                         'class="arrow"/>')
        previous.update({x: y + height for x, height in heights.items()})
        y += max(heights.values()) + 18
    return y


def legend(y):
    for x, kind, words in ((LEFT, "ours", "the library"), (LEFT + 140, "theirs", "other code"),
                           (LEFT + 270, "shut", "a closed gate")):
        parts.append(f'<rect x="{x}" y="{y - 12}" width="16" height="16" rx="3" class="{kind}"/>')
        text(x + 24, y + 1, words)


HEIGHT = 800
draw_steps(draw_door(30) + 30)
legend(HEIGHT - 20)
print(f"""<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" \
viewBox="0 0 {WIDTH} {HEIGHT}">
<title>A fork under the library, in the parent and in the child</title>
<style>{STYLE}</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" \
orient="auto"><path d="M0 0 L10 5 L0 10 z" class="tip"/></marker></defs>
<rect width="100%" height="100%" class="page"/>""")
print("\n".join(parts))
print("</svg>")
