"""The figures of the daemon in Prometheus's text format, over HTTP, where the configuration asks for it.

Source: prometheus.io/docs/instrumenting/exposition_formats, "Text-based format".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from replication.replicator import Status
from vstore.errors import ConfigurationError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

STATES = ("bootstrapping", "catching up", "idle", "failing", "paused", "stopped")


class _Metric(NamedTuple):
    name: str
    kind: str
    help: str
    value: Callable[[Status], float | None]


_METRICS = [
    _Metric("pending", "gauge", "Commits of the source that the target has not taken.", lambda s: s.pending),
    _Metric("lag_seconds", "gauge", "Age of the oldest commit not taken; 0 when idle.", lambda s: s.lag_seconds),
    _Metric("progress_ratio", "gauge", "Part of the first pass that is done, 0 to 1.", lambda s: s.progress),
    _Metric("rows_total", "counter", "Versions and stubs taken.", lambda s: s.rows),
    _Metric("new_total", "counter", "Rows among them that were new.", lambda s: s.new),
    _Metric("bytes_total", "counter", "Bytes of bodies taken.", lambda s: s.bytes),
    _Metric("turns_total", "counter", "Passes begun.", lambda s: s.turns),
    _Metric("errors_total", "counter", "Passes that failed.", lambda s: s.errors),
    _Metric(
        "last_error_timestamp_seconds",
        "gauge",
        "When a pass last failed.",
        lambda s: None if s.error_at is None else s.error_at / 1e6,
    ),
    _Metric(
        "caught_up_timestamp_seconds",
        "gauge",
        "When the last pass began that took everything.",
        lambda s: None if s.caught_up_at is None else s.caught_up_at / 1e6,
    ),
    _Metric("conflicts", "gauge", "Documents of the target with several live versions.", lambda s: s.conflicts),
    _Metric("resolved_total", "counter", "Conflicts settled by the resolver.", lambda s: s.resolved),
    _Metric("parked", "gauge", "Rows that the target could not take.", lambda s: s.parked),
    _Metric("differences_total", "counter", "Found by comparing in full. Should be 0.", lambda s: s.differences),
    _Metric("collided_total", "counter", "Versions of a cloned actor. Should be 0.", lambda s: s.collided),
    _Metric(
        "unexplained_total", "counter", "Rows that the target should have had. Should be 0.", lambda s: s.unexplained
    ),
    _Metric("ghosts_total", "counter", "Partitions that had been set back. Should be 0.", lambda s: s.ghosts),
    _Metric("revived_total", "counter", "Edits of forgotten deletes that were kept.", lambda s: s.revived),
    _Metric("forgotten_total", "counter", "Deleted documents that were forgotten.", lambda s: s.forgotten),
    _Metric("left_total", "counter", "Documents that left the filter.", lambda s: s.left),
]


def text_of(statuses: Sequence[Status]) -> str:
    """All figures as Prometheus reads them."""
    lines = [
        "# HELP vstore_replication_state 1 for the state that the replication is in.",
        "# TYPE vstore_replication_state gauge",
    ]
    for status in statuses:
        for state in STATES:
            labels = _labels(replication=status.name, state=state.replace(" ", "_"))
            lines.append(f"vstore_replication_state{labels} {int(status.state == state)}")
    for metric in _METRICS:
        name = f"vstore_replication_{metric.name}"
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for status in statuses:
            value = metric.value(status)
            if value is not None:
                lines.append(f"{name}{_labels(replication=status.name)} {value}")
    return "\n".join([*lines, ""])


class Metrics:
    """A server for GET /metrics. `port` is the one that it got, if it was asked for any."""

    def __init__(self, host: str, port: int, statuses: Callable[[], Sequence[Status]]) -> None:
        """Begins to listen.

        Raises:
            ConfigurationError: the port is taken, or not ours to listen on.
        """

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:  # http.server's name for it
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404, "only /metrics is here")
                    return
                body = text_of(statuses()).encode()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: one line for every scrape helps nobody."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise ConfigurationError(
                f"metrics cannot be served at {host}:{port}: {error.strerror or error}. Nothing was done. Set another "
                f"port with metrics = … in [replicator]."
            ) from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="replication-metrics", daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


def _labels(**labels: str) -> str:
    escaped = (
        f'{name}="{value}"'
        for name, given in labels.items()
        for value in [given.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")]
    )
    return f"{{{','.join(escaped)}}}"
