"""Options of Serve that are the same for every deployment; what differs is in the Serve config."""

from typing import Any, Final

OPTIONS: Final[dict[str, Any]] = {
    # A replacement starts before the old replica stops, so that a change has no gap.
    "max_surge_percent": 100,
    "backpressure_config": {"status_code": 429, "retry_after_s": 1},
    "logging_config": {"enable_access_log": False},
}
