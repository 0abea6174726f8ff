"""The Celery app of a worker. Each setting says why; most were measured on Celery 5.7 with Redis.

The parent process talks to the broker and watches over one child, which holds the model and computes. The parent
never imports torch: a process that has started threads or CUDA can't be forked safely.
"""

import logging
import os
import secrets
import socket
import sys
import warnings
from typing import Any

from celery import Celery, signals
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.platforms import SecurityWarning

from jobs.broker import celery_broker_url
from jobs.claims import Leases
from jobs.database import Database
from jobs.errors import StorageError
from jobs.logs import configure_logging
from jobs.notify import Notifier
from jobs.outages import OUTAGE
from jobs.queue import QUEUE, TASK, Doorbell, transport_options
from jobs.settings import Settings
from jobs.workers import Workers
from worker.child import Child, EngineFactory
from worker.transport import HastyAmqp, use_for_redis_urls
from worker.watch import WatchChild, hearing_when

log = logging.getLogger(__name__)


def celery_settings(settings: Settings) -> dict[str, Any]:
    """The Celery configuration of a worker."""
    return {
        # A child that can be killed without the parent: `solo` ignores time limits, `threads` can't kill.
        "worker_pool": "prefork",
        "worker_pool_start_method": "fork",
        # One model on one device; more devices are more workers.
        "worker_concurrency": 1,
        # A bell counts as heard when its batch is done, so that it isn't lost with the worker...
        "task_acks_late": True,
        # ...but the bell of a killed or overdue child is not put back: on Redis that loops for ever. The parent
        # gives the jobs back itself, and the database counts the attempts.
        "task_reject_on_worker_lost": False,
        "task_acks_on_timeout": True,
        "task_acks_on_failure": True,
        # Bells wait in the broker, where any worker can take them, not in this one's memory.
        "worker_prefetch_multiplier": 1,
        # Loading a model takes longer than the 4 s that Celery gives a new child before it kills it, for ever.
        "worker_proc_alive_timeout": settings.model_load_seconds,
        "task_soft_time_limit": settings.soft_time_limit_seconds,
        "task_time_limit": settings.hard_time_limit_seconds,
        "broker_transport_options": transport_options(settings),
        # Messages are ids; nothing but JSON is ever read, so a broker can't run code here.
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": QUEUE,
        # The result is in the database.
        "result_backend": None,
        "task_ignore_result": True,
        # A worker may start before the broker and outlive its restarts: try again, and never stop trying.
        "broker_connection_retry_on_startup": True,
        "broker_connection_retry": True,
        "broker_connection_max_retries": None,
        # Off: the computation doesn't need the broker, and its answer goes to the database. On, a restart of the
        # broker would kill the child and throw away its work. The bell comes again, finds nothing to claim, and
        # that is all.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # On a reconnection Celery otherwise takes a running task off the prefetch count of 1 and has to restore it.
        "worker_enable_prefetch_count_reduction": False,
        # Heartbeats are in the database; Celery's own talk between workers is more to go wrong.
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_redirect_stdouts": False,
    }


def new_worker_id() -> str:
    """A name for this worker that no other has, also among containers that all have process id 1."""
    return f"{socket.gethostname()[:80]}-{os.getpid()}-{secrets.token_hex(3)}"


def create_app(settings: Settings, engine_factory: EngineFactory, worker_id: str) -> Celery:
    """The Celery app of one worker process.

    `engine_factory` is called in the child with the settings and returns what computes (see `worker.child.Engine`).

    Raises:
        BrokerError: nothing says where the broker is.
    """
    use_for_redis_urls()
    app = Celery("das", broker=celery_broker_url(settings), amqp=HastyAmqp, set_as_current=False)
    app.conf.update(celery_settings(settings))
    app.steps["worker"].add(WatchChild)
    child = Child(settings, engine_factory, worker_id)
    app.steps["consumer"].add(hearing_when(child.is_up))

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def drain(job_id: str, passed_on: int = 0) -> None:
        # The id says why it rang. What is done is whatever's turn it is, which may be another job.
        try:
            child.drain(job_id, passed_on)
        except StorageError as error:
            # What was claimed is given back when its lease expires, and the sweeper rings for all that waits.
            OUTAGE.failed("bells", error)
        else:
            OUTAGE.worked("bells")

    def on_forking(**_: Any) -> None:
        child.about_to_fork()

    def on_child_start(**_: Any) -> None:
        child.start()

    def on_child_stop(**_: Any) -> None:
        child.stop()

    def on_shutting_down(how: str = "", **_: Any) -> None:
        log.info("the worker is told to end (%s)", how.lower())
        # Celery would wait for a child that loads until it has loaded, only to end it then.
        child.end_if_loading()

    def on_failure(exception: BaseException | None = None, **_: Any) -> None:
        # The parent is told of a dead child at once; the leases would tell the sweeper only seconds later.
        if isinstance(exception, WorkerLostError):
            release_dead(settings, child.worker_id, "its process was killed")
        elif isinstance(exception, TimeLimitExceeded):
            release_dead(settings, child.worker_id, "it took too long and was stopped")

    def on_parent_stop(**_: Any) -> None:
        leave(settings, child.worker_id)

    def on_logging(**_: Any) -> None:
        configure_logging(settings)

    # `weak=False`: Celery would otherwise drop these local functions at once.
    signals.setup_logging.connect(on_logging, weak=False)
    signals.worker_before_create_process.connect(on_forking, weak=False)
    signals.worker_process_init.connect(on_child_start, weak=False)
    signals.worker_process_shutdown.connect(on_child_stop, weak=False)
    signals.worker_shutting_down.connect(on_shutting_down, weak=False)
    signals.task_failure.connect(on_failure, weak=False)
    signals.worker_shutdown.connect(on_parent_stop, weak=False)
    return app


def release_dead(settings: Settings, worker_id: str, reason: str) -> None:
    """Give the jobs of this worker's dead child back, from the parent, and ring for them.

    Connections are opened for this and closed after it, because the parent is about to fork again. If anything
    here fails, the leases expire and the sweeper does the same.
    """
    database, doorbell = Database(settings, pooled=False), Doorbell(settings)
    try:
        leases = Leases(settings, database, Notifier(settings).publish)
        for job_id in leases.release_worker(worker_id, reason):
            log.warning("%s is queued again: %s", job_id, reason)
            doorbell.ring(job_id)
    except StorageError as error:
        log.warning("the jobs of a dead child wait until their leases expire: %s", error)
    except Exception:
        log.exception("the jobs of a dead child could not be given back; their leases will expire")
    finally:
        database.close()
        doorbell.close()


def retire(settings: Settings, worker_id: str) -> None:
    """Take this worker off the list of those that are alive."""
    database = Database(settings, pooled=False)
    try:
        Workers(settings, database).retire(worker_id)
    finally:
        database.close()


def bury(settings: Settings, worker_id: str) -> None:
    """What a worker that was killed can't do for itself any more: give its jobs back, and go off the list."""
    release_dead(settings, worker_id, "its process was killed")
    leave(settings, worker_id)


def leave(settings: Settings, worker_id: str) -> None:
    """Take a worker that ends off the list, where the database is there to do so."""
    try:
        retire(settings, worker_id)
    except StorageError as error:
        log.warning("the worker %s stays on the list until it counts as stale: %s", worker_id, error)


def run(settings: Settings, engine_factory: EngineFactory, worker_id: str | None = None) -> int:
    """Work until SIGTERM or SIGINT, finish the batch in hand, and return the exit code."""
    if settings.log_format == "json":
        # Celery prints there, past all logging, that it was told to end; `on_shutting_down` logs it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # Celery warns root because pickled messages could run code as root; here only JSON is read.
    warnings.simplefilter("ignore", SecurityWarning)
    app = create_app(settings, engine_factory, worker_id or new_worker_id())
    # Mingling would make every start wait a second for other workers' answers.
    worker = app.Worker(
        loglevel=settings.log_level.upper(),
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)
