// The AI SDK with the provider that its arguments name: generateText and streamText with a tool, and an output of a schema.
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { z } from "zod";

const [url, name, api] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const openai = createOpenAI({ baseURL, apiKey: "none" });
const compatible = createOpenAICompatible({ name: "local", baseURL, includeUsage: true, supportsStructuredOutputs: true });
const models = { chat: compatible, "chat, openai": openai.chat, Responses: openai.responses };
const model = models[api.replace(", store: false", "")](name);

const providerOptions = {
  // A model that the provider does not know for one that reasons.
  openai: { forceReasoning: true, store: !api.endsWith("store: false"), parallelToolCalls: true },
  local: { parallel_tool_calls: true },
};
const asked = (run) => ({ model, prompt: `Do task-${run}.`, maxRetries: 0, providerOptions });
const adding = {
  tools: {
    add: tool({
      description: "The sum of two numbers.",
      inputSchema: z.object({ a: z.number().int(), b: z.number().int() }),
      execute: async ({ a, b }) => a + b,
    }),
  },
  stopWhen: stepCountIs(9),
};
const sum = Output.object({ schema: z.object({ sum: z.number().int(), word: z.string() }) });

const told = async (result) => {
  const steps = await result.steps;
  const usage = await result.totalUsage;
  return {
    answer: await result.text,
    // The provider for OpenAI reads no reasoning of chat.
    thoughts: api === "chat, openai" ? null : steps.map((step) => step.reasoningText ?? ""),
    usage: {
      input: usage.inputTokens,
      output: usage.outputTokens,
      reasoning: usage.outputTokenDetails?.reasoningTokens ?? usage.reasoningTokens ?? 0,
    },
  };
};

// A stream tells of an error as one of its parts.
const whole = async (stream) => {
  for await (const part of stream) if (part.type === "error") throw part.error;
};

const runs = {
  loop: async () => told(await generateText({ ...asked("loop"), ...adding })),
  streamed: async () => {
    const result = streamText({ ...asked("streamed"), ...adding, onError: () => {} });
    await whole(result.fullStream);
    return told(result);
  },
  schema: async () => ({ value: (await generateText({ ...asked("schema"), output: sum })).output }),
  partial: async () => {
    const result = streamText({ ...asked("partial"), output: sum, onError: () => {} });
    await whole(result.fullStream);
    return { value: await result.output };
  },
};
for (const [run, does] of Object.entries(runs)) {
  const line = await does().catch((error) => {
    console.error(error);
    return { error: `${error.name}: ${error.responseBody ?? error.message}`.slice(0, 300) };
  });
  console.log(JSON.stringify({ run, ...line }));
}
