"""What makes replicas go step by step: a clock, lives and an engine under control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from parley.inference.v1 import inference_pb2 as pb

from parley_session.fleet.base import Draw
from support.session_fakes import FakeFleet
from support.session_mortal import Death
from support.session_world import ManualClock
from support.virtual_time import VirtualLoop

# Pieces of every answer, and the bytes of each.
PIECES, WIDTH = 4, 4


class LoopClock(ManualClock):
    """The clock of a virtual loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    @property
    def seconds(self) -> float:  # type: ignore[override]
        """Seconds that have passed."""
        return self._loop.time()


@dataclass
class Life(Death):
    """A replica's life: others come in between its operations, and it sleeps where it is told."""

    awake: asyncio.Event = field(default_factory=asyncio.Event)

    async def reach(self) -> None:
        """See `Death.reach`."""
        await asyncio.sleep(0)
        await self.awake.wait()
        await super().reach()


class SteppedFleet(FakeFleet):
    """An engine that says as much as it is let. No two drawings say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.unbound = False
        self._turnstiles: list[asyncio.Semaphore] = []

    def speak(self, pieces: int) -> None:
        """Let every answer in progress come on by so many pieces."""
        for turnstile in self._turnstiles:
            for _ in range(pieces):
                turnstile.release()

    def unbind(self) -> None:
        """Let all answers come to their end, also those that are begun later."""
        self.unbound = True
        self.speak(PIECES)

    async def draw(self, draw: Draw) -> AsyncGenerator[pb.GenerateResponse, None]:
        self.draws.append(draw)
        text = f"{len(self.draws) % 100:02d}é"
        turnstile = asyncio.Semaphore(PIECES if self.unbound else 1)
        self._turnstiles.append(turnstile)
        self.drawing += 1
        draw.placed()
        try:
            yield pb.GenerateResponse(started=pb.GenerationStarted(prompt_tokens=7))
            for number in range(len(draw.request.generated_token_ids), PIECES):
                await turnstile.acquire()
                yield pb.GenerateResponse(
                    chunk=pb.GenerationChunk(offset=number * WIDTH, text=text, token_ids=[number])
                )
            yield pb.GenerateResponse(
                finished=pb.GenerationFinished(
                    finish_reason=pb.FINISH_REASON_STOP, prompt_tokens=7, completion_tokens=PIECES
                )
            )
        finally:
            self._turnstiles.remove(turnstile)
            self.drawing -= 1
