"""The style of a load test's page: light, dark and paper, narrow and wide, with no file beside it.

Rules of this file:
1. Colours have names and stand in one place for each scheme; nothing else states one.
"""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark;
  --page: #f6f7f8; --card: #ffffff; --ink: #1b1f24; --soft: #59636e; --rule: #d8dde3;
  --first: #1f63c0; --second: #c2550a; --third: #14845a; --fourth: #8746b3; --plain: #8f99a3; --bad: #c62f2b;
  --good-back: #dff3e7; --good-ink: #0d5c3c; --warn-back: #fdebd2; --warn-ink: #8a4300;
  --bad-back: #fbdedc; --bad-ink: #95201d; }
@media (prefers-color-scheme: dark) { :root {
  --page: #121518; --card: #1a1e23; --ink: #e6e9ec; --soft: #9aa5b0; --rule: #333a42;
  --first: #6cabff; --second: #f5a04f; --third: #52cc96; --fourth: #c792ea; --plain: #77828d; --bad: #ff7a72;
  --good-back: #12382a; --good-ink: #7fe0b3; --warn-back: #43290b; --warn-ink: #ffc37d;
  --bad-back: #471a1a; --bad-ink: #ffa5a0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 22px; margin: 0; font-weight: 650; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 0 0 10px; font-weight: 650; }
p { margin: 0; }
.soft { color: var(--soft); }
.head { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; }
.badge { padding: 3px 12px; border-radius: 6px; font-weight: 700; letter-spacing: .03em; white-space: nowrap; }
.good { background: var(--good-back); color: var(--good-ink); }
.warn { background: var(--warn-back); color: var(--warn-ink); }
.fail { background: var(--bad-back); color: var(--bad-ink); }
.reasons { margin: 16px 0 0; padding: 12px 16px 12px 32px; border-radius: 8px; }
.reasons li + li { margin-top: 6px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0; }
.facts.many { grid-template-columns: repeat(auto-fit, minmax(max(150px, 23%), 1fr)); }
.facts div, .card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
.facts div { padding: 10px 14px 12px; }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; font-size: 21px; font-weight: 620; font-variant-numeric: tabular-nums; white-space: nowrap; }
.facts small { display: block; color: var(--soft); font-size: 12px; font-weight: 400; white-space: normal; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 16px; }
.card { padding: 16px 18px; margin: 0 0 16px; min-width: 0; }
.grid .card { margin: 0; }
.grid + .card, .grid + .grid { margin-top: 16px; }
.grid + .grid { margin-bottom: 16px; }
.tables > .card:last-child:nth-child(odd) { grid-column: 1 / -1; }
.card > .soft { font-size: 13px; margin-top: 8px; }
figure.card figcaption { font-weight: 650; margin-bottom: 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 6px 8px; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top;
  white-space: nowrap; }
tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; }
thead th { color: var(--soft); font-size: 13px; white-space: normal; vertical-align: bottom; }
th:first-child, td.words { text-align: left; }
td.words { white-space: normal; overflow-wrap: anywhere; }
td small, th small { display: block; color: var(--soft); font-size: 11.5px; font-weight: 400; }
th small { white-space: normal; max-width: 230px; }
svg { display: block; width: 100%; height: auto; font-family: inherit; font-variant-numeric: tabular-nums; }
svg text { fill: var(--soft); font-size: 11.5px; }
svg .key { fill: var(--ink); font-size: 12px; }
.grid line.grid, line.grid { stroke: var(--rule); stroke-width: 1; }
.base { stroke: var(--soft); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.line.first { stroke: var(--first); } .dot.first { fill: var(--first); }
.line.second { stroke: var(--second); stroke-dasharray: 7 2.5; } .dot.second { fill: var(--second); }
.line.third { stroke: var(--third); stroke-dasharray: 3 2.5; } .dot.third { fill: var(--third); }
.line.fourth { stroke: var(--fourth); stroke-dasharray: 9 2.5 2 2.5; } .dot.fourth { fill: var(--fourth); }
.area.plain, .dot.plain { fill: var(--plain); fill-opacity: .3; }
.bars.plain { fill: var(--plain); fill-opacity: .6; }
.bars.bad { fill: var(--bad); }
.told { fill: transparent; }
.told:hover { fill: var(--ink); fill-opacity: .09; }
footer { color: var(--soft); font-size: 13px; margin-top: 20px; }
@media print {
  :root { --page: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #bbb; --first: #1f63c0; --second: #c2550a;
    --third: #14845a; --fourth: #8746b3; --plain: #8f99a3; --bad: #c62f2b; --good-back: #fff; --good-ink: #0d5c3c;
    --warn-back: #fff; --warn-ink: #8a4300; --bad-back: #fff; --bad-ink: #95201d; }
  @page { margin: 14mm; }
  body { font-size: 11px; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 16px; }
  h2, figcaption { font-size: 12px; }
  .facts dd { font-size: 14px; }
  .facts dt, .facts small, .card > .soft, thead th, footer { font-size: 9px; }
  .badge, .reasons { border: 1px solid currentColor; }
  .card, .facts div { break-inside: avoid; }
  .grid { grid-template-columns: 1fr 1fr; }
  .wide { overflow: visible; }
  table { font-size: 9.5px; }
  td small, th small { font-size: 8px; }
  th, td { padding: 3px 4px; }
}
"""
