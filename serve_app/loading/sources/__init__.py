"""Where models come from: a URI becomes a local folder, if the chart lets models come from there."""

from serve_app.loading.sources.errors import SourceError
from serve_app.loading.sources.fetching import commit_of, fetch

__all__ = ["SourceError", "commit_of", "fetch"]
