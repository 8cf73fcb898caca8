"""Would the tests notice? The rules that protect data and money, each broken once: some test has to fail.

One command: python tests/mutants.py [NAME...]. Each mutant is a copy of the project with one rule undone; the tests named with it
run there. Prints every mutant's fate and killed / total; ends with 1 if one survived. ``--json FILE`` keeps the result.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
ENOUGH_S = 240


class Mutant(NamedTuple):
    """One rule undone: in ``file`` the text ``old``, which is there once, becomes ``new``."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant(
        "let rows choose where a secret goes", "keys.py", "    refuse_astray(job)\n", "",
        "tests/unit/test_endpoints.py",
    ),
    Mutant(
        "connect to whatever a name stands for", "worker/resolving.py", " if not is_off_limits(one[\"host\"])]", "]",
        "tests/unit/worker/test_resolving.py tests/unit/worker/test_roaming.py",
    ),
    Mutant(
        "take a link-local address in figures from a row", "providers/row_urls.py",
        "    if is_off_limits(address):\n", "    if False:\n", "tests/unit/providers/test_row_urls.py",
    ),
    Mutant(
        "drop an origin with a request in flight", "worker/roaming.py",
        "        place.engaged -= 1\n        if not place.engaged:\n", "        place.engaged -= 1\n        if True:\n",
        "tests/unit/worker/test_roaming.py",
    ),
    Mutant(
        "acknowledge before the commit", "coordinator/writer.py",
        "            failure = self._write([commit for commit, _ in group])\n",
        "            self._loop.call_soon_threadsafe(self._written, group)\n"
        "            failure = self._write([commit for commit, _ in group])\n",
        "tests/unit/coordinator/test_writer.py",
    ),
    Mutant(
        "go on acknowledging after a failed commit", "coordinator/writer.py",
        "                    self._loop.call_soon_threadsafe(self._on_failure, failure)\n                    return\n",
        "                    self._loop.call_soon_threadsafe(self._on_failure, failure)\n",
        "tests/unit/coordinator/test_writer.py",
    ),
    Mutant(
        "hand out rows before their lease is kept", "coordinator/leasing.py",
        "        self._commits.opened(lease, numbers, recorded)\n",
        "        recorded()\n        self._commits.opened(lease, numbers, lambda: None)\n",
        "tests/unit/coordinator/test_leasing.py",
    ),
    Mutant(
        "take an outcome under a lease that is gone", "core/ledger.py",
        "        rows = None if holding is None else holding.leases.get(lease)\n",
        "        rows = None if holding is None else next((h for h in holding.leases.values() if row in h), None)\n",
        "tests/unit/core/test_ledger.py tests/property/test_ledger_machine.py",
    ),
    Mutant(
        "take an outcome from a dead worker", "core/ledger.py",
        "        holding = self._holdings.get(worker)\n        rows = None",
        "        holding = next((h for h in self._holdings.values() if lease in h.leases), None)\n        rows = None",
        "tests/unit/core/test_ledger.py tests/property/test_ledger_machine.py",
    ),
    Mutant(
        "take a step from a dead worker", "core/ledger.py",
        "held = None if holding is None else holding.leases.get(lease, {}).get(row)",
        "held = next((rows[row] for one in self._holdings.values() for rows in one.leases.values() if row in rows), None)",
        "tests/unit/core/test_ledger.py",
    ),
    Mutant(
        "join a finished step to a row that has changed", "coordinator/stepbook.py",
        "if one.digest != row.digest:", "if one.digest is None:", "tests/unit/coordinator/test_stepbook.py",
    ),
    Mutant(
        "pay again for what was stopped on its way from a step", "store/reopening.py",
        "        return False\n", "        pass\n", "tests/unit/store/test_steps.py",
    ),
    Mutant(
        "run a finished step again", "worker/chains.py",
        "            chain.progress.finish(step.step)\n", "            pass\n", "tests/unit/worker/test_chains.py",
    ),
    Mutant(
        "use a step whose bytes have changed", "store/writing.py",
        "or _step_checksum(row, step, ok == 1, digest, data or b\"\") != crc", "or crc is None", "tests/unit/store/test_steps.py",
    ),
    Mutant(
        "forget a finished step when its worker dies", "coordinator/stepbook.py",
        "        self._may_find = self._store is not None\n\n", "        pass\n\n",
        "tests/unit/coordinator/test_stepbook.py",
    ),
    Mutant(
        "give a row up without what was finished of it", "coordinator/poison.py",
        "                fields.update(decode_json(one.data))\n", "                pass\n",
        "tests/unit/coordinator/test_poison.py",
    ),
    Mutant(
        "end a run while a row is being given up", "coordinator/poison.py",
        "        self.open += len(lost.poisoned)\n", "        self.open += 0\n",
        "tests/unit/coordinator/test_poison.py",
    ),
    Mutant(
        "begin a row that workers died with before what was finished of it is told", "worker/chainloop.py",
        "            if self._loop.time() < self._told_until:\n", "            if False:\n",
        "tests/unit/worker/test_chainloop.py",
    ),
    Mutant(
        "keep rows that were never handed out in doubt", "coordinator/leasing.py",
        "        if back:\n", "        if False:\n", "tests/unit/coordinator/test_leasing.py",
    ),
    Mutant(
        "count a step that is told twice under one lease twice", "coordinator/stepbook.py",
        "    return is_news\n", "    return True\n", "tests/unit/coordinator/test_stepbook.py",
    ),
    Mutant(
        "mix up the results of two steps", "coordinator/stepbook.py",
        "                    places[one.step],\n", "                    len(places) - 1 - places[one.step],\n",
        "tests/unit/coordinator/test_stepbook.py",
    ),
    Mutant(
        "give a row what another one has finished", "worker/chainloop.py",
        "self._chains.begin(lease, line, self._done.pop(line.row, ()))",
        "self._chains.begin(lease, line, self._done.popitem()[1] if self._done else ())",
        "tests/sim/test_broken_rules.py -k well",
    ),
    Mutant(
        "drop the commit of steps without a word", "coordinator/session.py",
        "self._commits.finished(rows, steps=self._steps.rows_of(steps))", "self._commits.finished(rows)",
        "tests/sim/test_broken_rules.py -k well",
    ),
    Mutant(
        "drop the steps that no row ends with", "coordinator/session.py", "        if rows or steps:\n", "        if rows:\n",
        "tests/sim/test_broken_rules.py -k well",
    ),
    Mutant(
        "acknowledge a row before its steps are committed", "store/store.py",
        "            write_steps(writer, [line for commit in commits for line in commit.steps])\n",
        "            writer.execute(\"COMMIT\")\n            writer.execute(\"BEGIN IMMEDIATE\")\n"
        "            write_steps(writer, [line for commit in commits for line in commit.steps])\n",
        "tests/unit/store/test_steps.py",
    ),
    Mutant(
        "forget finished steps when a row is leased again", "coordinator/leasing.py",
        "rows=lines, done=done, is_trial", "rows=lines, is_trial",
        "tests/sim/test_broken_rules.py -k well",
    ),
    Mutant(
        "give rows back before their finished steps are told", "worker/chainloop.py",
        "            self._flush(self._loop.time())  # what was finished of them goes first\n", "",
        "tests/sim/test_broken_rules.py -k well",
    ),
    Mutant(
        "ask a step that the row is spared", "worker/chains.py",
        "                    progress.spare(place)\n                    continue\n", "                    pass\n",
        "tests/unit/worker/test_chains.py",
    ),
    Mutant(
        "ask a step that takes what only spared steps give", "core/chain.py",
        "if any(not givers & ~spared and name not in columns for name, givers in shape.givers[at]):", "if False:",
        "tests/unit/core/test_chain.py",
    ),
    Mutant(
        "run what needs a failed step", "core/chain.py", "            if waits & self.failed:\n", "            if False:\n",
        "tests/unit/core/test_chain.py",
    ),
    Mutant(
        "leave workers without the limiter that they were told of", "coordinator/limiting.py",
        "self._declared.needs_limiter or self._link is not None", "self._declared.needs_limiter or self._info is not None",
        "tests/unit/coordinator/test_limiting.py",
    ),
    Mutant(
        "condemn the neighbours of a poison row", "core/ledger.py",
        "if holding.rows == 1 and row.deaths >= self._poison_deaths:", "if row.deaths >= self._poison_deaths:",
        "tests/unit/core/test_ledger.py tests/property/test_ledger_machine.py",
    ),
    Mutant(
        "forget the rows of a dead worker", "core/ledger.py",
        "        self._leased -= holding.rows\n        self._requeue(back)\n", "        self._leased -= holding.rows\n",
        "tests/unit/core/test_ledger.py tests/property/test_ledger_machine.py",
    ),
    Mutant(
        "count nothing in doubt after a crash", "store/store.py",
        "            in_doubt = len(rows) - finished\n", "            in_doubt = 0\n",
        "tests/unit/store tests/property/test_store_machine.py",
    ),
    Mutant(
        "keep leases open after a crash", "store/store.py",
        '            writer.execute("DELETE FROM lease")\n', "",
        "tests/unit/store tests/property/test_store_machine.py",
    ),
    Mutant(
        "sync nothing to disk", "store/opening.py",
        'writer.execute(f"PRAGMA synchronous = {synchronous}")', 'writer.execute("PRAGMA synchronous = OFF")',
        "tests/unit/store tests/property/test_store_machine.py",
    ),
    Mutant(
        "two runs on one folder", "store/folder.py",
        "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "        pass\n",
        "tests/unit/store/test_folder.py",
    ),
    Mutant(
        "a state that others may read", "store/folder.py", "    folder.chmod(0o700)\n", "    folder.chmod(0o755)\n",
        "tests/unit/store/test_folder.py",
    ),
    Mutant(
        "go on though the input was changed", "coordinator/feed.py", "    if row.digest != digest:\n", "    if False:\n",
        "tests/unit/coordinator/test_feed.py",
    ),
    Mutant(
        "retry what was refused as malformed", "core/errors.py",
        'ErrorKind.BAD_REQUEST: Policy(*_NEVER, "the endpoint refused',
        'ErrorKind.BAD_REQUEST: Policy(Retry.BACKOFF, True, Signal.NONE, RunEffect.NONE, "the endpoint refused',
        "tests/unit/core/test_retry.py tests/property/test_retry_machine.py",
    ),
    Mutant(
        "a stale connection is always free", "core/retry.py", "            if not stale:\n", "            if True:\n",
        "tests/unit/core/test_retry.py tests/property/test_retry_machine.py",
    ),
    Mutant(
        "believe any wait", "core/retry.py", "return Decision(True, min(wait_s, WAIT_MAX_S) + jitter, free)",
        "return Decision(True, wait_s + jitter, free)",
        "tests/unit/core/test_retry.py tests/property/test_retry_machine.py",
    ),
    Mutant(
        "no retry budget", "core/retry.py", "        if self.retries >= self._ratio * self.calls:\n", "        if False:\n",
        "tests/unit/core/test_retry.py tests/property/test_retry_machine.py",
    ),
    Mutant(
        "no sliding window under the bucket", "core/bucket.py",
        " and self.window.total + charge <= self.limit", "", "tests/property/test_bucket_machine.py",
    ),
    Mutant(
        "a limiter that starts anew starts full", "core/bucket.py", "        if head <= known:\n", "        if True:\n",
        "tests/property/test_bucket_machine.py tests/unit/core/test_bucket.py",
    ),
    Mutant(
        "a limiter that ended leaves notes like a dead one's", "limiter/server.py",
        "                self._standing.close()\n", "", "tests/unit/limiter/test_server.py",
    ),
    Mutant(
        "give back more than was charged", "core/bucket.py",
        "        back = self.window.give_back(amount)\n", "        self.window.give_back(amount)\n        back = 10 * amount\n",
        "tests/property/test_bucket_machine.py tests/unit/core/test_bucket.py",
    ),
    Mutant(
        "one pause for every 429 of a burst", "core/quota.py", "        if generation < self.generation:\n", "        if False:\n",  # noqa: E501
        "tests/unit/core/test_bucket.py tests/property/test_bucket_machine.py",
    ),
    Mutant(
        "give back for calls that the minute forgot", "worker/charging.py",
        "least = 0 if age_s >= REMEMBERED_S else -TOKENS_MAX", "least = -TOKENS_MAX", "tests/unit/worker/test_charging.py",
    ),
    Mutant(
        "grants count before the limiter knows us", "limiter/client.py",
        "            if self._joined:\n                self._granted(message.upto, message.generation)\n",
        "            self._granted(message.upto, message.generation)\n",
        "tests/unit/limiter/test_client.py",
    ),
    Mutant(
        "anybody may join a limiter", "limiter/server.py",
        "if not hmac.compare_digest(message.token.encode(), self._token.encode()):", "if False:",
        "tests/unit/limiter/test_server.py",
    ),
    Mutant(
        "follow redirects", "worker/exchange.py", "        if 300 <= status < 400:\n", "        if False:\n",
        "tests/unit/worker/test_fetch.py",
    ),
    Mutant(
        "send the key to any host", "worker/fetch.py",
        "allowed = target.origin() == self._origin and target.user is None", "allowed = True", "tests/unit/worker/test_fetch.py",
    ),
    Mutant(
        "no cap on a body", "worker/wires/aiohttp.py", "            if size > bytes_max:\n                return None\n", "",
        "tests/unit/worker/test_fetch.py tests/unit/worker/test_fetch_bytes.py",
    ),
    Mutant(
        "no cap on a body of the lean wire", "worker/wires/lean_channel.py", "            if self._size > self._bytes_max:\n",
        "            if False:\n", "tests/unit/worker/test_wires.py -k over_the_cap",
    ),
    Mutant(
        "no cap on what is unpacked", "worker/exchange.py",
        "plain = machine.decompress(body, self.bytes_max + 1)", "plain = machine.decompress(body)",
        "tests/unit/worker/test_fetch.py tests/unit/worker/test_fetch_bytes.py",
    ),
    Mutant(
        "use a connection again after a failure", "worker/wires/aiohttp.py",
        "            if channel is not None:\n                channel.close()\n",
        "            if channel is not None:\n                self._connections.give_back(channel)\n",
        "tests/unit/worker/test_fetch.py tests/unit/worker/test_fetch_bytes.py",
    ),
    Mutant(
        "read on after a reply on the lean wire", "worker/wires/lean_channel.py",
        "            self._keep = False  # the reply is whole; what follows it is never looked at\n", "            pass\n",
        "tests/unit/worker/test_connections.py tests/unit/worker/test_wires.py",
    ),
    Mutant(
        "hear what nobody asked for on the lean wire", "worker/wires/lean_channel.py",
        "            self.drop(None)  # nobody asked\n", "            pass\n", "tests/unit/worker/test_lean.py",
    ),
    Mutant(
        "trailers of one reply are headers of the next", "worker/wires/lean_channel.py",
        "        if self._raw:\n            self._raw = []  # trailers\n", "", "tests/unit/worker/test_lean.py",
    ),
    Mutant(
        "let any frame in, however large", "wire/messages.py", "    if len(frame) > bytes_max:\n", "    if False:\n",
        "tests/unit/wire/test_messages.py",
    ),
    Mutant(
        "show a secret", "credentials.py", "    def __repr__(self) -> str:\n        return MASK\n",
        "    def __repr__(self) -> str:\n        return self._value\n", "tests/unit/test_handover.py tests/unit/test_settings.py",
    ),
    Mutant(
        "quote secrets in messages", "credentials.py", "            if shape in text:\n", "            if False:\n",
        "tests/unit/test_settings.py tests/unit/worker/test_fetch.py",
    ),
    Mutant(
        "leave formulas in cells", "formats/csv.py", "            if self._is_escaping and value.startswith(_RISKY)",
        "            if False and value.startswith(_RISKY)", "tests/unit/formats/test_csv.py tests/conformance/test_formats.py",
    ),
    Mutant(
        "leave line separators in records", "formats/record.py",
        '_OWN_LINE_ENDS = ((b"\\xe2\\x80\\xa8", b"\\\\u2028"), (b"\\xe2\\x80\\xa9", b"\\\\u2029"), (b"\\xc2\\x85", b"\\\\u0085"))',  # noqa: E501
        "_OWN_LINE_ENDS: tuple[tuple[bytes, bytes], ...] = ()", "tests/unit/formats/test_record.py",
    ),
    Mutant(
        "let escapes through to the terminal", "observe/sanitise.py", "    if not text.isprintable():\n", "    if False:\n",
        "tests/unit/observe/test_observe.py",
    ),
    Mutant(
        "a row goes back to an endpoint that refused it", "worker/routing.py",
        "if not lane.bit & shut and lane.is_well(now)", "if lane.is_well(now)", "tests/unit/worker/test_routing.py",
    ),
    Mutant(
        "an endpoint elsewhere inherits the job's key", "endpoints.py",
        '            merged["api_key_env"] = None\n', "            pass\n", "tests/unit/test_endpoints.py",
    ),
    Mutant(
        "no end of attempts between two endpoints", "worker/execute.py",
        "        if not self.tried >> lane & 1:\n", "        if True:\n", "tests/unit/worker/test_routing.py",
    ),
    Mutant(
        "say a word to the limiter once, though it may be lost", "coordinator/limiting.py",
        "            if now >= self._attach_at:\n", "            if False:\n", "tests/sim -k failed_once",
    ),
    Mutant(
        "work on a lease that comes twice", "worker/loop.py",
        "            if message.lease not in self._leases:", "            if True:", "tests/sim -k failed_once",
    ),
    Mutant(
        "use permits of long ago", "limiter/client.py",
        "            if message.given > self._given:\n"
        "                self._given = max(self._told, message.told)  # see rule 5; those of the queue have new numbers\n"
        "            self._link.send(Abandon(upto=self._given))\n",
        "            if message.given > self._given:\n                self._granted(message.given, message.generation)\n",
        "tests/unit/limiter/test_client.py -k rejoin",
    ),
    Mutant(
        "not notice that one was stopped", "limiter/client.py",
        "        return self._loop.time() - self._look_at > AWAY_S\n", "        return False\n",
        "tests/unit/limiter/test_client.py -k unread",
    ),
    Mutant(
        "call a run whole that stopped", "coordinator/session.py",
        " and self._ledger.is_idle and not self.ended.reason\n", " and self._ledger.is_idle\n", "tests/sim -k failed_once",
    ),
    Mutant(
        "leave leases open that outcomes were held back of", "coordinator/session.py",
        "        self._commits.settle()\n", "", "tests/sim -k failed_once",
    ),
    Mutant(
        "all calls are probes of an ill endpoint", "core/breaker.py",
        "        return self._probing < self._allowed\n", "        return True\n",
        "tests/unit/core/test_breaker.py tests/property/test_breaker_machine.py",
    ),
    Mutant(
        "more than sixteen calls before the first answer", "config.py",
        "GATE = 16  #", "GATE = 9999  #",
        "tests/unit/coordinator/test_supervise.py",
    ),
    Mutant(
        "go on after refused keys", "coordinator/stops.py", "            if self._streak >= STREAK:\n", "            if False:\n",
        "tests/unit/coordinator/test_stops.py",
    ),
    Mutant(
        "tell of a function that was given up again when it ends", "worker/threads.py",
        "            if not work.is_over and not self._is_closed:\n", "            if not self._is_closed:\n",
        "tests/unit/worker/test_functions.py",
    ),
    Mutant(
        "let a function's SystemExit end the worker", "worker/functions.py",
        "        except BaseException as error:  # as above\n", "        except Exception as error:  # as above\n",
        "tests/unit/worker/test_functions.py",
    ),
    Mutant(
        "leave a process that hangs alone", "worker/children.py", "            child.kill()\n            on_done, child.on_done",
        "            on_done, child.on_done", "tests/unit/worker/test_functions.py tests/unit/worker/test_children.py",
    ),
    Mutant(
        "run rows in a worker that only reads the script", "steps/functions.py", "        raise ScriptEnd\n", "        pass\n",
        "tests/unit/steps/test_functions.py tests/unit/steps/test_finding.py",
    ),
)  # fmt: skip


def mistake(mutant: Mutant) -> str:
    """What is wrong with the mutant itself; empty if nothing is."""
    path = ROOT / "engine" / mutant.file
    if not path.is_file():
        return f"there is no {mutant.file}"
    times = path.read_text().count(mutant.old)
    return "" if times == 1 else f"its text is in {mutant.file} {times} times"


def outcome(tests: str, mutant: Mutant | None = None) -> int | None:
    """How pytest ends in a copy of the project, with the mutant in it if there is one; None when it does not end."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        ignore = shutil.ignore_patterns("__pycache__")
        for part in ("engine", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", folder)
        if mutant is not None:
            path = folder / "engine" / mutant.file
            path.write_text(path.read_text().replace(mutant.old, mutant.new))
        command = [
            sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "unshrunk",
            *tests.split(),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, timeout=ENOUGH_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None
    return done.returncode


def fate(mutant: Mutant) -> str:
    """killed, survived, hung (nobody knows then), or what is wrong with the mutant itself."""
    wrong = mistake(mutant)
    if wrong:
        return wrong
    code = outcome(mutant.tests, mutant)
    return {0: "survived", 1: "killed", None: "hung"}.get(code, f"pytest ended with {code}")


def main() -> int:
    """All of them, or those that are named."""
    arguments = sys.argv[1:]
    result = None
    if "--json" in arguments:
        at = arguments.index("--json")
        result = Path(arguments[at + 1])
        del arguments[at : at + 2]
    unknown = set(arguments) - {mutant.name for mutant in MUTANTS}
    if unknown:
        print(f"no mutant is named {', '.join(sorted(unknown))}")
        return 2
    chosen = [mutant for mutant in MUTANTS if not arguments or mutant.name in arguments]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # Tests that fail anyway would kill every mutant.
        suites = sorted({mutant.tests for mutant in chosen})
        failing = [suite for suite, code in zip(suites, pool.map(outcome, suites), strict=True) if code != 0]
        if failing:
            fates = {
                mutant.name: "not run: its tests fail without it" if mutant.tests in failing else "not run"
                for mutant in chosen
            }
        else:
            fates = dict(zip((mutant.name for mutant in chosen), pool.map(fate, chosen), strict=True))
    killed = sum(what == "killed" for what in fates.values())
    if result is not None:
        result.write_text(
            json.dumps({"killed": killed, "total": len(fates), "fates": fates}, indent=1) + "\n"
        )
    if failing:
        print(f"Without any mutant these fail already, so no mutant was run: {'; '.join(failing)}.")
        return 1
    for name, what in fates.items():
        print(f"{what:10} {name}")
    print(f"{killed} / {len(fates)} killed")
    return 0 if killed == len(fates) else 1


if __name__ == "__main__":
    sys.exit(main())
