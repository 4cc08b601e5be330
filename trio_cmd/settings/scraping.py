"""All settings enter, what is wrong with who may scrape the metrics leaves; one line each, with the remedy.

``metrics`` stands in a grant's commands though nobody can send it: it is a right of addresses, and
``"*"``, which is every command, does not mean it.
"""

import ipaddress
from importlib.util import find_spec

from trio_cmd.addresses import is_local_host
from trio_cmd.settings.values import Settings

__all__ = ["METRICS", "UNKNOWN", "check_metrics", "check_metrics_host"]

METRICS = "metrics"
"""What lists it in a grant's commands; no program can have this name."""
UNKNOWN = "unknown"
"""What the metrics call all words that are no command; no program can have this name either."""


def check_metrics_host(host: str) -> None:
    """Look whether it can be listened there; no name is looked up.

    Raises:
        ValueError: what was expected.
    """
    if host in ("*", "localhost"):
        return
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError('expected an address of this host, or "*" for all') from None


def check_metrics(settings: Settings) -> list[str]:
    """Find what keeps the metrics from being served, or serves them to whom nobody has named."""
    faults = [
        f"grants.{grant.name}.commands: a scrape shows no token and no certificate;"
        f" list {METRICS} in a grant without them"
        for grant in settings.grants
        if METRICS in grant.commands and (grant.token_sha256 or grant.certificate)
    ]
    if not settings.metrics.port:
        return faults
    if find_spec("prometheus_client") is None:
        faults.append(
            "metrics.port: needs the library prometheus-client;"
            " pip install 'trio-cmd[metrics]', or set metrics.port = 0"
        )
    is_named = any(grant.addresses and METRICS in grant.commands for grant in settings.grants)
    if not (is_named or is_local_host(settings.metrics.host)):
        faults.append(
            f"metrics.host: {settings.metrics.host} can be reached from other hosts;"
            f" say which ones may scrape: [[grants]] with addresses and {METRICS} in its commands"
        )
    return faults
