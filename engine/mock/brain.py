"""From a request's bytes to the reply's bytes: quota, capacity, faults, answer. No sockets.

Rules of this file:
1. The order is a provider's: key, path, quota, capacity, then the answer; a fault replaces what came of it.
2. Everything that arrived is in the log before anything is decided about it.
"""

import random
import time
from hashlib import blake2b

from engine.mock import replies, streams
from engine.mock.answers import cut_to, expected_answer, expected_object, tokens_of
from engine.mock.faults import DECLINED, FINISHES, Faults, struck
from engine.mock.log import TruthLog
from engine.mock.questions import BadQuestion, Question, Route, read_question
from engine.mock.quota import Quota, Refusal
from engine.mock.refusals import error_reply, limit_headers, quota_refused
from engine.mock.replies import JSON, LINES, SPEAKERS, TEXT, VECTORS, Reply, Spoken, whole
from engine.mock.settings import FaultRule, MockSettings, parse_latency

_PLAIN = whole(200, TEXT, b"ok")


class Brain:
    """The mock provider without its sockets."""

    def __init__(self, settings: MockSettings) -> None:
        self.settings = settings
        self.log = TruthLog(keep_records=settings.log)
        self._rng = random.Random(settings.seed)
        self._configure()

    def change(self, settings: MockSettings) -> None:
        """Go on with other settings; the log stays."""
        quota = settings.quota != self.settings.quota
        self.settings = settings
        self._configure(quota=quota)

    def reset(self) -> None:
        """Forget everything that arrived, and start quotas and faults anew."""
        busy = self.log.in_flight
        self.log = TruthLog(keep_records=self.settings.log)
        self.log.in_flight = busy
        self._configure()

    def _configure(self, *, quota: bool = True) -> None:
        settings = self.settings
        if quota:
            self._quota = Quota(settings.quota)
        self._faults = Faults(settings.faults, self._rng)
        self._latency = parse_latency(settings.latency)
        self._key = settings.api_key.encode()

    def answer(
        self, route: Route | None, path: str, body: bytes, auth: bytes, now: float
    ) -> tuple[Reply, float, int | None]:
        """The reply, how many seconds it takes, and the row it is for."""
        log = self.log
        if route is None:
            log.arrived(now, "other", None, 0)
            return error_reply("openai", 404, f"Invalid URL ({path[:200]})"), 0.0, None
        if route.api == "plain":
            log.arrived(now, route.name, None, 0)
            return self._after(_PLAIN, "openai", self._rule(None, body, now), now, None)
        if route.api == "echo":
            log.arrived(now, route.name, None, 0)
            rule = self._rule(None, body, now)
            return self._after(whole(200, TEXT, body), "openai", rule, now, None)
        shape = self.settings.error_shape or route.style
        if route.api == "models":
            log.arrived(now, route.name, None, 0)
            names = self.settings.models or ("mock",)
            listed = ",".join(f'{{"id":"{name}","object":"model","owned_by":"mock"}}' for name in names)
            return whole(200, JSON, f'{{"object":"list","data":[{listed}]}}'.encode()), 0.0, None
        try:
            question = read_question(route, body)
        except BadQuestion as error:
            log.arrived(now, route.name, None, 0)
            return error_reply(shape, 400, str(error)), 0.0, None
        row = self._row(body, question)
        cost = question.cost(self.settings.charge, route.style)
        refusal = self._quota.take(now, cost) if self._quota else None
        log.arrived(now, route.name, row, cost.tokens if refusal is None else 0)
        rule = self._rule(row, body, now) if self._faults else None
        finish = "" if rule is None else FINISHES.get(rule.name, "")
        good = self._decide(route, shape, question, refusal, auth, now, finish)
        return self._after(good, shape, rule, now, row)

    def _row(self, body: bytes, question: Question) -> int:
        data = body if self.settings.row_key == "body" else question.text.encode("utf-8", "replace")
        return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")

    def _decide(
        self,
        route: Route,
        shape: str,
        question: Question,
        refusal: Refusal | None,
        auth: bytes,
        now: float,
        finish: str,
    ) -> Reply:
        settings, log = self.settings, self.log
        if self._key and self._key not in auth:
            return error_reply(shape, 401, "Incorrect API key provided", code="invalid_api_key")
        if settings.models and question.model not in settings.models:
            return error_reply(
                shape, 404, f"The model {question.model} does not exist", code="model_not_found"
            )
        levels = b""
        if self._quota:
            levels = limit_headers(route.style, self._quota.levels(now), time.time())
        if refusal is not None:
            return quota_refused(
                shape, route.style, refusal, question.model, levels, with_ms=settings.retry_after_ms
            )
        capacity = settings.capacity
        if settings.capacity_steps:
            capacity = settings.capacity_after(now - log.arrivals[0] if log.arrivals else 0.0)
        if capacity and log.in_flight > capacity:
            return error_reply(shape, settings.capacity_status)
        good = self._speak(route, question, levels, finish)
        if route.style == "anthropic" and self._quota:
            # Output counts as it is produced (Anthropic's rate-limit documentation).
            self._quota.settle(now, good.tokens_out)
        return good

    def _speak(self, route: Route, question: Question, levels: bytes, finish: str) -> Reply:
        """The answer. ``finish``: refusal or filter, where a fault wants the model to decline; else ""."""
        settings = self.settings
        extra = levels + b"x-request-id: req_mock\r\n"
        vectors = VECTORS.get(route.api)
        if vectors is not None:
            return whole(200, JSON, vectors(question, settings.embedding_dims), extra)
        if question.schema is not None:
            text = expected_object(question.prompt, question.system, question.schema)
        else:
            text = expected_answer(
                question.prompt, question.system, template=settings.answer, words=settings.answer_words
            )
        text, cut = cut_to(text, question.tokens_max)
        if finish:
            text, cut = DECLINED if finish == "refusal" else "", False
        ended = finish or ("length" if cut else "stop")
        said = Spoken(text, ended, question.tokens_in, tokens_of(len(text)))
        self.log.tokens_in += said.tokens_in
        self.log.tokens_out += said.tokens_out
        if not question.stream or route.api not in streams.STREAMS:
            reply = whole(200, JSON, SPEAKERS[route.api](question, said), extra)
            reply.tokens_out = said.tokens_out
            reply.full = not finish
            return reply
        lines = route.style == "ollama"
        pieces = [replies.chunk(piece) for piece in streams.STREAMS[route.api](question, said)]
        step_s = 1.0 / settings.tokens_per_s if settings.tokens_per_s else 0.0
        front = replies.stream_head(LINES if lines else replies.EVENTS, extra)
        stream = iter([*pieces, replies.chunk(b"")])
        return Reply(200, front, rest=stream, step_s=step_s, full=not finish, api=route.api)

    def _rule(self, row: int | None, body: bytes, now: float) -> FaultRule | None:
        """The fault that strikes the request which has just arrived."""
        log = self.log
        return self._faults.pick(log.requests, now - log.arrivals[0], self._attempts(row), body)

    def frozen_s(self, now: float) -> float:
        """How long nothing is sent, whatever is due; 0 outside a freeze."""
        if not self._faults or not self.log.arrivals:
            return 0.0
        since_s = now - self.log.arrivals[0]
        until = self._faults.frozen_until(since_s)
        return 0.0 if until is None else until - since_s

    def _after(
        self, good: Reply, shape: str, rule: FaultRule | None, now: float, row: int | None
    ) -> tuple[Reply, float, int | None]:
        """Latency and faults."""
        latency_s = self._latency(self._rng) if good.status == 200 else 0.0
        if not self._faults:
            return good, latency_s, row
        log = self.log
        since_s = now - log.arrivals[0]
        latency_s *= self._faults.slowness(since_s)
        if rule is None or good.status == 429:
            return good, latency_s, row
        log.struck(rule.name)
        return struck(rule, good, shape, log.requests, since_s), latency_s, row

    def _attempts(self, row: int | None) -> int:
        if row is None:
            return 1
        seen = self.log.attempts
        seen[row] = seen.get(row, 0) + 1
        return seen[row]
