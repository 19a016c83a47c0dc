"""All people log in at the same moment, while health checks go on.

Reads `{"url", "process_id", "people"}` as JSON from standard input. Prints how much the resident
memory of the process grew at most, in MiB, and the longest health check, in milliseconds.
"""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

PAUSE_SECONDS = 0.005


async def main(url: str, process_id: int, people: list[dict[str, str]]) -> dict[str, float]:
    """Log in once with each of the people. Raises if one cannot."""
    if urlsplit(url).hostname != "127.0.0.1":
        raise ValueError(f"{url} is not on this machine.")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await _seconds_of_a_check(session, url)
        at_rest = _memory(process_id)
        log_ins = asyncio.gather(*(_log_in(session, url, person) for person in people))
        longest, most = 0.0, at_rest
        while not log_ins.done():
            longest = max(longest, await _seconds_of_a_check(session, url))
            most = max(most, _memory(process_id))
            await asyncio.sleep(PAUSE_SECONDS)
        await log_ins
    return {"grown_mib": most - at_rest, "longest_ms": longest * 1000}


async def _log_in(session: aiohttp.ClientSession, url: str, person: dict[str, str]) -> None:
    async with session.post(f"{url}/auth/login", json=person) as answer:
        answer.raise_for_status()


async def _seconds_of_a_check(session: aiohttp.ClientSession, url: str) -> float:
    started = time.perf_counter()
    async with session.get(f"{url}/livez") as answer:
        answer.raise_for_status()
    return time.perf_counter() - started


def _memory(process_id: int) -> float:
    """The resident memory of a process in MiB."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8")
    (kibibytes,) = re.findall(r"(?m)^VmRSS:\s*(\d+) kB$", status)
    return int(kibibytes) / 1024


if __name__ == "__main__":
    job: dict[str, Any] = json.load(sys.stdin)
    print(json.dumps(asyncio.run(main(**job))))
