#!/usr/bin/env python3
"""Draws a terminal's text as SVG: `python3 examples/demo/demo.py build/release/amesh | scripts/picture.py > docs/demo.svg`."""
import html
import sys

WIDTH_MAX, LINE_PX, CHAR_PX, PAD_PX = 104, 17, 7.83, 18
COLOURS = (("$ ", "#8be9a8"), ("== ", "#ffd479"), ("  ✓", "#8be9a8"), ("  +", "#9cc4ff"), ("  ?", "#ffb3c1"), ("    task in flight", "#ffb3c1"), ("    |", "#ffb3c1"))


def colour(line):
    return next((c for prefix, c in COLOURS if line.startswith(prefix)), "#d7dae0")


def main():
    lines = [line.rstrip("\n") for line in sys.stdin]
    lines = [line if len(line) <= WIDTH_MAX else line[:WIDTH_MAX - 1] + "…" for line in lines]
    width, height = int(WIDTH_MAX * CHAR_PX + 2 * PAD_PX), len(lines) * LINE_PX + 2 * PAD_PX
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="a terminal">')
    print(f'<rect width="{width}" height="{height}" rx="10" fill="#1c1f26"/>')
    print('<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="13" xml:space="preserve">')
    for n, line in enumerate(lines):
        if line.strip():
            print(f'<text x="{PAD_PX}" y="{PAD_PX + 12 + n * LINE_PX}" fill="{colour(line)}">{html.escape(line)}</text>')
    print("</g>\n</svg>")


main()
