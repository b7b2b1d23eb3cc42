"""Split Harmony in plain Python, with no server: a whole reply, then the same as it streams.

python examples/python_split.py      # needs nothing but harmony-plugin; token ids want the extra [harmony]
"""

from harmony_plugin import Options, Stream, parse, repair, validate

OUTPUT = (
    "<|channel|>analysis<|message|>They want the weather. I should call the tool.<|end|>"
    "<|start|>assistant<|channel|>commentary<|message|>I'll look it up.<|end|>"
    "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    '{"city": "Paris"}<|call|>'
)

reply = parse(OUTPUT, tools=["get_weather"])
print(reply.to_openai())
print(reply.finish_reason())

stream = Stream(tools=["get_weather"], options=Options(commentary="reasoning"))
for delta in stream.deltas(OUTPUT[place : place + 12] for place in range(0, len(OUTPUT), 12)):
    print(delta.to_openai())

# Whatever was wrong with the output is told, never raised (unless Options(strict=True)).
for problem in validate("<|channel|>finl<|message|>Hello."):
    print(problem.code, problem.offset, problem.suggestion)
print(repair("<|channel|>finl<|message|>Hello."))
