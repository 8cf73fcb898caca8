"""Classify texts, several hundred at once, in the order they were given. Usage: classify.py

The provider is the built-in mock, so that it costs nothing: for a real one give model="gpt-4.1-mini" (and, for a server
of your own, base_url="http://127.0.0.1:8000/v1") in place of provider and base_url, and your limits as rpm and tpm.
"""

from collections import Counter

from engine import Pool, ask

TEXTS = [f"Ticket {number}: my virtual machine does not start" for number in range(300)]
PROMPT = "Choose one of: compute, storage, network\n{{ text }}"

pool = Pool(
    ask(PROMPT, max_tokens=5),
    TEXTS,
    max_flows=100,
    procs=2,
    provider="mock",
    base_url="mock:latency=50ms",
)
results = pool.run()

# Rows that failed are among the results, with why. They can be run again, and only they are.
for result in pool.retry_failed():
    results[result.index] = result

print(pool.status)
print(Counter(result.value for result in results if result.ok))
