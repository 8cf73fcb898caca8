"""Exact token counts of OpenAI's models with tiktoken, from a vocabulary that is on this machine already.

Rules of this file:
1. Never a download: tiktoken fetches what it does not find, so its loader is not used; the file is read and its checksum,
   which tiktoken knows, is verified here.
2. tiktoken is an extra (``pip install 'throughput-engine[tokens]'``): it is imported only where it is asked for.
"""

import hashlib
from base64 import b64decode
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engine.core.errors import UsageError

QUARTERS = 4  # texts are measured in quarter tokens everywhere


def exact_measure(model: str, folders: Iterable[str]) -> Callable[[str], int]:
    """What measures a text in quarter tokens, exactly, by ``model``'s vocabulary in one of ``folders``.

    Raises UsageError where tiktoken, the model's vocabulary or its file is missing or not what it should be.
    """
    try:
        import tiktoken
        import tiktoken_ext.openai_public as public
        from tiktoken.model import encoding_name_for_model
    except ImportError:
        raise UsageError(
            "--count-tokens needs tiktoken: pip install 'throughput-engine[tokens]'. Nothing was sent."
        ) from None
    try:
        name = encoding_name_for_model(model)
    except KeyError:
        raise UsageError(
            f"tiktoken knows no vocabulary of the model {model!r}: leave --count-tokens out, estimates are corrected by "
            "what replies state. Nothing was sent."
        ) from None

    def offline(address: str, expected_hash: str | None = None) -> dict[bytes, int]:
        return _ranks(name, address, expected_hash, folders)

    theirs = public.load_tiktoken_bpe
    public.load_tiktoken_bpe = offline
    try:
        parts: dict[str, Any] = public.ENCODING_CONSTRUCTORS[name]()
    finally:
        public.load_tiktoken_bpe = theirs
    encode = tiktoken.Encoding(**parts).encode_ordinary
    return lambda text: QUARTERS * len(encode(text))


def _ranks(name: str, address: str, expected_hash: str | None, folders: Iterable[str]) -> dict[bytes, int]:
    """The vocabulary out of tiktoken's cache, whose files are named by the checksum of their address."""
    file_name = hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
    looked = []
    for folder in folders:
        path = Path(folder) / file_name
        looked.append(str(path))
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if expected_hash and hashlib.sha256(data).hexdigest() != expected_hash:
            raise UsageError(f"{path} is not the vocabulary {name} that tiktoken expects. Nothing was sent.")
        return {b64decode(token): int(rank) for token, rank in map(bytes.split, data.splitlines()) if token}
    raise UsageError(
        f"The vocabulary {name} is not on this machine (looked for {', '.join(looked)}), and nothing is ever downloaded. "
        "Leave --count-tokens out, or name the folder that has it with TIKTOKEN_CACHE_DIR. Nothing was sent."
    )
