"""Figures of generation as metrics of Ray, which its agents hand to Prometheus.

Ray adds the labels of the application, the deployment and the replica by itself.
"""

from typing import Final

from ray.serve import metrics

from serve_app.engine.continuous.figures import Finished

# Seconds; both times depend on the model and the machine by orders of magnitude.
_FIRST: Final = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]
_BETWEEN: Final = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]


class GenerationMetrics:
    """Counts each continuation when it is over."""

    def __init__(self) -> None:
        self._counters = {
            "prompt_tokens": metrics.Counter(
                "model_endpoints_prompt_tokens", description="Tokens of prompts."
            ),
            "cached_tokens": metrics.Counter(
                "model_endpoints_cached_prompt_tokens",
                description="Tokens of prompts that another prompt had computed.",
            ),
            "generated_tokens": metrics.Counter(
                "model_endpoints_generated_tokens", description="Tokens that were generated."
            ),
        }
        self._first = metrics.Histogram(
            "model_endpoints_time_to_first_token_seconds",
            description="From the arrival of a request to its first token.",
            boundaries=_FIRST,
        )
        self._between = metrics.Histogram(
            "model_endpoints_time_per_output_token_seconds",
            description="Between two tokens of a request, on the average of the request.",
            boundaries=_BETWEEN,
        )

    def __call__(self, finished: Finished) -> None:
        for name, counter in self._counters.items():
            if tokens := getattr(finished, name):
                counter.inc(tokens)
        if finished.first_token_seconds is not None:
            self._first.observe(finished.first_token_seconds)
        if finished.seconds_per_token is not None:
            self._between.observe(finished.seconds_per_token)
