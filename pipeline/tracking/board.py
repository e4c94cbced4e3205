"""MLflow's board with the compression trade-offs already laid out: `make mlflow`.

MLflow has no official way to set its charts from code (mlflow/mlflow#9604), but a shared view is a tag of
the experiment, plain JSON, `mlflow.sharedViewState.<key>`, which its page reads for
`viewStateShareKey=<key>`. The format is internal to MLflow 3.17: pin and test belong together.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from pipeline.errors import UserError
from pipeline.tracking import store

VIEW = "tradeoffs"
PORT = 5000
READY_S = 120.0  # two slow cores need half a minute
SECTION = "compression"
COLUMNS = ("wer", "bytes", "bits_per_weight", "zeros")
NOTE = """# Sotto: what each step of the compression costs

One parent run per `dvc repro`, a child per stage. The runs of teacher, student, sparsify,
qat and pack carry `wer` (percent, test set), `bytes`, `bits_per_weight` and `zeros` of their model.
"""


def view_state() -> dict[str, Any]:
    """What the page shows: the runs that made a model, best first, and three charts."""
    tags = ("family", "preset")
    return {
        "searchFilter": "metrics.bytes > 0 and tags.family != 'repro'",
        "orderByKey": "metrics.`wer`",
        "orderByAsc": True,
        "lifecycleFilter": "Active",
        "startTime": "ALL",
        "selectedColumns": ["attributes.`Source`"]
        + [f"tags.`{tag}`" for tag in tags]
        + [f"metrics.`{name}`" for name in COLUMNS],
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,
        "compareRunSections": [
            {"uuid": SECTION, "name": "Compression trade-offs", "display": True, "isReordered": True}
        ],
        "compareRunCharts": [
            _chart(
                "PARALLEL",
                "Bits, zeros, bytes, WER",
                selectedParams=[],
                selectedMetrics=["bits_per_weight", "zeros", "bytes", "wer"],
                showAllRuns=False,
            ),
            _chart(
                "SCATTER",
                "Bytes against WER",
                xaxis=_metric("bytes"),
                yaxis=_metric("wer"),
                runsCountToCompare=100,
            ),
            _chart("BAR", "WER by stage", metricKey="wer", runsCountToCompare=20),
        ],
    }


def _chart(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"{SECTION}-{kind.lower()}",
        "metricSectionId": SECTION,
        "displayName": name,
        "deleted": False,
        "isGenerated": False,
        **settings,
    }


def _metric(key: str) -> dict[str, str]:
    return {"key": key, "type": "METRIC"}


def lay_out() -> str:
    """Write note and view to the experiment; returns the path of the page behind the server's address."""
    client, experiment = store.open_store(store.tracking_uri())
    client.set_experiment_tag(experiment, "mlflow.note.content", NOTE)
    client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{VIEW}", json.dumps(view_state()))
    return f"/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}&compareRunsMode=CHART"


def serve(uri: str, port: int) -> subprocess.Popen:
    """MLflow's server on the loopback interface with one worker (four take three times as long to start)."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    return subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"], env=environment, stdout=subprocess.DEVNULL
    )


def wait_until_ready(server: subprocess.Popen, address: str, seconds: float = READY_S) -> None:
    """Return when the server answers. Raises UserError if it ends or stays silent."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise UserError(
                f"{address}: MLflow's server ended with status {server.returncode}; see its words above."
            )
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise UserError(f"{address}: MLflow's server did not answer within {seconds:.0f} s.")


def free_port(wanted: int) -> int:
    """`wanted`, or any free port if somebody listens there."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return probe.getsockname()[1]
            except OSError:
                continue
    raise UserError(f"127.0.0.1:{wanted}: no port is free for MLflow's server.")


def main() -> None:
    """Lay the board out, serve it until Ctrl-C, print one address."""
    uri = store.tracking_uri()
    page = lay_out()
    if uri.startswith("http"):
        print(f"Compression trade-offs: {uri.rstrip('/')}{page}")
        return
    address = f"http://127.0.0.1:{free_port(PORT)}"
    print("MLflow is starting (up to half a minute on two cores) …", file=sys.stderr)
    server = serve(uri, int(address.rpartition(":")[2]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        wait_until_ready(server, address)
        print(f"Compression trade-offs: {address}{page}", flush=True)
        server.wait()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    from pipeline.tracking.process import run_stage

    run_stage(main)
