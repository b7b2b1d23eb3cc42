"""The llama-cpp-python server: OpenAI's chat and Responses APIs and Anthropic's Messages API over the Harmony chat
handler.

settings -> app -> (chat | responses | messages) -> engine -> chat handler -> llama.cpp. `stock` is the only module
that knows what `llama_cpp.server` looks like inside.

The translations between the APIs are this package's own, two modules of plain functions. Looked at instead: litellm
1.109, whose adapters cover the same shapes, but whose wheel is 41 MB, brings boto3, and pins an `openai` a major
version behind; and vLLM's, which live inside vLLM. Both translate finished chat objects between types, so what would
be saved is the dictionaries, not the order of events. The official clients' types judge the result in the tests.
"""
