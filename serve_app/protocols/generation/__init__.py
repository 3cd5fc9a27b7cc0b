"""Protocols in which a text grows while the client reads it: OpenAI's, Hugging Face's and Triton's."""
