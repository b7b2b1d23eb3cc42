"""The llama-cpp-python server: OpenAI's chat and Responses APIs and Anthropic's Messages API over the Harmony chat
handler.

settings -> app -> (chat | responses | messages) -> engine -> chat handler -> llama.cpp. `tools` knows the tools that
the APIs define by type, `store` what later Responses requests go on from; `stock` is the only module that knows what
`llama_cpp.server` looks like inside.

The translations between the APIs are this package's own: three modules, pure, about 1,400 lines. Looked at instead:
litellm 1.109, whose adapters (streams included) cover the same shapes, but whose wheel is 41 MB and requires boto3,
aiohttp, tokenizers and huggingface-hub below 2, for some 600 KB of adapter source that serves every provider; and
vLLM's, which live inside vLLM. The types of the official clients judge the result in the tests.
"""
