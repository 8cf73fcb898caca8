"""A frame in, the same frame with an answer for each row out. Usage: frame.py   (needs pandas)"""

import pandas

import engine

reviews = pandas.DataFrame(
    {"review": ["Fast and friendly", "It broke after a day", "Does what it should"]}, index=["a", "b", "c"]
)
schema = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad"]}, "sure": {"type": "boolean"}},
    "required": ["label", "sure"],
}
judged = engine.enrich(
    reviews,
    prompt="Is this review good or bad? {{ review }}",
    schema=schema,
    provider="mock",
    base_url="mock:latency=20ms",
)
print(judged.columns.tolist(), judged.index.tolist())
print(judged["label"].isin(["good", "bad"]).all())
