"""The Open Inference Protocol's gRPC service: its messages, its methods and its status codes."""
