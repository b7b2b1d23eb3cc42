"""The llama-cpp-python server: OpenAI's chat and Responses APIs and Anthropic's Messages API over the Harmony chat
handler.

settings -> app -> (chat | responses | messages) -> engine -> chat handler -> llama.cpp. `stock` is the only module
that knows what `llama_cpp.server` looks like inside.
"""
