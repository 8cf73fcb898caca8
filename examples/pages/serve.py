"""Serves a handful of pages like those of the web: menus, banners, scripts and footers around what they say.

Usage: serve.py [PORT]    (default 8765; 0 takes a free one). Prints the address, serves until it is interrupted.
"""

import sys
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><title>{title} | {site}</title>
<link rel="stylesheet" href="/site.css">
<style>.banner {{ position: fixed }} .ad::after {{ content: "buy now" }}</style>
<script>window.dataLayer = [{{"event": "view", "html": "<p>not a paragraph</p>"}}];</script>
</head>
<body class="page">
<header class="top"><a href="/"><img src="/logo.svg" alt=""> {site}</a></header>
<nav aria-label="Main"><ul><li><a href="/news">News</a><li><a href="/about">About us</a><li><a href="/login">Log in</a></ul></nav>
<div role="dialog" class="banner">We value your privacy. <button>Accept all 312 partners</button></div>
<main>
{content}
</main>
<aside class="ad"><h3>Others also read</h3><ul><li><a href="/x">Ten things about tea</a></ul></aside>
<form action="/search"><label>Search <input name="q"></label><button>Go</button></form>
<footer><p>&copy; 2024 {site}. <a href="/imprint">Imprint</a> <a href="/cookies">Cookies</a></p></footer>
<noscript><img src="https://tracker.example/pixel.gif" alt="pixel"></noscript>
<script src="/app.js" async></script>
</body>
</html>
"""

KETTLE = """<article><h1>Harbour kettle, 1.7&nbsp;l</h1>
<p><strong>In stock.</strong> Brushed steel, boils a litre in 2&#189; minutes; see
<a href="/manuals/harbour.pdf">the manual</a>.</p>
<img src="/img/kettle.jpg" alt="The kettle on a stove">
<h2>Details</h2>
<table><thead><tr><th>Property<th>Value</thead>
<tbody><tr><td>Power<td>2,200 W<tr><td>Weight<td>1.1 kg<tr><td>Cord<td>75 cm</table>
<h2>Reviews</h2>
<blockquote><p>Quiet, and the lid stays cool. <em>Mara</em></p></blockquote>
<blockquote><p>The handle came loose after a month. <em>Jon</em></p></blockquote></article>"""

BARRIER = """<article><header><h1>Flood barrier closes for the first time</h1>
<p class="by">By our harbour desk, 4 March</p></header>
<p>The new barrier across the estuary was closed on Monday evening as a surge of <b>3.1 metres</b> came in from the north.</p>
<p>&ldquo;All eleven gates moved within forty minutes,&rdquo; said the operator. Two ferries were held back until 5&nbsp;a.m.</p>
<figure><img src="/img/gates.jpg" alt="Closed gates at dusk"><figcaption>The gates at dusk</figcaption></figure>
<p>The barrier cost 410 million and took nine years. <a href="/news/2019/barrier">Earlier: why it was delayed</a></p></article>"""

RETRY = """<h1>retry(function, times)</h1>
<p>Calls <code>function</code> until it returns, at most <code>times</code> times.</p>
<pre><code class="language-python">def fetch():
    return client.get("/status")

status = retry(fetch, times=3)
</code></pre>
<h2>Parameters</h2>
<dl><dt>function</dt><dd>takes no arguments; may raise</dd><dt>times</dt><dd>from 1 to 10; the default is 3</dd></dl>
<h2>Notes</h2>
<ol><li>Waits double: 1&nbsp;s, 2&nbsp;s, 4&nbsp;s.<li>The last exception is raised as it is.</ol>"""

TIDES = """<h1>Tides this week</h1>
<table><caption>Heights above chart datum</caption>
<tr><th>Day</th><th>High</th><th>Height</th><th>Low</th><th>Height</th></tr>
{rows}
</table>
<p>Times are local. On <em>Thursday</em> the spring tide is the highest of the month.</p>""".format(
    rows="\n".join(
        f"<tr><td>{day}</td><td>{6 + at:02}:{7 * at:02}</td><td>{2.9 + at / 10:.1f} m</td>"
        f"<td>{(12 + at):02}:{5 * at:02}</td><td>{0.9 - at / 10:.1f} m</td></tr>"
        for at, day in enumerate(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"))
    )
)

THREAD = """<h1>Sourdough will not rise</h1>
<article><h3>pip_44</h3><p>Second week, 21 degrees in the kitchen, and <i>nothing</i>. Rye starter, 1:1:1.<br>
What am I missing?</article>
<article><h3>old_oven</h3><p>Warmth. Put it near the boiler. <p>And feed it <b>twice</b> a day, see
<a href="/faq#starter">the FAQ</a>.</article>
<article><h3>pip_44</h3><p>It doubled overnight! Thank you.</article>
<p hidden>Moderators: thread 5581, reports 0</p>"""

BAKERY = """<section><h1>Bakery &ldquo;Zur M&uuml;hle&rdquo;</h1>
<p>Open <time>06:30</time> to <time>18:00</time>, closed on Sundays. M&uuml;hlgasse 3, beside the old mill.</p>
<ul><li>Rye loaf, 4.20 &euro;<li>Butter croissant, 1.60 &euro;<ul><li>with almonds, 2.10 &euro;</ul><li>Plum cake in season</ul>
<p>Orders by telephone: <a href="tel:+4900000">0 00 00</a>. <a href="javascript:openMap()">Show on the map</a></p></section>"""

PAGES = {
    "kettle.html": ("Harbour kettle", "Shop by the Sea", KETTLE),
    "flood-barrier.html": ("Flood barrier closes", "The Estuary Post", BARRIER),
    "retry.html": ("retry", "Small Library", RETRY),
    "tides.html": ("Tides", "Harbour Office", TIDES),
    "thread.html": ("Sourdough will not rise", "Bakers' Forum", THREAD),
    "bakery.html": ("Zur Mühle", "Our Town", BAKERY),
}


class Handler(BaseHTTPRequestHandler):
    """Answers with one of the pages."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """One page, or 404."""
        found = PAGES.get(self.path.lstrip("/"))
        status, body = 404, b"<h1>Not found</h1>"
        if found is not None:
            title, site, content = found
            text = FRAME.format(title=escape(title), site=escape(site), content=content)
            status, body = 200, text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Nothing is told for each request."""


def main() -> int:
    """Serve until interrupted."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
