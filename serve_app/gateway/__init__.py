"""The application at `/`, which always exists. Ray imports its builder from here."""

from serve_app.gateway.application import build_gateway

__all__ = ["build_gateway"]
