"""A vision server as all cameras share it: asked within a budget, left alone when it fails, watched over by numbers.

The requests live on an event loop of their own, so that each can be given up at any moment, whatever it waits for.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType

import structlog

from agent.describer.breaker import BreakerState, CircuitBreaker
from agent.describer.budget import HourlyBudget
from agent.describer.chat import ChatServer, WordsMissing
from agent.describer.request import chat_request
from agent.describing import Look
from agent.events.model import DescriberStatus
from agent.service.progress import Beat
from config.errors import DescriberError
from config.settings import Describer

log = structlog.get_logger()

Observe = Callable[[str, float], None]
"""Told after each request: `answered`, `failed`, or `abandoned` (given up by us), and the seconds it took."""
_BEAT_EVERY_S = 1.0
BUDGET = "describer-requests.json"
"""In the state folder: the requests of the last hour."""


class VisionServer:
    """Puts pictures of these cameras into words, from any thread, until `close`. Raises ConfigError when the server's
    key can't be had. state: folder in which the budget outlives this run; None = it begins anew. beat: the heart of the
    event loop.

    A request that fails is made again, after a pause, as long as no word has come, time is left and the breaker is
    closed.
    """

    def __init__(
        self,
        settings: Describer,
        cameras: Collection[str],
        *,
        state: Path | None = None,
        observe: Observe = lambda _outcome, _seconds: None,
        clock: Callable[[], float] = time.monotonic,
        breaker: CircuitBreaker | None = None,
        beat: Beat | None = None,
    ) -> None:
        self._beat = beat or Beat("describer")
        self._settings = settings
        self._observe = observe
        self._clock = clock
        self._chat = ChatServer(settings.url, None if settings.key is None else settings.key.read())
        self._breaker = breaker or CircuitBreaker(clock=clock)
        file = None if state is None else state / BUDGET
        self._budget = HourlyBudget(settings.per_hour, cameras, file=file, clock=clock)
        self._requests = self._failures = 0
        self._reason = ""
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="describer", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """`host:port`."""
        return self._chat.name

    @property
    def status(self) -> DescriberStatus:
        return DescriberStatus(
            server=self.name,
            model=self._settings.model,
            breaker=self._breaker.state.value,
            requests=self._requests,
            failures=self._failures,
            left_this_hour=self._budget.left,
        )

    @property
    def trouble(self) -> str | None:
        """Why it is not asked at this moment, None when it is."""
        if self._breaker.state is not BreakerState.CLOSED:
            return f"describer: {self._reason}"
        return None if self._budget.left else f"describer: {self._spent}"

    def describe(self, camera: str, look: Look) -> Iterator[str]:
        """The words about a look at this camera, as they come. Raises DescriberError."""
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        with self._lock:
            if self._closed:
                raise DescriberError("the agent was stopping")
            future = asyncio.run_coroutine_threadsafe(self._ask(camera, look, pieces.put), self._loop)
        future.add_done_callback(lambda _: pieces.put(None))
        try:
            while (piece := pieces.get()) is not None:
                yield piece
            if future.cancelled():
                raise DescriberError("the agent was stopping")
            future.result()
        finally:
            future.cancel()

    def close(self, timeout_s: float = 1.0) -> None:
        """Give up what is being asked and end. A second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout_s)

    def __enter__(self) -> VisionServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _spent(self) -> str:
        return f"the budget of {self._settings.per_hour} requests an hour is used up (describer.per_hour)"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._pulse()
        try:
            self._loop.run_forever()
            running = asyncio.all_tasks(self._loop)
            for task in running:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*running, return_exceptions=True))
            self._loop.run_until_complete(self._chat.close())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._beat.idle()
            self._loop.close()

    def _pulse(self) -> None:
        self._beat.beat()
        self._loop.call_later(_BEAT_EVERY_S, self._pulse)

    async def _ask(self, camera: str, look: Look, say: Callable[[str], None]) -> None:
        until = self._loop.time() + self._settings.timeout_s
        request = chat_request(look, self._settings)
        said = False

        def note(piece: str) -> None:
            nonlocal said
            said = True
            say(piece)

        while True:
            left_s = until - self._loop.time()
            if (pause_s := self._pause(camera, left_s)) > 0:
                await asyncio.sleep(pause_s)
                continue
            try:
                await self._try(request, note, left_s)
                return
            except DescriberError as error:
                if said or isinstance(error, WordsMissing) or self._breaker.state is not BreakerState.CLOSED:
                    raise

    def _pause(self, camera: str, left_s: float) -> float:
        """Seconds to wait before the next request, which is counted when it is 0. Raises DescriberError when there will
        be none in time."""
        if left_s <= 0:
            raise DescriberError(self._reason)
        if not self._budget.allows(camera):
            raise DescriberError(self._spent if not self._budget.left else f"the other cameras' share of {self._spent}")
        pause_s = self._breaker.admit()
        if pause_s >= left_s or (pause_s > 0 and self._breaker.state is not BreakerState.CLOSED):
            raise DescriberError(self._reason)
        if pause_s == 0:
            self._budget.spend(camera)
            self._requests += 1
        return pause_s

    async def _try(self, request: dict[str, object], say: Callable[[str], None], left_s: float) -> None:
        """One request, and what its outcome means for the next."""
        began = self._clock()
        outcome = "failed"
        try:
            await asyncio.wait_for(self._chat.answer(request, say), left_s)
            outcome = "answered"
            self._worked()
        except WordsMissing:
            outcome = "answered"
            self._worked()
            raise
        except DescriberError as error:
            self._failed(error)
            raise
        except asyncio.TimeoutError:
            fault = DescriberError(f"{self.name}: no whole answer within {self._settings.timeout_s:g} s")
            self._failed(fault)
            raise fault from None
        except BaseException:  # given up by us, or a fault of our own: it says nothing about the server
            self._breaker.abandoned()
            outcome = "abandoned"
            raise
        finally:
            self._observe(outcome, self._clock() - began)

    def _worked(self) -> None:
        if self._breaker.state is not BreakerState.CLOSED:
            log.info("the describer answers again", server=self.name)
        self._breaker.succeeded()

    def _failed(self, error: DescriberError) -> None:
        self._failures += 1
        self._reason = str(error)
        before = self._breaker.state
        self._breaker.failed(permanent=error.permanent, at_least_s=error.retry_after_s)
        if before is BreakerState.CLOSED and self._breaker.state is BreakerState.OPEN:
            advice = {"advice": "check describer.url, model and key"} if error.permanent else {}
            log.error("the describer fails and is left alone for a while", reason=self._reason, **advice)
