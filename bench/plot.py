"""Small plots as SVG, for docs/: lines in panels, and dots in rows. They follow the reader's light or dark mode."""
import html
import math

WIDTH, GAP, TITLE, LEFT, BOTTOM = 860, 26, 24, 46, 40
STYLE = """<style>
svg { background: #ffffff } text { font: 12px system-ui, sans-serif; fill: #3c4149 } .title { font-weight: 600; fill: #1c1f26 } .axis { fill: #6a7180; font-size: 11px }
.grid { stroke: #e3e6ea } .frame { stroke: #aab0ba; fill: none } .line { fill: none; stroke-width: 1.8; stroke-linejoin: round } .one { stroke: #6a7180; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) { svg { background: #16181d } text { fill: #c6cad2 } .title { fill: #eef0f4 } .axis { fill: #939aa7 } .grid { stroke: #2b2f37 } .frame { stroke: #565d69 } }
</style>"""
COLOURS = {"ideal": "#7b8290", "mesh": "#1f77d0", "second": "#e08a1e", "third": "#c2414b", "fourth": "#2a9d6f"}


class Scale:
    """From values to pixels."""

    def __init__(self, low, high, ticks, is_log=False):
        self.of = (lambda v: math.log10(max(v, 1e-9))) if is_log else (lambda v: v)
        self.low, self.high, self.ticks = self.of(low), self.of(high), ticks

    def share(self, value):
        return (min(max(self.of(value), self.low), self.high) - self.low) / ((self.high - self.low) or 1)


def log_scale(values, low=None):
    """For all values, with ticks at 1, 2, 5, 10 …"""
    high = max(values) * 1.1
    low = min(values) * 0.9 if low is None else low
    ticks = [m * 10**e for e in range(-3, 7) for m in (1, 2, 5) if low <= m * 10**e <= high]
    if len(ticks) > 8:
        ticks = [t for t in ticks if f"{t:.0e}"[0] == "1"]
    return Scale(low, high, [(t, f"{t:g}" if t < 10000 else f"{t / 1000:g}k") for t in ticks], True)


def nines(top=0.999):
    """For quantiles: as much room from 0.9 to 0.99 as from 0.99 to 0.999."""
    scale = Scale(1, 1 / (1 - top), [(q, f"p{q * 100:g}") for q in (0, 0.5, 0.9, 0.99, 0.999) if q <= top])
    scale.of = lambda q: math.log10(1 / (1 - min(q, top)))
    scale.low, scale.high = scale.of(0), scale.of(top)
    return scale


class Panel:
    """One pair of axes at (left, top); series are (label, colour, [(x, y)])."""

    def __init__(self, left, top, width, height, title):
        self.left, self.top, self.width, self.height = left + LEFT, top + TITLE, width - LEFT - 8, height - TITLE - BOTTOM
        self.title, self.out = title, []

    def place(self, x, y):
        return self.left + self.x.share(x) * self.width, self.top + (1 - self.y.share(y)) * self.height

    def text(self, x, y, text, kind="", anchor="start"):
        self.out.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{html.escape(text)}</text>')

    def axes(self, x, y, x_name):
        self.x, self.y = x, y
        right, bottom = self.left + self.width, self.top + self.height
        self.text(self.left, self.top - 8, self.title, "title")
        for value, label in y.ticks:
            at = self.place(0, value)[1]
            self.out.append(f'<line class="grid" x1="{self.left}" x2="{right:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
            self.text(self.left - 5, at + 4, label, "axis", "end")
        for value, label in x.ticks:
            at = self.left + x.share(value) * self.width
            self.out.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{self.top}" y2="{bottom:.1f}"/>')
            self.text(at, bottom + 15, label, "axis", "middle")
        self.out.append(f'<path class="frame" d="M{self.left} {self.top}V{bottom:.1f}H{right:.1f}"/>')
        self.text(self.left + self.width / 2, bottom + 31, x_name, "axis", "middle")
        return self

    def lines(self, series, has_dots=False):
        for _, colour, points in series:
            places = [self.place(x, y) for x, y in points]
            self.out.append(f'<path class="line" stroke="{colour}" d="M' + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) + '"/>')
            if has_dots:
                self.out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        return self


def legend(names, left, top):
    """names: [(label, colour)] in one row."""
    out = []
    for label, colour in names:
        out.append(f'<rect x="{left:.0f}" y="{top - 9}" width="14" height="4" rx="2" fill="{colour}"/><text x="{left + 19:.0f}" y="{top - 2}">{html.escape(label)}</text>')
        left += 36 + 6.6 * len(label)
    return "".join(out)


def document(height, parts, about):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img" aria-label="{html.escape(about)}">\n{STYLE}\n'
            + "\n".join(parts) + "\n</svg>\n")


def panels(charts, names, about, columns=3, height=230):
    """charts: [(title, x scale, y scale, x name, series)], in rows of `columns`, with one legend. → SVG"""
    columns = min(columns, len(charts))
    width = (WIDTH - GAP) / max(columns, 2)
    parts = [legend(names, LEFT, 22)]
    for n, (title, x, y, x_name, series) in enumerate(charts):
        panel = Panel(8 + (n % columns) * width, 34 + n // columns * height, width, height, title)
        parts += panel.axes(x, y, x_name).lines(series, has_dots=len(series[0][2]) < 8).out
    return document(34 + math.ceil(len(charts) / columns) * height, parts, about)


def dots(rows, names, x_name, about):
    """rows: [(label, {name: value})]: a dot per value on one logarithmic axis; names: [(name, colour)]. → SVG"""
    left, step, top = 190, 30, 44
    scale = log_scale([v for _, row in rows for v in row.values()], 0.9)
    width, bottom = WIDTH - left - 24, top + step * len(rows)
    parts = [legend(names, left, 22)]
    for value, label in scale.ticks:
        at = left + scale.share(value) * width
        parts.append(f'<line class="{"one" if value == 1 else "grid"}" x1="{at:.1f}" x2="{at:.1f}" y1="{top - 8}" y2="{bottom}"/><text class="axis" x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{label}</text>')
    for n, (label, row) in enumerate(rows):
        y = top + step * n + step / 2 - 4
        parts.append(f'<text x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{html.escape(label)}</text><line class="grid" x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        for name, colour in names:
            if name in row:
                parts.append(f'<circle cx="{left + scale.share(row[name]) * width:.1f}" cy="{y:.1f}" r="5" fill="{colour}" fill-opacity=".9"><title>{html.escape(name)}: {row[name]:.2f}</title></circle>')
    parts.append(f'<text class="axis" x="{left + width / 2}" y="{bottom + 32}" text-anchor="middle">{html.escape(x_name)}</text>')
    return document(bottom + 42, parts, about)
