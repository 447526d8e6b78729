"""The one place that builds the session service's objects and connects them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from parley.session.v1 import session_pb2_grpc as pb_grpc

from parley_kit.admin import AdminServer
from parley_kit.ids import uuid7
from parley_kit.replicas import parse_targets
from parley_kit.rpc.security import Security, secured
from parley_kit.rpc.server import RpcServer, RpcService
from parley_session.answers.base import AnswerCache, NoCache
from parley_session.answers.deciding import Answers
from parley_session.answers.grpc_cache import GrpcAnswerCache
from parley_session.chats import Chats
from parley_session.clock import Clock
from parley_session.config import SessionSettings
from parley_session.context.builder import ContextBuilder
from parley_session.context.summarizing import Summarizer
from parley_session.fleet.base import Fleet
from parley_session.fleet.demand import report_demand
from parley_session.fleet.grpc_fleet import FleetOptions, GrpcFleet
from parley_session.fleet.outliers import OutlierLimits
from parley_session.fleet.policy import EnginePolicy, Engines
from parley_session.fleet.targets import engine_targets
from parley_session.jobs.base import Job
from parley_session.jobs.claims import Claims
from parley_session.jobs.housekeeping import Housekeeping
from parley_session.jobs.performing import Performer
from parley_session.jobs.scheduling import Scheduler
from parley_session.jobs.usage_report import UsageReporter
from parley_session.queue.base import QueueLimits, RunQueue
from parley_session.queue.dispatching import Dispatcher
from parley_session.queue.gate import Gate
from parley_session.queue.redis import RedisRunQueue
from parley_session.runs.acceptance import Acceptance
from parley_session.runs.advancing import Advancer
from parley_session.runs.cancelling import Canceller
from parley_session.runs.deleting import Deleter
from parley_session.runs.finishing import Finisher
from parley_session.runs.following import Follower
from parley_session.runs.keys import Keys
from parley_session.runs.log import LogLimits, LogUnavailable, RunLog
from parley_session.runs.making import Maker
from parley_session.runs.producing import Producer
from parley_session.runs.redis_client import RedisLogOptions
from parley_session.runs.redis_log import RedisRunLog
from parley_session.runs.registry import LiveRuns
from parley_session.runs.starting import Starter
from parley_session.runs.sweeping import Sweeper
from parley_session.runs.taking import Taker
from parley_session.runs.waiting import Pace
from parley_session.servicer import FULL_NAME, SessionServicer
from parley_session.store.base import Store, StoreUnavailable
from parley_session.store.mongo.client import MongoOptions
from parley_session.store.mongo.store import MongoStore
from parley_session.usage import Usage

_log = logging.getLogger(__name__)

# Seconds between two looks for a store or a log that was away at start.
_RETRY_SECONDS = 0.5
# Of the grace period, kept for handing runs over and for their readers to leave.
LEAVING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Outside:
    """What is outside of the process."""

    store: Store
    log: RunLog
    fleet: Fleet
    cache: AnswerCache
    queue: RunQueue


@dataclass(frozen=True, slots=True)
class Session:
    """The objects of one replica."""

    servicer: SessionServicer
    live_runs: LiveRuns
    dispatcher: Dispatcher
    jobs: Sequence[Job]
    scheduler: Scheduler


@dataclass(frozen=True, slots=True)
class Running:
    """A session service that serves."""

    port: int
    admin_port: int
    server: RpcServer
    session: Session


def build(settings: SessionSettings, outside: Outside, clock: Clock | None = None) -> Session:
    """Make the objects of one replica; nothing runs yet."""
    clock = clock or Clock()
    store, log, fleet, cache = outside.store, outside.log, outside.fleet, outside.cache
    queue = outside.queue
    context = ContextBuilder(store, fleet, clock, settings.count_timeout_seconds)
    answers = Answers(store, cache, clock, shared=settings.cache_scope == "global")
    finisher = Finisher(store, log, clock)
    pace = Pace()
    replica = uuid7()
    maker = Maker(
        store=store,
        log=log,
        producer=Producer(
            store=store,
            fleet=fleet,
            context=context,
            answers=answers,
            clock=clock,
            head_start=settings.cache_head_start_seconds,
        ),
        answers=answers,
        finisher=finisher,
        summarizer=Summarizer(store, fleet, clock),
        pace=pace,
        clock=clock,
        holder=replica,
        lease=settings.lease_seconds,
    )
    live_runs = LiveRuns(maker, settings.max_live_runs)
    keys = Keys(store, clock)
    gate = Gate(queue, fleet, live_runs, pace)
    advancer = Advancer(store, live_runs, finisher, gate)
    finisher.then(advancer.advance)
    deleter = Deleter(store=store, log=log, cache=cache, live_runs=live_runs, clock=clock)
    taker = Taker(store, log, live_runs)
    follower = Follower(
        store=store,
        log=log,
        live_runs=live_runs,
        finisher=finisher,
        taker=taker,
        gate=gate,
        clock=clock,
    )
    acceptance = Acceptance(
        store=store,
        fleet=fleet,
        context=context,
        answers=answers,
        live_runs=live_runs,
        finisher=finisher,
        advancer=advancer,
        gate=gate,
        keys=keys,
        clock=clock,
    )
    servicer = SessionServicer(
        chats=Chats(store, fleet, cache, keys, clock),
        deleter=deleter,
        fleet=fleet,
        starter=Starter(store, acceptance, keys, clock),
        follower=follower,
        canceller=Canceller(store, live_runs, follower),
        usage=Usage(store),
        replica=replica,
    )
    sweeper = Sweeper(
        store=store,
        live_runs=live_runs,
        finisher=finisher,
        taker=taker,
        gate=gate,
        clock=clock,
        lease=settings.lease_seconds,
    )
    housekeeping = Housekeeping(
        store=store,
        cache=cache,
        deleter=deleter,
        clock=clock,
        tombstone_seconds=settings.tombstone_seconds,
    )
    deadline = settings.job_deadline_seconds
    jobs = [sweeper.job(settings.sweep_seconds, deadline)]
    if settings.housekeeping:
        jobs += housekeeping.jobs(settings.housekeeping_seconds, deadline)
        jobs.append(UsageReporter(store, clock).job(settings.housekeeping_seconds, deadline))
    performer = Performer(Claims(store, clock, replica), clock)
    return Session(
        servicer,
        live_runs,
        Dispatcher(queue, gate, store, live_runs),
        jobs,
        Scheduler(jobs, performer.perform, clock),
    )


def _fleet_options(settings: SessionSettings) -> FleetOptions:
    return FleetOptions(
        default_model=settings.default_model,
        strategy=settings.engine_strategy,
        slow_start_seconds=settings.engine_slow_start_seconds,
        policy=EnginePolicy(
            Engines(settings.allowed_engines),
            {name: Engines(kind) for name, kind in settings.allowed_engines_of_tenants.items()},
        ),
        outliers=OutlierLimits(
            failures=settings.engine_ejection_failures,
            seconds=settings.engine_ejection_seconds,
            longest_seconds=max(settings.engine_ejection_seconds, 60.0),
            panic_share=settings.engine_panic_share,
        ),
    )


@asynccontextmanager
async def connected(
    settings: SessionSettings, security: Security | None = None
) -> AsyncIterator[Outside]:
    """Connect to what is outside, while the block runs. Waits for nothing."""
    async with AsyncExitStack() as stack:
        store = MongoStore(
            MongoOptions(
                uri=settings.mongodb_uri.get_secret_value(),
                database=settings.mongodb_database,
                operation_seconds=settings.mongodb_timeout_seconds,
                max_connections=settings.mongodb_max_connections,
            )
        )
        stack.push_async_callback(store.close)
        options = RedisLogOptions(
            url=settings.log_redis_url.get_secret_value(),
            limits=LogLimits(ttl_seconds=settings.log_ttl_seconds),
            trust_policy=settings.log_trust_policy,
        )
        log = RedisRunLog(options)
        stack.push_async_callback(log.close)
        limits = QueueLimits(total=settings.max_queued_runs, user=settings.max_queued_runs_of_user)
        queue = RedisRunQueue(options, uuid7(), limits)
        stack.push_async_callback(queue.close)
        fleet = GrpcFleet(
            engine_targets(settings.inference_targets), _fleet_options(settings), security
        )
        await fleet.start()
        stack.push_async_callback(fleet.stop)
        cache: AnswerCache = NoCache()
        if settings.cache_targets:
            cache = grpc_cache = GrpcAnswerCache(
                parse_targets(settings.cache_targets),
                lookup_timeout=settings.cache_lookup_timeout_seconds,
                write_timeout=settings.cache_write_timeout_seconds,
                wait=settings.cache_wait_seconds,
                security=security,
            )
            await grpc_cache.start()
            stack.push_async_callback(grpc_cache.stop)
        yield Outside(store, log, fleet, cache, queue)


@asynccontextmanager
async def serving(
    settings: SessionSettings, outside: Outside | None = None
) -> AsyncIterator[Running]:
    """Serve while the block runs, then let live runs end within the grace period.

    Ready once the store and the log have answered for the first time, and then for
    good: when one goes away later, another replica has no better one. `outside`: others
    than the settings name, for tests. Raises StartupError for a port or certificates.
    """
    async with AsyncExitStack() as stack:
        security = await stack.enter_async_context(secured(settings))
        if outside is None:
            outside = await stack.enter_async_context(connected(settings, security))
        session = build(settings, outside)
        server = RpcServer(
            host=settings.host,
            port=settings.port,
            max_connection_age=settings.connection_age_seconds,
            security=security,
            services=[
                RpcService(
                    FULL_NAME,
                    lambda grpc_server: pb_grpc.add_SessionServiceServicer_to_server(
                        session.servicer, grpc_server
                    ),
                )
            ],
        )
        admin = AdminServer(settings.admin_host, settings.admin_port, lambda: server.serving)
        admin_port = await admin.start()
        stack.push_async_callback(admin.stop)
        port = await server.start()
        try:
            async with _background(outside, session, lambda: server.set_serving(True)):
                _log.info("serving", extra={"port": port, "admin_port": admin_port})
                yield Running(port, admin_port, server, session)
                server.set_serving(False)
        finally:
            server.set_serving(False)
            await _stop(server, session, settings.shutdown_grace_seconds)


@asynccontextmanager
async def working(
    settings: SessionSettings, outside: Outside | None = None
) -> AsyncIterator[Session]:
    """Make what waits and sweep while the block runs, without a gRPC face; then as `serving`."""
    ready = False

    def get_ready() -> None:
        nonlocal ready
        ready = True

    async with AsyncExitStack() as stack:
        security = await stack.enter_async_context(secured(settings))
        if outside is None:
            outside = await stack.enter_async_context(connected(settings, security))
        session = build(settings, outside)
        admin = AdminServer(settings.admin_host, settings.admin_port, lambda: ready)
        admin_port = await admin.start()
        stack.push_async_callback(admin.stop)
        try:
            async with _background(outside, session, get_ready):
                _log.info("working", extra={"admin_port": admin_port})
                yield session
        finally:
            ready = False
            await session.live_runs.drain(_grace_of_runs(settings.shutdown_grace_seconds))


@asynccontextmanager
async def _background(
    outside: Outside, session: Session, get_ready: Callable[[], None]
) -> AsyncIterator[None]:
    """Run what a replica does by itself, while the block runs.

    A defect in any of it ends the block, and so the process: a replica that is alive and
    does half of its work would not be replaced.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_get_ready(outside, get_ready), name="readiness"),
            group.create_task(session.scheduler.run(), name="scheduler"),
            group.create_task(session.dispatcher.run(), name="dispatcher"),
            group.create_task(report_demand(outside.fleet, outside.queue), name="demand"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def _grace_of_runs(grace: float) -> float:
    """Seconds of the grace period in which runs may end by themselves."""
    return max(0.0, grace - min(LEAVING_SECONDS, grace / 2))


async def _get_ready(outside: Outside, get_ready: Callable[[], None]) -> None:
    """Say that the replica is ready once store and log are there."""
    while True:
        try:
            await outside.store.prepare()
            break
        except StoreUnavailable as error:
            _log.warning("waiting for the store", extra={"reason": str(error)})
            await asyncio.sleep(_RETRY_SECONDS)
    while True:
        try:
            await outside.log.ping()
            break
        except LogUnavailable as error:
            _log.warning("waiting for the run log", extra={"reason": str(error)})
            await asyncio.sleep(_RETRY_SECONDS)
    get_ready()


async def _stop(server: RpcServer, session: Session, grace: float) -> None:
    """Take no new call; let runs end, hand over those that do not, move their readers.

    Readers are told to go elsewhere as soon as nothing is made for them here any more, so
    they leave within the time that is kept for it.
    """
    stopping = asyncio.create_task(server.stop(grace))
    try:
        await session.live_runs.drain(_grace_of_runs(grace))
        await stopping
    finally:
        stopping.cancel()
