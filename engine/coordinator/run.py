"""One run from the job to the summary: check, open, resume, run, publish.

Rules of this file:
1. Everything that can be refused is refused before anything is sent.
2. The output appears under its name only when every row has its outcome.
"""

import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from engine.config import Job
from engine.coordinator.feed import Feed
from engine.coordinator.session import Ended, Session
from engine.coordinator.supervise import Supervisor
from engine.coordinator.writer import Writer
from engine.core.commit import Commit
from engine.core.errors import ExitCode, StoreFailure, UsageError
from engine.core.ledger import Ledger
from engine.credentials import AuthHeader
from engine.formats import format_named
from engine.launchers.process import raise_open_files
from engine.observe.metrics import Metrics
from engine.observe.progress import Progress
from engine.observe.summary import Summary
from engine.providers import make_provider
from engine.sink import StreamOut, check_output, publish
from engine.source import Source
from engine.steps import make_step
from engine.steps.ask import answer_columns
from engine.steps.template import columns_used
from engine.store import Store
from engine.wire.link import IPC_PATH_MAX, Hub
