"""How many replicas Serve's autoscaler wants of a model that generates in steps, by what they hold.

Serve itself counts requests. But a replica has room for a number of tokens and of sequences, and a few long
requests fill it. The head imports this module whenever it reads a Serve config with the policy, so it imports
nothing of ours. Serve sends the function to its controller by value, with what it names in this module.
"""

from typing import Final

from ray.serve.autoscaling_policy import default_autoscaling_policy
from ray.serve.config import AutoscalingContext

# What each replica reports: how full it is, above 1 where requests wait.
LOAD: Final = "load"

# How full replicas should be on the average. Above 1, requests wait, and a new replica takes seconds to start
# after the delay; the room between is for the requests that come meanwhile.
TARGET_LOAD: Final = 0.8


def replicas_for(ctx: AutoscalingContext) -> tuple[float, dict[str, object]]:
    """Return how many replicas the requests need or their tokens, whichever is more, and the policy's state.

    Serve applies the delays and bounds to the number. A replica that has not reported yet holds little.
    """
    by_requests, state = default_autoscaling_policy(ctx)
    loads = (ctx.aggregated_metrics or {}).get(LOAD, {})
    return max(by_requests, sum(loads.values()) / TARGET_LOAD), state
