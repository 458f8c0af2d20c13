"""Texts that a server writes for several clients, and the first token of a conversation's turn.

    python benchmarks/serving_texts.py [--rounds 3]

1, 4 and 16 clients each ask for a text at the same time: of a server that writes them in one batch,
and of one that writes one after the other (`--generations 1`), in alternation; medians of the
rounds. Both have one thread for the model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time

import httpx

from serving import WORDS, Connection, ours


async def write(address: str, clients: int, tokens: int = 32) -> float:
    """Each client asks for a text; the new tokens a second."""

    async def client(number: int) -> int:
        connection = await Connection(address).open()
        prompt = " ".join(random.Random(number).choices(WORDS, k=12))
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0}
        status, answer = await connection.ask("/v1/completions", json.dumps(body).encode())
        assert status == 200
        return int(json.loads(answer)["usage"]["completion_tokens"])

    began = time.perf_counter()
    written = await asyncio.gather(*(client(number) for number in range(clients)))
    return sum(written) / (time.perf_counter() - began)


def first_token(address: str, messages: list[dict[str, str]]) -> tuple[float, str]:
    """Return the seconds until the first piece of an answer, and the answer."""
    body = {"messages": messages, "max_tokens": 24, "temperature": 0, "stream": True}
    began, first, answer = time.perf_counter(), 0.0, ""
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=60) as found:
        for line in found.iter_lines():
            if '"content"' not in line or "role" in line:
                continue
            first = first or time.perf_counter() - began
            answer += json.loads(line.removeprefix("data: "))["choices"][0]["delta"]["content"]
    return first, answer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"load {os.getloadavg()[0]:.1f}")
    with (
        ours("smollm2", "--timeout", "600") as (together, _),
        ours("smollm2", "--timeout", "600", "--generations", "1") as (alone, _),
    ):
        for clients in (1, 4, 16):
            speeds: dict[str, list[float]] = {together: [], alone: []}
            for number in range(rounds + 1):
                for address, found in speeds.items():
                    speed = asyncio.run(write(address, clients))
                    found += [speed] * (number > 0)  # the first is for warming up
            both, one = (statistics.median(found) for found in speeds.values())
            print(
                f"{clients:3} clients: {both:6.1f} tokens/s in one batch, "
                f"{one:6.1f} one text after the other, {both / one:.2f}x"
            )
        messages = [{"role": "system", "content": "You sell furniture. " + " ".join(WORDS * 8)}]
        for turn in range(5):
            messages.append({"role": "user", "content": f"What is a {WORDS[turn]} {WORDS[-turn]}?"})
            known, answer = first_token(together, messages)
            if turn in (0, 4):
                print(f"turn {turn + 1}: the first token after {known:.2f} s")
            messages.append({"role": "assistant", "content": answer})
        anew, _ = first_token(alone, messages[:-1])
        print(f"turn 5 on a server that has not read the others: {anew:.2f} s")


if __name__ == "__main__":
    main()
